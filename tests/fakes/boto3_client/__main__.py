"""Drives the stand-in for AWS with boto3, which knows the shapes of requests and answers and has waiters of its own.

Called with the name of a scenario. It ends well or says where it does not; what it prints is for the calling test.
"""

import sys

from access import expired, keys, policy, role
from common import SET
from images import images
from model import parameters_of_ec2 as compare
from objects import faults, objects
from snapshots import blocks, imports
from templates import templates


def parameters_of_ec2():
    compare(SET["told"])


SCENARIOS = [blocks, images, imports, templates, keys, role, expired, objects, policy, faults, parameters_of_ec2]
{scenario.__name__: scenario for scenario in SCENARIOS}[sys.argv[1]]()
