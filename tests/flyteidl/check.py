"""Flyte's own messages, for tests/flyteidl/main.rs. One JSON value on each line.

check.py read    bytes in hexadecimal from stdin; their JSON, the bytes of what was read, and how many fields were unknown
check.py write   attributes of all kinds at random, as bytes and as JSON
check.py names   the kinds' names and numbers
"""

import json
import random
import sys

from flyteidl.admin import matchable_resource_pb2
from google.protobuf import json_format, unknown_fields
from google.protobuf.descriptor import FieldDescriptor as Field

ATTRIBUTES = matchable_resource_pb2.MatchingAttributes


def answer(message):
    return {
        "bytes": message.SerializeToString(deterministic=True).hex(),
        "json": json_format.MessageToDict(message, preserving_proto_field_name=True),
    }


def count_unknown(message):
    """Unknown fields of the message and of all in it."""
    count = len(unknown_fields.UnknownFieldSet(message))
    for field, value in message.ListFields():
        if field.type != Field.TYPE_MESSAGE:
            continue
        if is_map(field):
            values = value.values() if is_message(field.message_type.fields_by_name["value"]) else []
        else:
            values = value if field.is_repeated else [value]
        count += sum(count_unknown(inner) for inner in values)
    return count


def is_message(field):
    return field.type == Field.TYPE_MESSAGE


def is_map(field):
    return is_message(field) and field.message_type.GetOptions().map_entry


def read():
    for line in list(sys.stdin):
        message = ATTRIBUTES.FromString(bytes.fromhex(json.loads(line)))
        yield {**answer(message), "unknown_fields": count_unknown(message)}


def write():
    rng = random.Random(7)
    targets = ATTRIBUTES.DESCRIPTOR.oneofs_by_name["target"].fields
    for target in targets:
        for _ in range(50):
            message = ATTRIBUTES()
            inner = getattr(message, target.name)
            inner.SetInParent()
            fill(rng, inner)
            normalize(message)
            yield answer(message)


def fill(rng, message):
    """Sets fields at random, whatever fields the message has."""
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Duration":
        message.seconds, message.nanos = rng.choice([0, 1, 300, 315576000000]), rng.choice([0, 1, 500000000])
        return
    if name == "google.protobuf.Struct":
        values = [None, True, 7, -0.5, "ä", [1, []], {"b": 1, "a": {}}]
        message.update({key: rng.choice(values) for key in keys(rng)})
        return
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.4 or (field.containing_oneof and message.WhichOneof(field.containing_oneof.name)):
            continue
        if is_map(field):
            for key in keys(rng):
                getattr(message, field.name)[key] = text(rng)
        elif field.is_repeated:
            for _ in range(rng.randrange(3)):
                if is_message(field):
                    fill(rng, getattr(message, field.name).add())
                else:
                    getattr(message, field.name).append(text(rng))
        elif is_message(field):
            getattr(message, field.name).SetInParent()
            fill(rng, getattr(message, field.name))
        else:
            setattr(message, field.name, scalar(rng, field))


def scalar(rng, field):
    if field.type == Field.TYPE_STRING:
        return text(rng)
    if field.type == Field.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == Field.TYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if field.type == Field.TYPE_INT32:
        return rng.choice([0, 1, 40, -1, 2**31 - 1])
    raise TypeError(f"{field.full_name} has a type that is not known here")


def text(rng):
    return rng.choice(["", "a", "b", "ab", "é/\n", "projectQuotaCpu", "s3://x"])


def keys(rng):
    """Keys of a map. None begins with another: Python writes those in an order of its own, Go and this library by bytes."""
    return rng.choice([[], [""], rng.sample(["a", "ba", "é", "é/\n"[1:], "projectQuotaCpu", "s3://x"], 3)])


def normalize(message):
    """Takes away what Flyte does not tell from nothing: empty messages where only their contents count."""
    task = message.task_resource_attributes if message.HasField("task_resource_attributes") else None
    config = message.workflow_execution_config if message.HasField("workflow_execution_config") else None
    quality = message.quality_of_service if message.HasField("quality_of_service") else None
    if task is not None:
        clear_if_empty(task, "defaults", "limits")
    if config is not None:
        clear_if_empty(config, "raw_output_data_config", "labels", "annotations", "envs")
    if quality is not None and quality.WhichOneof("designation") is None:
        quality.tier = 0


def clear_if_empty(message, *names):
    for name in names:
        if message.HasField(name) and getattr(message, name).ByteSize() == 0:
            message.ClearField(name)


def names():
    return ([name, number] for name, number in matchable_resource_pb2.MatchableResource.items())


for line in {"read": read, "write": write, "names": names}[sys.argv[1]]():
    print(json.dumps(line))
