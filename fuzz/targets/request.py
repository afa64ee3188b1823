"""ModelInferRequests: the codec against protobuf, and the engine against both."""

import math
import tempfile
from pathlib import Path

from google.protobuf.message import DecodeError as ProtobufDecodeError

from fuzz.echo_server import open_engine
from fuzz.finding import Finding
from kernels import messages, reference, status
from kernels.engine import InferError
from service.pb.open_inference_pb2 import ModelInferRequest, ModelInferResponse

NOT_A_NUMBER = object()
LIMIT_TEXT = f"more than {messages.ENTRIES_LIMIT} entries"


class RequestTarget:
    """Decodes an input and has it inferred; what protobuf refuses is refused, all else reads as protobuf reads it."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self._engine = open_engine(Path(self._folder.name), inline="never")

    def run(self, data: bytes) -> None:
        """Run one input."""
        expected = read_as_protobuf(data)
        try:
            read = comparable(messages.decode_request(data))
        except messages.DecodeError as error:
            read = None
            if LIMIT_TEXT in str(error):
                expected = None  # protobuf has no such limit
        if read != expected:
            raise Finding("the codec and protobuf read the message differently")
        try:
            reply = self._engine.infer(data)
        except InferError as error:
            if expected is None and error.code != status.INVALID:
                raise Finding(f"what is no request was refused with {error.code}: {error.message}") from None
            return
        if expected is None:
            raise Finding("what is no request was answered")
        check_reply(reply, expected)

    def close(self) -> None:
        """Stop the engine."""
        self._engine.close()
        self._folder.cleanup()


def read_as_protobuf(data: bytes):
    """What protobuf makes of a message, comparable; None when it refuses it."""
    try:
        return comparable(reference.decode_request(data, ModelInferRequest))
    except messages.DecodeError:
        return None


def comparable(value):
    """The same value, with NaNs that equal each other."""
    if isinstance(value, float) and math.isnan(value):
        return NOT_A_NUMBER
    if isinstance(value, dict):
        return {key: comparable(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(comparable(entry) for entry in value)
    return value


def check_reply(reply: bytes, request: tuple) -> None:
    """Hold a reply against what was asked for."""
    try:
        response = ModelInferResponse.FromString(reply)
    except ProtobufDecodeError:
        raise Finding(f"the reply is no message: {reply.hex()}") from None
    if (response.model_name, response.id) != (request[0], request[2]):
        raise Finding("the reply names another model or another request")
    wanted = {output[0] for output in request[5]}
    if wanted and {output.name for output in response.outputs} != wanted:
        raise Finding("the reply has other outputs than were asked for")
    if len(response.outputs) != len(response.raw_output_contents):
        raise Finding("the reply has outputs without contents")
