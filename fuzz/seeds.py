"""The first inputs of each target: well-formed ones, of everything that the server knows."""

import gzip
import zlib

import numpy as np

from fuzz.frames import Frame, encode_fields, encode_frames, request_fields
from service.pb.open_inference_pb2 import ModelInferRequest
from tests.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    encode_message,
)
from tests.inference_messages import build_request

# Where the typed elements of each datatype lie; kernels.reference says the same, but needs kernels that are built.
CARRIERS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# Values that some datatypes of their carrier cannot hold.
LARGEST = {"int_contents": 2**31 - 1, "uint_contents": 2**32 - 1, "uint64_contents": 2**64 - 1}
INFER = b"/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = b"/inference.GRPCInferenceService/ModelStreamInfer"
ECHOES = (
    b"/echo/Echo",
    b"/echo/Many",
    b"/echo/Deflate",
    b"/echo/Pour",
    b"/echo/Refuse",
    b"/echo/Cancel",
    b"/unknown/Method",
)
PATHS = (INFER, INFER, STREAM_INFER, STREAM_INFER, *ECHOES)
FIELDS = (
    (b"grpc-timeout", b"1n"),
    (b"grpc-timeout", b"5S"),
    (b"grpc-encoding", b"gzip"),
    (b"grpc-encoding", b"deflate"),
    (b"grpc-accept-encoding", b"identity,deflate,gzip"),
    (b"sluice-model-version", b"2"),
    (b"x-request-id", b"request-17"),
    (b"x-text", b"text"),
    (b"x-bytes-bin", b"AAEC"),
    (b"content-length", b"5"),
)
WORDS = (
    *(word for field in FIELDS for word in field),
    *PATHS,
    b":method",
    b":path",
    b"POST",
    b"GET",
    b"content-type",
    b"application/grpc+proto",
    b"identity",
    b"grpc-",
    b"-bin",
    b"99999999H",
    b"tiny",
    b"text",
    b"pair",
    b"halve",
    b"wide",
    *(name.encode() for name in CARRIERS),
)


def make_requests() -> list[bytes]:
    """ModelInferRequests of every model, raw and typed, good and bad."""
    zeros = np.zeros((2, 16), np.float32)
    made = [
        build_request("tiny", {"input": zeros}, request_id="17", outputs=["output"]),
        build_request("tiny", {"input": zeros[:1]}, version="2"),
        build_request("tiny", {"input": zeros[:, :3]}),
        build_request("text", {"input": np.array([[b"one", b""], [b"three", b"\xff"]], dtype=object)}),
        build_request("sums", {"input": zeros}),
        build_request("pair", {"a": zeros[:, :3], "b": zeros[:, :3]}, outputs=["sum"]),
        build_request("pair", {"b": zeros[:, :3], "a": zeros[:, :3]}, outputs=["difference", "sum"]),
        build_request("whole", {"input": np.array([[3], [9]])}),
        build_request("halve", {"input": zeros[:, :4]}),
        build_request("wide", {"input": zeros[:, :1]}),
        build_request("gone", {"input": zeros}),
        build_request("none", {"input": zeros}, version="x"),
    ]
    return [request.SerializeToString() for request in [*made, *make_typed_requests()]]


def make_typed_requests() -> list[ModelInferRequest]:
    """Requests with typed contents and with parameters."""
    typed = ModelInferRequest(model_name="tiny", id="typed")
    typed.inputs.add(name="input", datatype="FP32", shape=[1, 16]).contents.fp32_contents.extend([0.5] * 16)
    every = [ModelInferRequest() for _ in CARRIERS]
    for request, (datatype, field) in zip(every, CARRIERS.items(), strict=True):
        contents = request.inputs.add(name="input", datatype=datatype, shape=[3]).contents
        getattr(contents, field).extend([b"a", b"", b"bc"] if datatype == "BYTES" else [0, 1, LARGEST.get(field, 1)])
    strings = ModelInferRequest(model_name="text")
    strings.inputs.add(name="input", datatype="BYTES", shape=[1, 2]).contents.bytes_contents.extend([b"a", b"bc"])
    full = ModelInferRequest(model_name="whole", model_version="1", id="ä")
    full.parameters["priority"].uint64_param = 2**64 - 1
    full.parameters["timeout"].int64_param = 1000
    tensor = full.inputs.add(name="input", datatype="INT64", shape=[1, 1])
    tensor.contents.int64_contents.append(1)
    tensor.parameters["scale"].double_param = 0.5
    full.outputs.add(name="output").parameters["flag"].bool_param = True
    full.outputs.add(name="output").parameters["text"].string_param = "x"
    return [typed, strings, full, *every]


