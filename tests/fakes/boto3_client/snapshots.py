"""Snapshots: the direct APIs, and imports from S3."""

import hashlib
import json
import os
import time

from common import (
    AWAY, BLOCK, HOME, ONE, POLL, SET, TWO, checksum, client, has, mapping, put, refused, same, snapshot,
    with_extra, without_extra,
)


def blocks():
    """The direct APIs."""
    ebs, ec2 = client("ebs"), client("ec2")
    arguments = {
        "VolumeSize": 2,
        "Description": "parent",
        "Tags": [{"Key": "a", "Value": "b"}],
        "ClientToken": "one",
        "Timeout": 60,
    }
    started = ebs.start_snapshot(**arguments)
    parent = started["SnapshotId"]
    has(started, OwnerId=ONE["account"], Status="pending", VolumeSize=2, BlockSize=BLOCK, Description="parent")
    same(started["Tags"], [{"Key": "a", "Value": "b"}])
    same(ebs.start_snapshot(**arguments)["SnapshotId"], parent)
    refused("ConflictException", ebs.start_snapshot, **{**arguments, "VolumeSize": 3})
    one, two = b"1" * BLOCK, b"2" * BLOCK
    answer = put(ebs, parent, 0, one)
    has(answer, Checksum=checksum(one), ChecksumAlgorithm="SHA256")
    put(ebs, parent, 0, one)
    put(ebs, parent, 4095, two)
    for wrong in [
        {"DataLength": BLOCK - 1},
        {"Checksum": checksum(two)},
        {"ChecksumAlgorithm": "MD5"},
        {"Progress": 101},
    ]:
        refused("ValidationException", put, ebs=ebs, snapshot=parent, index=1, data=one, **wrong)
    refused("ValidationException", put, ebs=ebs, snapshot=parent, index=1, data=b"short")
    refused("ValidationException", put, ebs=ebs, snapshot=parent, index=4096, data=one)
    refused("ResourceNotFoundException", put, ebs=ebs, snapshot="snap-00000000000000000", index=0, data=one)
    has(ec2.describe_snapshots(SnapshotIds=[parent])["Snapshots"][0], State="pending", Progress="0%")
    refused("IncorrectState", ec2.register_image, Name="too early", RootDeviceName="/dev/xvda",
            BlockDeviceMappings=mapping(parent))
    refused("ValidationException", ebs.complete_snapshot, SnapshotId=parent, ChangedBlocksCount=3)
    digests = hashlib.sha256(one).digest() + hashlib.sha256(two).digest()
    linear = {"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    refused("ValidationException", ebs.complete_snapshot, SnapshotId=parent, ChangedBlocksCount=2,
            Checksum=checksum(one), **linear)
    done = ebs.complete_snapshot(SnapshotId=parent, ChangedBlocksCount=2, Checksum=checksum(digests), **linear)
    same(done["Status"], "pending")
    refused("ValidationException", put, ebs=ebs, snapshot=parent, index=1, data=one)
    refused("ValidationException", ebs.complete_snapshot, SnapshotId=parent, ChangedBlocksCount=2)
    refused("ValidationException", ebs.start_snapshot, VolumeSize=2, ParentSnapshotId=parent)
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[parent], WaiterConfig=POLL)
    has(ec2.describe_snapshots(SnapshotIds=[parent])["Snapshots"][0], State="completed", Progress="100%", VolumeSize=2,
        Description="parent", OwnerId=ONE["account"], Encrypted=False, Tags=[{"Key": "a", "Value": "b"}])
    refused("ValidationException", ebs.start_snapshot, VolumeSize=1, ParentSnapshotId=parent)
    refused("ValidationException", ebs.start_snapshot, VolumeSize=2, ParentSnapshotId=parent, Encrypted=True)
    refused("ValidationException", ebs.start_snapshot, VolumeSize=65537)
    refused("ValidationException", ebs.start_snapshot, VolumeSize=1, Timeout=9)
    refused("ValidationException", ebs.start_snapshot, VolumeSize=1, Tags=[{"Key": "aws:x", "Value": ""}])
    refused("ResourceNotFoundException", client("ebs", region=AWAY).start_snapshot, VolumeSize=2,
            ParentSnapshotId=parent)
    with_extra(ebs, "StartSnapshot", "VolumeSise", 1)
    refused("ValidationException", ebs.start_snapshot, VolumeSize=1)
    without_extra(ebs, "StartSnapshot")
    child = snapshot(ebs, ec2, {1: two, 4095: one}, VolumeSize=3, ParentSnapshotId=parent, Description="child")
    listed = ebs.list_snapshot_blocks(SnapshotId=child)
    has(listed, VolumeSize=3, BlockSize=BLOCK)
    same([block["BlockIndex"] for block in listed["Blocks"]], [0, 1, 4095])
    for block, data in zip(listed["Blocks"], [one, two, one]):
        got = ebs.get_snapshot_block(SnapshotId=child, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"])
        same(got["BlockData"].read(), data)
        has(got, Checksum=checksum(data), DataLength=BLOCK)
    refused("ValidationException", ebs.get_snapshot_block, SnapshotId=child, BlockIndex=1,
            BlockToken=listed["Blocks"][0]["BlockToken"])
    changed = ebs.list_changed_blocks(FirstSnapshotId=parent, SecondSnapshotId=child)["ChangedBlocks"]
    same([(block["BlockIndex"], "FirstBlockToken" in block) for block in changed], [(1, False), (4095, True)])
    many = snapshot(ebs, ec2, {index: one for index in range(120)})
    pages = client("ebs").list_snapshot_blocks(SnapshotId=many, MaxResults=100)
    same(len(pages["Blocks"]), 100)
    rest = ebs.list_snapshot_blocks(SnapshotId=many, MaxResults=100, NextToken=pages["NextToken"])
    same([block["BlockIndex"] for block in rest["Blocks"]], list(range(100, 120)))
    assert "NextToken" not in rest
    encrypted = snapshot(ebs, ec2, {}, Encrypted=True)
    has(ec2.describe_snapshots(SnapshotIds=[encrypted])["Snapshots"][0], Encrypted=True)
    refused("OperationNotPermitted", ec2.modify_snapshot_attribute, SnapshotId=encrypted,
            CreateVolumePermission={"Add": [{"UserId": TWO["account"]}]})
    print(json.dumps({"parent": parent, "child": child}))


def imports():
    """Objects in S3 that become snapshots."""
    s3, ec2 = client("s3"), client("ec2")
    s3.create_bucket(Bucket="disks", CreateBucketConfiguration={"LocationConstraint": HOME})
    away = client("s3", region=AWAY)
    away.create_bucket(Bucket="disks-away", CreateBucketConfiguration={"LocationConstraint": AWAY})
    made = {}
    for name, form in [("disk.raw", "RAW"), ("disk.vmdk", "VMDK"), ("disk.vhd", "VHD"), ("flat.vmdk", "VMDK"),
                       ("odd.raw", "RAW")]:
        s3.upload_file(os.path.join(SET["folder"], name), "disks", name)
        made[name] = start_import(ec2, name, form)
    away.upload_file(os.path.join(SET["folder"], "disk.raw"), "disks-away", "disk.raw")
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": "disks-away", "S3Key": "disk.raw"}}
    assert "not local" in refused("InvalidParameter", ec2.import_snapshot, DiskContainer=container)
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": "disks", "S3Key": "none"}}
    refused("InvalidParameter", ec2.import_snapshot, DiskContainer=container)
    container = {"Format": "VHDX", "UserBucket": {"S3Bucket": "disks", "S3Key": "disk.raw"}}
    refused("InvalidParameterValue", ec2.import_snapshot, DiskContainer=container)
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": "disks", "S3Key": "disk.raw"}}
    said = refused("InvalidParameter", ec2.import_snapshot, DiskContainer=container, RoleName="other")
    assert "service role other does not exist or does not have sufficient permissions" in said, said
    again = ec2.import_snapshot(DiskContainer=container, ClientToken="token")
    same(ec2.import_snapshot(DiskContainer=container, ClientToken="token")["ImportTaskId"], again["ImportTaskId"])
    refused("IdempotentParameterMismatch", ec2.import_snapshot, DiskContainer={**container, "Format": "VHD"},
            ClientToken="token")
    has(ec2.cancel_import_task(ImportTaskId=again["ImportTaskId"], CancelReason="enough"), PreviousState="active")
    refused("IncorrectState", ec2.cancel_import_task, ImportTaskId=again["ImportTaskId"])
    refused("InvalidConversionTaskId", ec2.describe_import_snapshot_tasks,
            ImportTaskIds=["import-snap-00000000000000000"])
    snapshots = {}
    for name in ["disk.raw", "disk.vmdk", "disk.vhd"]:
        task = [made[name]]
        ec2.get_waiter("snapshot_imported").wait(ImportTaskIds=task, WaiterConfig={"Delay": 0.2, "MaxAttempts": 100})
        detail = ec2.describe_import_snapshot_tasks(ImportTaskIds=task)["ImportSnapshotTasks"][0]["SnapshotTaskDetail"]
        snapshots[name] = detail["SnapshotId"]
        has(ec2.describe_snapshots(SnapshotIds=[detail["SnapshotId"]])["Snapshots"][0], State="completed", VolumeSize=1)
    for name, why in [("flat.vmdk", "Unsupported VMDK File Format"), ("odd.raw", "multiple of 512")]:
        for _ in range(50):
            task = ec2.describe_import_snapshot_tasks(ImportTaskIds=[made[name]])["ImportSnapshotTasks"][0]
            detail = task["SnapshotTaskDetail"]
            if detail["Status"] != "active":
                break
            time.sleep(0.2)
        same(detail["Status"], "deleted")
        assert detail["StatusMessage"].startswith("ClientError: Disk validation failed") and why in str(detail), detail
    ec2.create_tags(Resources=[made["disk.raw"]], Tags=[{"Key": "late", "Value": "tag"}])
    found = ec2.describe_import_snapshot_tasks(Filters=[{"Name": "tag:late", "Values": ["tag"]}])
    same([task["ImportTaskId"] for task in found["ImportSnapshotTasks"]], [made["disk.raw"]])
    print(json.dumps(snapshots))


def start_import(ec2, key, form):
    answer = ec2.import_snapshot(
        Description=key,
        DiskContainer={"Description": "d", "Format": form, "UserBucket": {"S3Bucket": "disks", "S3Key": key}},
        TagSpecifications=[{"ResourceType": "import-snapshot-task", "Tags": [{"Key": "k", "Value": key}]}],
    )
    detail = answer["SnapshotTaskDetail"]
    has(detail, Status="active", Format=form, UserBucket={"S3Bucket": "disks", "S3Key": key})
    same(answer["Tags"], [{"Key": "k", "Value": key}])
    assert 0 <= int(detail["Progress"]) < 100 and detail["StatusMessage"] == "pending", detail
    return answer["ImportTaskId"]
