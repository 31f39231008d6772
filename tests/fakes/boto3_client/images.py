"""Images, from registering to removing."""

import base64
import json
import time

from common import (
    AWAY, BLOCK, HOME, ONE, POLL, TWO, client, has, image, mapping, refused, same, snapshot, with_extra,
    without_extra,
)


def images():
    """Images: registering, finding, sharing, copying, deprecating, removing."""
    ebs, ec2 = client("ebs"), client("ec2")
    disk = snapshot(ebs, ec2, {7: b"7" * BLOCK})
    good = {
        "Name": "goldsmith (1.0)/[a]-b_c'd@e",
        "Description": "an image",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/xvda",
        "EnaSupport": True,
        "SriovNetSupport": "simple",
        "BootMode": "uefi",
        "TpmSupport": "v2.0",
        "ImdsSupport": "v2.0",
        "UefiData": base64.b64encode(b"variables").decode(),
        "BlockDeviceMappings": mapping(disk, VolumeSize=8, Iops=4000, Throughput=200, DeleteOnTermination=True),
        "TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "team", "Value": "gold & silver"}]}],
    }
    refused("DryRunOperation", ec2.register_image, DryRun=True, **good)
    for code, change in [
        ("InvalidAMIName.Malformed", {"Name": "a:b"}),
        ("InvalidAMIName.Malformed", {"Name": "ab"}),
        ("InvalidParameterValue", {"Architecture": "amd64"}),
        ("InvalidParameterValue", {"BootMode": "bios"}),
        ("InvalidParameterCombination", {"BootMode": "legacy-bios"}),
        ("InvalidParameterCombination", {"VirtualizationType": "paravirtual"}),
        ("InvalidParameterValue", {"UefiData": "no base64!"}),
        ("InvalidBlockDeviceMapping", {"RootDeviceName": "/dev/sda1"}),
        ("InvalidSnapshot.NotFound", {"BlockDeviceMappings": mapping("snap-00000000000000000")}),
        ("InvalidSnapshotID.Malformed", {"BlockDeviceMappings": mapping("snap-x")}),
        ("InvalidBlockDeviceMapping", {"BlockDeviceMappings": mapping(disk, Encrypted=True)}),
        ("InvalidParameterCombination", {"BlockDeviceMappings": mapping(disk, VolumeType="gp2", Throughput=200)}),
        ("InvalidParameterValue", {"BlockDeviceMappings": mapping(disk, VolumeType="gp9")}),
        ("InvalidParameterValue", {"TagSpecifications": [{"ResourceType": "snapshot", "Tags": [{"Key": "a"}]}]}),
        ("InvalidParameterValue", {"TagSpecifications": [{"ResourceType": "image", "Tags": [
            {"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}]}),
        ("StandInLacks", {"KernelId": "aki-12345678"}),
    ]:
        refused(code, ec2.register_image, **{**good, **change})
    with_extra(ec2, "RegisterImage", "Bootmode", "uefi")
    assert "Bootmode" in refused("UnknownParameter", ec2.register_image, **good)
    without_extra(ec2, "RegisterImage")
    nameless = {name: value for name, value in good.items() if name != "Name"}
    refused("MissingParameter", ec2.register_image, **nameless)
    made = ec2.register_image(**good)["ImageId"]
    same(ec2.describe_images(ImageIds=[made])["Images"][0]["State"], "pending")
    ec2.get_waiter("image_exists").wait(ImageIds=[made], WaiterConfig=POLL)
    ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig=POLL)
    found = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": ["goldsmith*"]},
                                                          {"Name": "tag:team", "Values": ["gold*", "x"]}])["Images"]
    same(len(found), 1)
    has(found[0], ImageId=made, Name=good["Name"], Description="an image", Architecture="x86_64", EnaSupport=True,
        VirtualizationType="hvm", RootDeviceName="/dev/xvda", RootDeviceType="ebs", SriovNetSupport="simple",
        BootMode="uefi", TpmSupport="v2.0", ImdsSupport="v2.0", OwnerId=ONE["account"], Public=False,
        State="available", Tags=[{"Key": "team", "Value": "gold & silver"}], ImageType="machine")
    same(found[0]["BlockDeviceMappings"], [{"DeviceName": "/dev/xvda", "Ebs": {
        "SnapshotId": disk, "VolumeSize": 8, "VolumeType": "gp3", "Iops": 4000, "Throughput": 200,
        "DeleteOnTermination": True, "Encrypted": False}}])
    data = ec2.describe_image_attribute(ImageId=made, Attribute="uefiData")
    same(data["UefiData"]["Value"], good["UefiData"])
    assert made in refused("InvalidAMIName.Duplicate", ec2.register_image, **good)
    same(ec2.describe_images(Owners=["self"], Filters=[{"Name": "tag:team", "Values": ["lead"]}])["Images"], [])
    refused("InvalidParameterValue", ec2.describe_images, Filters=[{"Name": "colour", "Values": ["x"]}])
    refused("InvalidAMIID.NotFound", ec2.describe_images, ImageIds=["ami-00000000000000000"])
    refused("InvalidAMIID.Malformed", ec2.describe_images, ImageIds=["image"])
    plain = ec2.register_image(Name="defaults", RootDeviceName="/dev/xvda", BlockDeviceMappings=[
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": disk}}])["ImageId"]
    defaults = ec2.describe_images(ImageIds=[plain])["Images"][0]
    has(defaults, Architecture="i386", VirtualizationType="paravirtual")
    assert "EnaSupport" not in defaults and "BootMode" not in defaults, defaults
    pages = [page["Images"] for page in ec2.get_paginator("describe_images").paginate(
        Owners=["self"], PaginationConfig={"PageSize": 1})]
    same([len(page) for page in pages], [1, 1])
    tags(ec2, disk, made)
    deprecation(ec2, made)
    sharing(made, disk)
    copies(made)
    refused("InvalidSnapshot.InUse", ec2.delete_snapshot, SnapshotId=disk)
    gone = ec2.deregister_image(ImageId=made, DeleteAssociatedSnapshots=True)
    same(gone["DeleteSnapshotResults"], [{"SnapshotId": disk, "ReturnCode": "skipped"}])
    refused("InvalidAMIID.NotFound", ec2.deregister_image, ImageId=made)
    other = image(ec2, snapshot(ebs, ec2, {}), "other")
    ec2.deregister_image(ImageId=plain)
    gone = ec2.deregister_image(ImageId=other, DeleteAssociatedSnapshots=True)
    same(gone["DeleteSnapshotResults"][0]["ReturnCode"], "success")
    ec2.delete_snapshot(SnapshotId=disk)
    refused("InvalidSnapshot.NotFound", ec2.describe_snapshots, SnapshotIds=[disk])
    refused("InvalidAction", ec2.describe_instances)


def tags(ec2, disk, made):
    ec2.create_tags(Resources=[disk, made], Tags=[{"Key": "stage", "Value": "<test>"}])
    for found in [ec2.describe_snapshots(SnapshotIds=[disk])["Snapshots"][0],
                  ec2.describe_images(ImageIds=[made])["Images"][0]]:
        assert {"Key": "stage", "Value": "<test>"} in found["Tags"], found
    one = [{"Key": "a", "Value": ""}]
    refused("InvalidAMIID.NotFound", ec2.create_tags, Resources=["ami-00000000000000000"], Tags=one)
    refused("InvalidSnapshot.NotFound", ec2.create_tags, Resources=["snap-00000000000000000"], Tags=one)
    refused("InvalidID", ec2.create_tags, Resources=["vol-00000000000000000"], Tags=one)
    refused("InvalidParameterValue", ec2.create_tags, Resources=[made], Tags=[{"Key": "aws:a", "Value": ""}])
    refused("TagLimitExceeded", ec2.create_tags, Resources=[made],
            Tags=[{"Key": str(n), "Value": ""} for n in range(49)])
    found = ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "tag:stage", "Values": ["<test>"]},
                                                               {"Name": "status", "Values": ["completed"]}])
    same([snapshot["SnapshotId"] for snapshot in found["Snapshots"]], [disk])


def deprecation(ec2, made):
    refused("InvalidParameterValue", ec2.enable_image_deprecation, ImageId=made, DeprecateAt="2020-01-01T00:00:00Z")
    refused("InvalidParameterValue", ec2.enable_image_deprecation, ImageId=made, DeprecateAt="2090-01-01T00:00:00Z")
    year = time.gmtime().tm_year + 1
    same(ec2.enable_image_deprecation(ImageId=made, DeprecateAt=f"{year}-03-01T10:20:40Z")["Return"], True)
    same(ec2.describe_images(ImageIds=[made])["Images"][0]["DeprecationTime"], f"{year}-03-01T10:21:00.000Z")
    same(ec2.disable_image_deprecation(ImageId=made)["Return"], True)
    assert "DeprecationTime" not in ec2.describe_images(ImageIds=[made])["Images"][0]


def sharing(made, disk):
    ec2, other = client("ec2"), client("ec2", TWO)
    refused("InvalidAMIID.NotFound", other.describe_images, ImageIds=[made])
    organization = f"arn:aws:organizations::{ONE['account']}:organization/o-abc1234567"
    unit = f"arn:aws:organizations::{ONE['account']}:ou/o-abc1234567/ou-ab12-cdefghij"
    for wrong in [{"UserId": "12345"}, {"Group": "some"}, {"OrganizationArn": "o-abc"},
                  {"OrganizationalUnitArn": organization}]:
        refused("InvalidAMIAttributeItemValue", ec2.modify_image_attribute, ImageId=made,
                LaunchPermission={"Add": [wrong]})
    ec2.modify_image_attribute(ImageId=made, LaunchPermission={"Add": [{"OrganizationArn": organization}]})
    same(len(other.describe_images(ImageIds=[made])["Images"]), 1)
    ec2.modify_image_attribute(ImageId=made, LaunchPermission={"Remove": [{"OrganizationArn": organization}]})
    refused("InvalidAMIID.NotFound", other.describe_images, ImageIds=[made])
    ec2.modify_image_attribute(ImageId=made, LaunchPermission={"Add": [
        {"UserId": TWO["account"]}, {"OrganizationArn": organization}, {"OrganizationalUnitArn": unit}]})
    ec2.modify_image_attribute(ImageId=made, Attribute="launchPermission", OperationType="add", UserGroups=["all"])
    said = ec2.describe_image_attribute(ImageId=made, Attribute="launchPermission")["LaunchPermissions"]
    wanted = [{"UserId": TWO["account"]}, {"Group": "all"}, {"OrganizationArn": organization},
              {"OrganizationalUnitArn": unit}]
    same(sorted(map(str, said)), sorted(map(str, wanted)))
    same(ec2.describe_images(ImageIds=[made])["Images"][0]["Public"], True)
    ec2.modify_image_attribute(ImageId=made, LaunchPermission={"Remove": [{"Group": "all"}]})
    same(other.describe_images(ImageIds=[made])["Images"][0]["OwnerId"], ONE["account"])
    refused("AuthFailure", other.deregister_image, ImageId=made)
    ec2.modify_image_attribute(ImageId=made, Description={"Value": "another"})
    same(ec2.describe_image_attribute(ImageId=made, Attribute="description")["Description"]["Value"], "another")
    refused("InvalidParameterValue", ec2.describe_image_attribute, ImageId=made, Attribute="colour")
    copy = {"Name": "their copy", "SourceImageId": made, "SourceRegion": HOME}
    assert "storage" in refused("InvalidRequest", other.copy_image, **copy)
    refused("InvalidUserID.Malformed", ec2.modify_snapshot_attribute, SnapshotId=disk,
            CreateVolumePermission={"Add": [{"UserId": "me"}]})
    ec2.modify_snapshot_attribute(SnapshotId=disk, Attribute="createVolumePermission", OperationType="add",
                                  UserIds=[TWO["account"]])
    copied = other.copy_image(CopyImageTags=True, **copy)["ImageId"]
    other.get_waiter("image_available").wait(ImageIds=[copied], WaiterConfig=POLL)
    found = other.describe_images(ImageIds=[copied])["Images"][0]
    has(found, OwnerId=TWO["account"], SourceImageId=made, SourceImageRegion=HOME, BootMode="uefi", TpmSupport="v2.0")
    assert not found.get("Tags"), "another account's tags were copied"
    ec2.modify_snapshot_attribute(SnapshotId=disk, CreateVolumePermission={"Remove": [{"UserId": TWO["account"]}]})


def copies(made):
    away = client("ec2", region=AWAY)
    refused("InvalidAMIID.NotFound", away.describe_images, ImageIds=[made])
    arguments = {
        "Name": "a copy", "SourceImageId": made, "SourceRegion": HOME, "ClientToken": "copy", "CopyImageTags": True,
        "Encrypted": True, "KmsKeyId": "alias/gold",
        "TagSpecifications": [{"ResourceType": "snapshot", "Tags": [{"Key": "of", "Value": "copy"}]}],
    }
    refused("InvalidAMIID.NotFound", away.copy_image, **{**arguments, "SourceRegion": AWAY, "ClientToken": "x"})
    copied = away.copy_image(**arguments)["ImageId"]
    same(away.copy_image(**arguments)["ImageId"], copied)
    refused("IdempotentParameterMismatch", away.copy_image, **{**arguments, "Name": "another copy"})
    refused("InvalidAMIName.Duplicate", away.copy_image, **{**arguments, "ClientToken": "next"})
    same(away.describe_images(ImageIds=[copied])["Images"][0]["State"], "pending")
    refused("InvalidRequest", away.copy_image, Name="of pending", SourceImageId=copied, SourceRegion=AWAY)
    away.get_waiter("image_available").wait(ImageIds=[copied], WaiterConfig=POLL)
    found = away.describe_images(ImageIds=[copied])["Images"][0]
    assert {"Key": "team", "Value": "gold & silver"} in found["Tags"], found
    new = found["BlockDeviceMappings"][0]["Ebs"]
    has(new, Encrypted=True, VolumeSize=8)
    has(away.describe_snapshots(SnapshotIds=[new["SnapshotId"]])["Snapshots"][0], State="completed", Encrypted=True,
        KmsKeyId="alias/gold", Tags=[{"Key": "of", "Value": "copy"}])
    said = away.describe_image_attribute(ImageId=copied, Attribute="launchPermission")
    same(said["LaunchPermissions"], [])
    away.modify_image_attribute(ImageId=copied, LaunchPermission={"Add": [{"Group": "all"},
                                                                          {"UserId": TWO["account"]}]})
    print(json.dumps({"copy": copied, "snapshot": new["SnapshotId"]}))
