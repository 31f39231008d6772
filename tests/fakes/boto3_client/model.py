"""Botocore's models as an oracle: it passes over what it does not know in an answer, so that is looked for here."""

import json
from xml.etree import ElementTree

import botocore.session


def check_answer(service, operation, response):
    """All that a good answer holds has a place in the model."""
    if response["status_code"] >= 300 or operation.output_shape is None or service == "s3":
        return
    shape = operation.output_shape
    if operation.has_streaming_output:
        return
    if service in ("ssm", "ebs"):
        body = json.loads(response["body"] or b"{}")
        fits_json(body, shape, operation.name)
        return
    root = ElementTree.fromstring(response["body"])
    for element in root.iter():
        element.tag = element.tag.split("}")[-1]
    same_name(root.tag, f"{operation.name}Response")
    if service == "ec2":
        root.remove(root.find("requestId"))
        fits(root, shape, operation.name)
    else:
        fits(root.find(f"{operation.name}Result"), shape, operation.name)


def same_name(found, wanted):
    assert found == wanted, f"an element is {found} instead of {wanted}"


def fits(element, shape, path):
    if shape.type_name == "structure":
        members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        seen = set()
        for child in element:
            assert child.tag in members, f"{path}.{child.tag} is not in the model"
            assert child.tag not in seen, f"{path}.{child.tag} is there twice"
            seen.add(child.tag)
            fits(child, members[child.tag], f"{path}.{child.tag}")
    elif shape.type_name == "list":
        for child in element:
            same_name(child.tag, shape.member.serialization.get("name", "member"))
            fits(child, shape.member, path)
    else:
        assert len(element) == 0, f"{path} has elements"
        text = element.text or ""
        if shape.type_name == "string" and shape.enum:
            assert text in shape.enum, f"{path} is {text}"
        elif shape.type_name in ("integer", "long"):
            int(text)
        elif shape.type_name == "boolean":
            assert text in ("true", "false"), f"{path} is {text}"


def fits_json(value, shape, path):
    if shape.type_name == "structure":
        for name, member in value.items():
            assert name in shape.members, f"{path}.{name} is not in the model"
            fits_json(member, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for member in value:
            fits_json(member, shape.member, path)


def parameters_of_ec2(known):
    """The parameters that the stand-in knows are those of the model: none more, and none forgotten."""
    model = botocore.session.get_session().get_service_model("ec2")
    wrong = []
    for action, fields in known.items():
        shape = model.operation_model(action).input_shape
        wanted = dict(paths(shape, ""))
        wanted.pop("DryRun", None)
        for path, is_needed, values in fields:
            if path not in wanted:
                wrong.append(f"{action} has no {path}")
            elif values and set(values) - set(wanted[path].enum or values):
                wrong.append(f"{action}: {path} may not be all of {values}")
        mine = {path for path, _, _ in fields}
        # Instances are launched with a hundred things more, and what needs them all would not be here.
        wrong += [f"{action}: {path} is missing" for path in wanted
                  if path not in mine and not path.startswith("LaunchTemplateData.")]
        needed = {path.split(".#")[0].split(".")[0] for path, is_needed, _ in fields if is_needed}
        for name in shape.required_members:
            if query_name(name, shape.members[name]) not in needed | {"LaunchTemplateData"}:
                wrong.append(f"{action}: {name} is needed")
    assert not wrong, "\n".join(wrong)


def query_name(name, shape):
    said = shape.serialization.get("queryName")
    name = shape.serialization.get("name", name)
    return said or name[0].upper() + name[1:]


def paths(shape, prefix):
    """All paths of parameters, as the query protocol of EC2 has them."""
    for name, member in shape.members.items():
        path = f"{prefix}{query_name(name, member)}"
        while member.type_name == "list":
            path, member = f"{path}.#", member.member
        if member.type_name == "structure":
            yield from paths(member, f"{path}.")
        else:
            yield path, member
