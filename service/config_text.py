"""A ModelConfig as people write it, as text or as JSON: parsed, and the fields that it sets, by name."""

import functools
from collections.abc import Iterator

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format
from google.protobuf.message import Message

from service.pb.model_config_pb2 import DESCRIPTOR

FILE_NAME = "config.pbtxt"
MAX_FILE_BYTES = 1024 * 1024


class ModelConfigError(ValueError):
    """A configuration that cannot be used; the text names the field and what was expected and given."""


def parse_text(text: str) -> Message:
    """A ModelConfig of text format, whose max_batch_size knows whether it was written; "" gives an empty one.

    Raises
    ------
    ModelConfigError
        The text is not a ModelConfig; the error has line and column.
    """
    try:
        return text_format.Parse(text, _presence_class()())
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        detail = str(error).removeprefix(f"{line}:{column} : ")
        raise ModelConfigError(f"{FILE_NAME}:{line}:{column}: {detail}") from None


def parse_json(text: str) -> Message:
    """As parse_text, of protobuf's JSON, with the fields' names as in the .proto or in camelCase."""
    if len(text) > MAX_FILE_BYTES:
        raise ModelConfigError(f"config: expected at most {MAX_FILE_BYTES} characters, given {len(text)}")
    # json_format takes an empty list for an empty message.
    if not text.lstrip().startswith("{"):
        raise ModelConfigError("config: expected a JSON object")
    try:
        return json_format.Parse(text, _presence_class()())
    except (json_format.ParseError, RecursionError) as error:
        detail = str(error).partition("\n")[0]
        raise ModelConfigError(f"config: is not the JSON of a ModelConfig: {detail}") from None


@functools.cache
def _presence_class() -> type[Message]:
    """ModelConfig again, with a max_batch_size that knows whether it was written: 0 is a choice, silence is none."""
    file = descriptor_pb2.FileDescriptorProto()
    DESCRIPTOR.CopyToProto(file)
    config = next(message for message in file.message_type if message.name == "ModelConfig")
    field = next(field for field in config.field if field.name == "max_batch_size")
    field.proto3_optional = True
    field.oneof_index = len(config.oneof_decl)
    config.oneof_decl.add(name="_max_batch_size")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(DESCRIPTOR.package + ".ModelConfig"))


def list_set_fields(message: Message, prefix: str = "") -> Iterator[str]:
    """Full names of the fields that are set, each message before its own fields; maps count as one field."""
    for field, value in message.ListFields():
        name = prefix + field.name
        yield name
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for item in value if field.is_repeated else [value]:
            yield from list_set_fields(item, name + ".")
