"""S3, and faults that tests plan."""

import os
import time
from urllib.request import urlopen

from botocore.exceptions import ConnectionClosedError

from common import (
    AWAY, HOME, POLL, TWO, checksum, client, has, image, refused, same, snapshot, with_other_body, without_other_body,
)


def objects():
    """S3."""
    s3 = client("s3")
    refused("IllegalLocationConstraintException", s3.create_bucket, Bucket="bucket",
            CreateBucketConfiguration={"LocationConstraint": AWAY})
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": HOME})
    same(s3.get_bucket_location(Bucket="bucket")["LocationConstraint"], HOME)
    same(s3.head_bucket(Bucket="bucket")["BucketRegion"], HOME)
    refused("AuthorizationHeaderMalformed", client("s3", region=AWAY).list_objects_v2, Bucket="bucket")
    refused("NoSuchBucket", s3.list_objects_v2, Bucket="none")
    body = os.urandom(1000)
    s3.put_object(Bucket="bucket", Key="a/b", Body=body)
    same(s3.get_object(Bucket="bucket", Key="a/b", Range="bytes=10-19")["Body"].read(), body[10:20])
    same(s3.head_object(Bucket="bucket", Key="a/b")["ContentLength"], 1000)
    refused("PreconditionFailed", s3.put_object, Bucket="bucket", Key="a/b", Body=b"x", IfNoneMatch="*")
    refused("NoSuchKey", s3.get_object, Bucket="bucket", Key="none")
    part = os.urandom(5 << 20)
    many = {"Bucket": "bucket", "Key": "parts"}
    upload = s3.create_multipart_upload(**many)["UploadId"]
    sent = [{"PartNumber": n, "ETag": s3.upload_part(PartNumber=n, UploadId=upload, Body=data, **many)["ETag"]}
            for n, data in [(1, part), (2, b"end")]]
    same(len(s3.list_parts(UploadId=upload, **many)["Parts"]), 2)
    refused("BadDigest", s3.upload_part, PartNumber=2, UploadId=upload, Body=b"end", ChecksumCRC32="AAAAAA==", **many)
    refused("BadDigest", s3.upload_part, PartNumber=2, UploadId=upload, Body=b"end", ChecksumSHA256=checksum(b"x"),
            **many)
    with_other_body(s3, "PutObject", b"y")
    refused("XAmzContentSHA256Mismatch", s3.put_object, Bucket="bucket", Key="k", Body=b"x")
    without_other_body(s3, "PutObject")
    link = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "a/b"})
    same(urlopen(link).read(), body)
    refused("StandInLacks", s3.put_object, Bucket="bucket", Key="k", Body=b"x", ServerSideEncryption="aws:kms")
    refused("AccessDenied", s3.get_object, Bucket="bucket", Key="a/b", ExpectedBucketOwner=TWO["account"])
    complete = lambda parts: s3.complete_multipart_upload(UploadId=upload, MultipartUpload={"Parts": parts}, **many)
    refused("InvalidPart", lambda: complete([{**sent[0], "ChecksumSHA256": checksum(b"x")}, sent[1]]))
    refused("InvalidPart", lambda: complete([{**sent[0], "ETag": sent[1]["ETag"]}, sent[1]]))
    refused("InvalidPartOrder", lambda: complete(sent[::-1]))
    complete(sent)
    same(s3.get_object(**many)["Body"].read(), part + b"end")
    refused("NoSuchUpload", lambda: complete(sent))
    aborted = s3.create_multipart_upload(Bucket="bucket", Key="aborted")["UploadId"]
    s3.abort_multipart_upload(Bucket="bucket", Key="aborted", UploadId=aborted)
    refused("NoSuchUpload", s3.upload_part, Bucket="bucket", Key="aborted", UploadId=aborted, PartNumber=1, Body=b"x")
    small = s3.create_multipart_upload(**many)["UploadId"]
    sent = [{"PartNumber": n, "ETag": s3.upload_part(PartNumber=n, UploadId=small, Body=b"x", **many)["ETag"]}
            for n in [1, 2]]
    refused("EntityTooSmall", s3.complete_multipart_upload, UploadId=small, MultipartUpload={"Parts": sent}, **many)
    same([found["Key"] for found in s3.list_objects_v2(Bucket="bucket")["Contents"]], ["a/b", "parts"])
    s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "a/b"})
    s3.delete_object(Bucket="bucket", Key="a/b")
    s3.create_multipart_upload(Bucket="bucket", Key="never finished")


def faults():
    """Planned faults: a client that tries again gets there, one that does not sees what the service says."""
    ec2 = client("ec2")
    refused("RequestLimitExceeded", ec2.describe_images)
    refused("Unavailable", ec2.describe_images)
    refused("InternalError", ec2.describe_images)
    ec2.describe_images()
    refused("RequestThrottledException", client("ebs").start_snapshot, VolumeSize=1)
    refused("ThrottlingException", client("ssm").get_parameter, Name="x")
    refused("Throttling", client("sns").create_topic, Name="x")
    disk = snapshot(client("ebs"), ec2, {})
    made = image(ec2, disk, "source")
    away = client("ec2", region=AWAY)
    copy = {"Name": "copy", "SourceImageId": made, "SourceRegion": HOME, "ClientToken": "t"}
    try:
        raise AssertionError(away.copy_image(**copy))
    except ConnectionClosedError:
        pass
    copied = away.copy_image(**copy)["ImageId"]
    same(len(away.describe_images(Owners=["self"])["Images"]), 1)
    away.get_waiter("image_available").wait(ImageIds=[copied], WaiterConfig=POLL)
    third = client("ec2", region="eu-west-3")
    broken = third.copy_image(**copy)["ImageId"]
    for _ in range(5):
        found = third.describe_images(ImageIds=[broken])["Images"][0]
    has(found, State="failed")
    same(found["StateReason"]["Message"], "the copy broke")
    begun = time.monotonic()
    client("ssm").put_parameter(Name="slow", Value="x", Type="String")
    assert time.monotonic() - begun > 0.5
    s3 = client("s3", attempts=5)
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    refused("SlowDown", client("s3").get_object, Bucket="bucket", Key="k")
    refused("KMS.DisabledException", client("s3").get_object, Bucket="bucket", Key="k")
    same(s3.get_object(Bucket="bucket", Key="k")["Body"].read(), b"x")
    many = {"Bucket": "bucket", "Key": "parts"}
    upload = s3.create_multipart_upload(**many)["UploadId"]
    part = {"PartNumber": 1, "ETag": s3.upload_part(PartNumber=1, UploadId=upload, Body=b"part", **many)["ETag"]}
    try:
        once = client("s3").complete_multipart_upload
        raise AssertionError(once(UploadId=upload, MultipartUpload={"Parts": [part]}, **many))
    except ConnectionClosedError:
        same(s3.head_object(**many)["ContentLength"], 4)
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": "bucket", "S3Key": "k"}}
    task = ec2.import_snapshot(DiskContainer=container)["ImportTaskId"]
    for _ in range(50):
        detail = ec2.describe_import_snapshot_tasks(ImportTaskIds=[task])["ImportSnapshotTasks"][0]
        detail = detail["SnapshotTaskDetail"]
        if detail["Status"] != "active":
            break
        time.sleep(0.1)
    has(detail, Status="deleted", StatusMessage="ServerError: the import broke")
