"""The contract: the same names and numbers as tritonclient's, a comment on everything, generated code up to date."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from service import protogen

ROOT = Path(__file__).resolve().parent.parent

# Both packages define `inference`, so each is described in a process of its own.
DESCRIBE = """
import importlib, json, sys
from google.protobuf import descriptor_pb2

def describe_messages(prefix, messages):
    for message in messages:
        name = prefix + message.name
        lines.append(f"message {name} map={message.options.map_entry}")
        oneofs = [oneof.name for oneof in message.oneof_decl]
        for field in message.field:
            oneof = oneofs[field.oneof_index] if field.HasField("oneof_index") else ""
            lines.append(f"field {name}.{field.name} number={field.number} type={field.type} label={field.label} "
                         f"of={field.type_name} oneof={oneof} packed={field.options.packed}")
        describe_messages(name + ".", message.nested_type)
        describe_enums(name + ".", message.enum_type)

def describe_enums(prefix, enums):
    for enum in enums:
        lines.extend(f"value {prefix}{enum.name}.{value.name} number={value.number}" for value in enum.value)

lines = []
for module in sys.argv[1:]:
    file = descriptor_pb2.FileDescriptorProto()
    importlib.import_module(module).DESCRIPTOR.CopyToProto(file)
    lines.append(f"package {file.package} {file.syntax}")
    describe_messages("", file.message_type)
    describe_enums("", file.enum_type)
    for service in file.service:
        lines.extend(f"rpc {service.name}.{rpc.name} {rpc.client_streaming} {rpc.input_type} {rpc.server_streaming} "
                     f"{rpc.output_type}" for rpc in service.method)
print(json.dumps(sorted(lines)))
"""


def describe(*modules):
    """Every message, field, enum value and rpc of generated modules, one line each."""
    command = [sys.executable, "-c", DESCRIBE, *modules]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


def test_contract_beside_tritonclient_has_the_same_names_and_numbers():
    """Every message, field, enum value and rpc is tritonclient's, none is missing and none is added."""
    ours = describe("service.pb.open_inference_pb2", "service.pb.model_config_pb2")
    theirs = describe("tritonclient.grpc.service_pb2", "tritonclient.grpc.model_config_pb2")
    assert len(theirs) > 500
    assert ours == theirs


def test_tritonclient_tested_against_is_recent():
    """Pip falls back to a client of years ago when versions conflict; then the comparison would prove nothing."""
    assert tuple(int(part) for part in version("tritonclient").split(".")[:2]) >= (2, 70)


def compile_with_comments(path, tmp_path):
    """The descriptor of a .proto file with its source information."""
    from grpc_tools import protoc

    target = tmp_path / "descriptor.bin"
    arguments = ["protoc", f"-I{protogen.PROTO}", "--include_source_info", f"--descriptor_set_out={target}", path.name]
    assert protoc.main(arguments) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[0]


def list_elements(message, path, prefix):
    """(path, name) of a message and of everything inside it that a reader sees."""
    yield path, prefix
    for index, field in enumerate(message.field):
        yield (*path, 2, index), f"{prefix}.{field.name}"
    for index, oneof in enumerate(message.oneof_decl):
        yield (*path, 8, index), f"{prefix}.{oneof.name}"
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from list_elements(nested, (*path, 3, index), f"{prefix}.{nested.name}")
    for index, enum in enumerate(message.enum_type):
        yield from list_values(enum, (*path, 4, index), f"{prefix}.{enum.name}")


def list_values(enum, path, name):
    """(path, name) of an enum and of its values."""
    yield path, name
    for index, value in enumerate(enum.value):
        yield (*path, 2, index), f"{name}.{value.name}"


def list_file_elements(file):
    """(path, name) of everything that a file defines."""
    for index, message in enumerate(file.message_type):
        yield from list_elements(message, (4, index), message.name)
    for index, enum in enumerate(file.enum_type):
        yield from list_values(enum, (5, index), enum.name)
    for index, service in enumerate(file.service):
        yield (6, index), service.name
        for number, rpc in enumerate(service.method):
            yield (6, index, 2, number), f"{service.name}.{rpc.name}"


@pytest.mark.parametrize("path", sorted(protogen.PROTO.glob("*.proto")), ids=lambda path: path.name)
def test_every_element_of_the_contract_has_a_comment(path, tmp_path):
    """A reader of the contract finds meaning, unit, range and status beside each name."""
    file = compile_with_comments(path, tmp_path)
    commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}
    elements = list(list_file_elements(file))
    assert len(elements) > 50
    assert [name for place, name in elements if place not in commented] == []


def test_generated_code_is_what_the_contract_gives():
    """Nobody edits service/pb, and nobody forgets to regenerate it."""
    with pytest.raises(SystemExit) as caught:
        protogen.main(["--check"])
    assert caught.value.code == 0


def test_generating_replaces_what_is_there(tmp_path, monkeypatch, capsys):
    """What the contract no longer gives goes away; before that, the check fails and shows it."""
    monkeypatch.setattr(protogen, "GENERATED", tmp_path)
    (tmp_path / "old_pb2.py").write_text("gone\n")
    with pytest.raises(SystemExit, match="run `python"):
        protogen.main(["--check"])
    assert "-gone\n" in capsys.readouterr().out
    protogen.main([])
    assert not (tmp_path / "old_pb2.py").exists()
    assert (tmp_path / "open_inference_pb2_grpc.py").exists()


def test_generated_code_that_was_edited_is_reported(tmp_path):
    """The check shows the file and the line that differ."""
    fresh, edited = tmp_path / "fresh", tmp_path / "edited"
    for folder in (fresh, edited):
        folder.mkdir()
        (folder / "a_pb2.py").write_text("one\n")
    (edited / "b_pb2.py").write_text("two\n")
    expected = ["--- committed/b_pb2.py\n", "+++ generated/b_pb2.py\n", "@@ -1 +0,0 @@\n", "-two\n"]
    assert protogen.find_drift(fresh, edited) == expected