def make_fields() -> list[bytes]:
    """Lines of header fields."""
    singles = [name + b":" + value for name, value in FIELDS]
    bad = [b"grpc-timeout:1", b"grpc-timeout:123456789S", b"grpc-encoding:br", b"X-Upper:1", b"x: padded "]
    return [*singles, *bad, b"\n".join(singles), b"\n".join([b"x:1"] * 40), b"long:" + b"v" * 5000, b"p-bin:AA,!,AA=="]


def make_zipped() -> list[bytes]:
    """Compressed messages, the first byte for the encoding."""
    plains = [b"", b"hello", bytes(32768), bytes(32769), bytes(range(256)) * 20]
    made = [b"\0" + zlib.compress(plain) for plain in plains] + [b"\1" + gzip.compress(plain) for plain in plains]
    stored = b"\0" + zlib.compress(b"stored" * 10, 0)
    named = b"\1\x1f\x8b\x08\x1e\0\0\0\0\0\3\2\0ABname\0comment\0\0\0" + zlib.compress(b"x")[2:-4]
    return [*made, stored, named, made[1] + b"behind", made[6][:-3], b"", b"\0", b"\1"]


def make_connections() -> list[bytes]:
    """Conversations, the first byte for how they are sent."""
    requests = make_requests()
    calls = [make_call(path, [message]) for path in (INFER, *ECHOES) for message in requests[:2]]
    calls += [make_call(INFER, [request]) for request in requests[2:]]
    calls += [
        make_call(STREAM_INFER, requests),
        make_call(STREAM_INFER, requests[:1] * 70),
        make_call(STREAM_INFER, []),
    ]
    calls += [make_call(path, requests[:3]) for path in ECHOES]
    calls += [make_call(INFER, [requests[0]], field) for field in FIELDS]
    calls += [make_call(b"/echo/Many", [requests[0]], FIELDS[4]), make_call(INFER, [bytes(3000)])]
    calls += [make_zipped_call(INFER, requests[0]), make_zipped_call(STREAM_INFER, requests[0])]
    calls += [with_control(make_call(INFER, [requests[0]])), with_small_windows(make_call(STREAM_INFER, requests[:4]))]
    wide = build_request("wide", {"input": np.ones((5, 1), np.float32)}).SerializeToString()
    large = [make_call(path, [wide] * count) for path, count in ((INFER, 1), (STREAM_INFER, 2), (b"/echo/Pour", 2))]
    sent = [(0, calls), (4, calls[::3]), (64, calls[::8])]
    sent += [(plan, map(with_large_windows, large)) for plan in (0, 1, 16, 48, 64)]
    return [bytes([plan]) + encode_frames([Frame(SETTINGS), *call]) for plan, some in sent for call in some]


def make_call(path: bytes, messages: list[bytes], *fields: tuple[bytes, bytes], stream: int = 1) -> list[Frame]:
    """A call that sends messages, each in a frame, and finishes."""
    block = encode_fields(request_fields(path, *fields))
    if not messages:
        return [Frame(HEADERS, END_HEADERS | END_STREAM, stream, block)]
    sent = [Frame(DATA, 0, stream, encode_message(message)) for message in messages]
    return [Frame(HEADERS, END_HEADERS, stream, block), *sent[:-1], Frame(DATA, END_STREAM, stream, sent[-1].payload)]


def make_zipped_call(path: bytes, message: bytes) -> list[Frame]:
    """A call that sends a compressed message."""
    call = make_call(path, [message], (b"grpc-encoding", b"gzip"))
    return [call[0], call[1].with_payload(encode_message(gzip.compress(message, mtime=0), is_compressed=True))]


def with_control(call: list[Frame]) -> list[Frame]:
    """The same with frames around it that are not about calls."""
    window = Frame(WINDOW_UPDATE, 0, 0, b"\0\1\0\0")
    return [
        window,
        Frame(PING, 0, 0, bytes(8)),
        *call,
        Frame(RST_STREAM, 0, 1, bytes(4)),
        Frame(GOAWAY, 0, 0, bytes(8)),
    ]


def with_small_windows(call: list[Frame]) -> list[Frame]:
    """The same by a client that takes ten bytes of each answer, then more."""
    small, more = Frame(SETTINGS, 0, 0, b"\0\4\0\0\0\x0a"), Frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x20")
    return [small, *call, more, more]


def with_large_windows(call: list[Frame]) -> list[Frame]:
    """The same by a client that has room for everything."""
    most = b"\x7f\xff\xff\xff"
    windows = [Frame(SETTINGS, 0, 0, b"\0\4" + most), Frame(WINDOW_UPDATE, 0, 0, b"\x7f\xfe\0\0")]
    return [*windows, *call]
