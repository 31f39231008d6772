"""What points to images: launch templates, parameters, messages."""

import base64

from common import AWAY, HOME, ONE, TWO, client, has, image, refused, same, snapshot, with_extra, without_extra


def templates():
    """Launch templates, parameters, topics, callers."""
    ebs, ec2 = client("ebs"), client("ec2")
    disk = snapshot(ebs, ec2, {})
    first, second = image(ec2, disk, "first"), image(ec2, disk, "second")
    data = {
        "ImageId": first, "InstanceType": "t3.micro", "UserData": base64.b64encode(b"#!/bin/sh").decode(),
        "SecurityGroupIds": ["sg-1", "sg-2"], "MetadataOptions": {"HttpTokens": "required"},
        "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["sg-3"]}],
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 9, "VolumeType": "gp3"}}],
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}],
    }
    create = {"LaunchTemplateName": "web", "VersionDescription": "first", "LaunchTemplateData": data,
              "ClientToken": "web"}
    made = ec2.create_launch_template(**create)["LaunchTemplate"]
    has(made, LaunchTemplateName="web", DefaultVersionNumber=1, LatestVersionNumber=1)
    same(ec2.create_launch_template(**create)["LaunchTemplate"]["LaunchTemplateId"], made["LaunchTemplateId"])
    refused("InvalidLaunchTemplateName.AlreadyExistsException", ec2.create_launch_template,
            **{**create, "ClientToken": "other"})
    version = {"LaunchTemplateId": made["LaunchTemplateId"], "SourceVersion": "$Latest", "ClientToken": "v2",
               "LaunchTemplateData": {"ImageId": second}, "VersionDescription": "next"}
    new = ec2.create_launch_template_version(**version)["LaunchTemplateVersion"]
    has(new, VersionNumber=2, DefaultVersion=False, VersionDescription="next",
        LaunchTemplateData={**data, "ImageId": second})
    same(ec2.create_launch_template_version(**version)["LaunchTemplateVersion"]["VersionNumber"], 2)
    refused("IdempotentParameterMismatch", ec2.create_launch_template_version,
            **{**version, "LaunchTemplateData": {"ImageId": first}})
    refused("InvalidAMIID.NotFound", ec2.create_launch_template_version, LaunchTemplateName="web",
            LaunchTemplateData={"ImageId": "ami-00000000000000000"})
    refused("InvalidLaunchTemplateId.VersionNotFound", ec2.create_launch_template_version, LaunchTemplateName="web",
            SourceVersion="7", LaunchTemplateData={"ImageId": first})
    refused("InvalidLaunchTemplateName.NotFoundException", ec2.create_launch_template_version,
            LaunchTemplateName="none", LaunchTemplateData={"ImageId": first})
    changed = ec2.modify_launch_template(LaunchTemplateName="web", DefaultVersion="2")["LaunchTemplate"]
    has(changed, DefaultVersionNumber=2, LatestVersionNumber=2)
    has(ec2.describe_launch_templates(LaunchTemplateNames=["web"])["LaunchTemplates"][0], DefaultVersionNumber=2)
    refused("InvalidLaunchTemplateId.NotFound", ec2.describe_launch_templates,
            LaunchTemplateIds=["lt-00000000000000000"])
    found = ec2.describe_launch_template_versions(LaunchTemplateName="web", Versions=["$Default"])
    same([found["VersionNumber"] for found in found["LaunchTemplateVersions"]], [2])
    deleted = ec2.delete_launch_template_versions(LaunchTemplateName="web", Versions=["1", "2", "3"])
    same([one["VersionNumber"] for one in deleted["SuccessfullyDeletedLaunchTemplateVersions"]], [1])
    same([one["ResponseError"]["Code"] for one in deleted["UnsuccessfullyDeletedLaunchTemplateVersions"]],
         ["unexpectedError", "launchTemplateVersionDoesNotExist"])
    parameters(first, second)
    topics()
    has(client("sts").get_caller_identity(), Account=ONE["account"])


def parameters(first, second):
    ssm = client("ssm")
    arguments = {"Name": "/golden/web", "Value": first, "Type": "String", "DataType": "aws:ec2:image"}
    same(ssm.put_parameter(Tags=[{"Key": "a", "Value": "b"}], **arguments)["Version"], 1)
    refused("ParameterAlreadyExists", ssm.put_parameter, **arguments)
    refused("ValidationException", ssm.put_parameter, Overwrite=True, Tags=[{"Key": "a", "Value": "b"}], **arguments)
    same(ssm.put_parameter(Overwrite=True, **{**arguments, "Value": second})["Version"], 2)
    refused("ValidationException", ssm.put_parameter, Overwrite=True, **{**arguments, "Value": "ami-0123456789abcdef0"})
    refused("ValidationException", client("ssm", region=AWAY).put_parameter, **arguments)
    refused("ValidationException", ssm.put_parameter, Name="/golden/other", Value="x")
    refused("ValidationException", ssm.put_parameter, Name="/aws/other", Value="x", Type="String")
    refused("ValidationException", ssm.put_parameter, Name="/golden/other", Value="x", Type="Text")
    with_extra(ssm, "PutParameter", "Overwrites", True)
    refused("ValidationException", ssm.put_parameter, **arguments)
    without_extra(ssm, "PutParameter")
    got = ssm.get_parameter(Name="/golden/web")["Parameter"]
    has(got, Value=second, Version=2, Type="String", DataType="aws:ec2:image",
        ARN=f"arn:aws:ssm:{HOME}:{ONE['account']}:parameter/golden/web")
    ssm.put_parameter(Name="short", Value="x", Type="String")
    ssm.delete_parameter(Name="short")
    refused("ParameterNotFound", ssm.get_parameter, Name="short")
    refused("ParameterNotFound", ssm.delete_parameter, Name="short")


def topics():
    sns = client("sns")
    arn = sns.create_topic(Name="images")["TopicArn"]
    same(arn, f"arn:aws:sns:{HOME}:{ONE['account']}:images")
    same(sns.create_topic(Name="images")["TopicArn"], arn)
    sent = sns.publish(TopicArn=arn, Subject="new", Message="made: ä & <b>", MessageAttributes={
        "kind": {"DataType": "String", "StringValue": "image"}})
    assert sent["MessageId"]
    refused("NotFound", sns.publish, TopicArn=f"{arn}-none", Message="x")
    refused("InvalidParameter", client("sns", region=AWAY).publish, TopicArn=arn, Message="x")
    refused("AuthorizationError", client("sns", TWO).publish, TopicArn=arn, Message="x")
    refused("InvalidParameter", sns.publish, TopicArn=arn, Message="")
    refused("InvalidParameterValue", sns.publish, TopicArn=arn, Message="x", Subject="s" * 100)
    refused("MissingParameter", sns.create_topic)
    refused("InvalidAction", sns.list_topics)
