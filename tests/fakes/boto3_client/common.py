"""What the scenarios share: clients, what the test has prepared, and how answers are looked at."""

import base64
import hashlib
import json
import os

import boto3
from model import check_answer
from botocore.config import Config
from botocore.exceptions import ClientError

HOME = "eu-central-1"
AWAY = "us-west-2"
BLOCK = 512 << 10
SET = json.loads(os.environ["GOLDSMITH_STAND_IN"])
ONE, TWO = SET["accounts"]
POLL = {"Delay": 0.01, "MaxAttempts": 100}


def client(service, keys=None, region=HOME, attempts=1, **of_s3):
    keys = keys or ONE
    config = Config(
        retries={"total_max_attempts": attempts, "mode": "standard"},
        s3={"addressing_style": "path", **of_s3},
        parameter_validation=False,
    )
    made = boto3.client(
        service,
        region_name=region,
        endpoint_url=SET["s3" if service == "s3" else "endpoint"],
        aws_access_key_id=keys["id"],
        aws_secret_access_key=keys["secret"],
        aws_session_token=keys.get("token"),
        config=config,
    )
    made.meta.events.register("before-parse", lambda response_dict, operation_model, **_: check_answer(
        service, operation_model, response_dict))
    return made


def refused(code, call, **arguments):
    """The call is refused with this code. Returns what is said."""
    try:
        said = call(**arguments)
    except ClientError as error:
        known = error.response["Error"]
        assert known["Code"] == code, f"{known} instead of {code} for {arguments}"
        return known.get("Message", "")
    raise AssertionError(f"{said} instead of {code} for {arguments}")


def same(found, wanted):
    assert found == wanted, f"{found!r} instead of {wanted!r}"


def has(found, **wanted):
    """Members of an answer, and that there are no others among those named."""
    for name, value in wanted.items():
        assert found.get(name) == value, f"{name} is {found.get(name)!r} instead of {value!r} in {found}"


def checksum(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put(ebs, snapshot, index, data, **other):
    arguments = {"DataLength": BLOCK, "Checksum": checksum(data), "ChecksumAlgorithm": "SHA256", "Progress": 50}
    arguments.update(other)
    return ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockData=data, **arguments)


def snapshot(ebs, ec2, blocks, **arguments):
    """A completed snapshot with these blocks."""
    arguments.setdefault("VolumeSize", 1)
    started = ebs.start_snapshot(**arguments)["SnapshotId"]
    for index, data in blocks.items():
        put(ebs, started, index, data)
    ebs.complete_snapshot(SnapshotId=started, ChangedBlocksCount=len(blocks))
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[started], WaiterConfig=POLL)
    return started


def mapping(snapshot_id, **other):
    return [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id, "VolumeType": "gp3", **other}}]


def image(ec2, snapshot_id, name, **other):
    """An available image."""
    arguments = {
        "Name": name,
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/xvda",
        "EnaSupport": True,
        "BlockDeviceMappings": mapping(snapshot_id),
    }
    arguments.update(other)
    made = ec2.register_image(**arguments)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig=POLL)
    return made


def with_extra(of, operation, name, value):
    """Has the next calls of an operation send a parameter more than boto3 would."""

    def add(params, **_):
        body = params["body"]
        if isinstance(body, dict):
            body[name] = value
        else:
            said = json.loads(body)
            said[name] = value
            params["body"] = json.dumps(said).encode()

    service = of.meta.service_model.service_name
    of.meta.events.register(f"before-call.{service}.{operation}", add, unique_id="extra")


def without_extra(of, operation):
    service = of.meta.service_model.service_name
    of.meta.events.unregister(f"before-call.{service}.{operation}", unique_id="extra")


def with_other_body(of, operation, body):
    """Has the next calls of an operation of S3 send another body than was signed."""

    def change(request, **_):
        request.body = body

    of.meta.events.register(f"before-send.s3.{operation}", change, unique_id="body")


def without_other_body(of, operation):
    of.meta.events.unregister(f"before-send.s3.{operation}", unique_id="body")
