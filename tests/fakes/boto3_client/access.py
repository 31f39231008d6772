"""Who may do what."""

import json

from common import AWAY, HOME, ONE, SET, TWO, client, has, image, mapping, refused, same, snapshot


def keys():
    """Signatures, sessions, other accounts."""
    wrong = {**ONE, "secret": "wrong"}
    unknown = {**ONE, "id": "AKIAUNKNOWN000000000"}
    tokened = {**ONE, "token": "token"}
    for service, call, codes in [
        ("ec2", lambda c: c.describe_images(), ("SignatureDoesNotMatch", "AuthFailure")),
        ("sts", lambda c: c.get_caller_identity(), ("SignatureDoesNotMatch", "InvalidClientTokenId")),
        ("sns", lambda c: c.create_topic(Name="x"), ("SignatureDoesNotMatch", "InvalidClientTokenId")),
        ("ssm", lambda c: c.get_parameter(Name="x"), ("InvalidSignatureException", "UnrecognizedClientException")),
        ("ebs", lambda c: c.start_snapshot(VolumeSize=1),
         ("InvalidSignatureException", "UnrecognizedClientException")),
    ]:
        refused(codes[0], lambda: call(client(service, wrong)))
        refused(codes[1], lambda: call(client(service, unknown)))
        refused(codes[1], lambda: call(client(service, tokened)))
    refused("SignatureDoesNotMatch", client("s3", wrong).list_buckets)
    refused("InvalidAccessKeyId", client("s3", unknown).list_buckets)
    refused("InvalidToken", client("s3", tokened).list_buckets)
    sts = client("sts")
    arguments = {"RoleArn": SET["role"], "RoleSessionName": "goldsmith"}
    refused("InvalidParameterValue", sts.assume_role, DurationSeconds=60, **arguments)
    refused("AccessDenied", sts.assume_role, RoleArn=f"{SET['role']}x", RoleSessionName="goldsmith")
    refused("AccessDenied", client("sts", TWO).assume_role, **arguments)
    answer = sts.assume_role(DurationSeconds=900, **arguments)
    given = answer["Credentials"]
    session = {"id": given["AccessKeyId"], "secret": given["SecretAccessKey"], "token": given["SessionToken"]}
    same(answer["AssumedRoleUser"]["Arn"], f"arn:aws:sts::{TWO['account']}:assumed-role/Publish/goldsmith")
    has(client("sts", session).get_caller_identity(), Account=TWO["account"], Arn=answer["AssumedRoleUser"]["Arn"])
    refused("InvalidClientTokenId", client("sts", {**session, "token": None}).get_caller_identity)
    ec2, ebs = client("ec2", session), client("ebs", session)
    made = image(ec2, snapshot(ebs, ec2, {}), "made by a role")
    same(client("ec2", TWO).describe_images(ImageIds=[made])["Images"][0]["OwnerId"], TWO["account"])
    refused("InvalidAMIID.NotFound", client("ec2").describe_images, ImageIds=[made])
    s3 = client("s3", session)
    s3.create_bucket(Bucket="theirs", CreateBucketConfiguration={"LocationConstraint": HOME})
    s3.put_object(Bucket="theirs", Key="k", Body=b"x")
    refused("AccessDenied", client("s3").get_object, Bucket="theirs", Key="k")
    print(json.dumps(session))


def role():
    """A role that has a policy now."""
    refused("UnauthorizedOperation", client("ec2", SET["told"]).describe_images)
    same(client("s3", SET["told"]).get_object(Bucket="theirs", Key="k")["Body"].read(), b"x")


def expired():
    """A session whose time is over."""
    refused("RequestExpired", client("ec2", SET["told"]).describe_images)
    refused("ExpiredToken", client("sts", SET["told"]).get_caller_identity)
    refused("ExpiredTokenException", client("ebs", SET["told"]).start_snapshot, VolumeSize=1)
    refused("ExpiredToken", client("s3", SET["told"]).get_object, Bucket="theirs", Key="k")


def policy():
    """What the attached policy does not allow is refused, and what is refused is named."""
    ebs, ec2, s3 = client("ebs"), client("ec2"), client("s3")
    tags = [{"Key": "team", "Value": "gold"}]
    image_tags = [{"ResourceType": "image", "Tags": tags}]
    said = refused("AccessDeniedException", ebs.start_snapshot, VolumeSize=1, Tags=[{"Key": "team", "Value": "lead"}])
    assert "ec2:CreateTags" in said and f"arn:aws:ec2:{HOME}::snapshot/*" in said, said
    refused("AccessDeniedException", client("ebs", region=AWAY).start_snapshot, VolumeSize=1, Tags=tags)
    disk = snapshot(ebs, ec2, {}, Tags=tags)
    untagged = snapshot(client("ebs"), ec2, {})
    arguments = {"RootDeviceName": "/dev/xvda", "BlockDeviceMappings": mapping(disk)}
    said = refused("UnauthorizedOperation", ec2.register_image, Name="no tags", **arguments)
    assert "ec2:RegisterImage" in said and f"arn:aws:ec2:{HOME}::image/*" in said, said
    refused("DryRunOperation", ec2.register_image, Name="tagged", TagSpecifications=image_tags, DryRun=True,
            **arguments)
    made = ec2.register_image(Name="tagged", TagSpecifications=image_tags, **arguments)["ImageId"]
    refused("UnauthorizedOperation", ec2.deregister_image, ImageId=made)
    refused("UnauthorizedOperation", ec2.delete_snapshot, SnapshotId=untagged)
    refused("UnauthorizedOperation", ec2.describe_launch_templates)
    refused("AuthorizationError", client("sns").create_topic, Name="x")
    refused("AccessDenied", client("sts").assume_role, RoleArn=SET["role"], RoleSessionName="me")
    client("sts").get_caller_identity()
    s3.put_object(Bucket="allowed", Key="in/k", Body=b"x")
    said = refused("AccessDenied", s3.put_object, Bucket="allowed", Key="out/k", Body=b"x")
    assert "arn:aws:s3:::allowed/out/k" in said, said
    refused("AccessDenied", s3.get_object, Bucket="allowed", Key="in/k")
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": "allowed", "S3Key": "in/k"}}
    said = refused("UnauthorizedOperation", ec2.import_snapshot, DiskContainer=container)
    assert "iam:PassRole" in said and "role/vmimport" in said, said
    ssm = client("ssm")
    ssm.put_parameter(Name="/golden/x", Value="x", Type="String")
    refused("AccessDeniedException", ssm.put_parameter, Name="/silver/x", Value="x", Type="String")
