"""A native server for one target: ModelInfer and ModelStreamInfer on small models, and an echo served by Python."""

import contextlib
import time
from pathlib import Path

from fuzz.finding import Finding
from kernels.engine import Engine
from kernels.grpc_metadata import MetadataError, check_metadata
from kernels.limits import Limits
from kernels.server_call import Call, CallInfo
from kernels.session import Session
from kernels.transport import CALL, CLOSED, HALF_CLOSE, MESSAGE, Transport
from tests import onnx_models

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
VERSION_HEADER = "sluice-model-version"
REQUEST_ID_HEADER = "x-request-id"
# Until all that a connection has held must be given back.
SETTLE_S = 10.0

# More than a socket takes at once.
POURED_BYTES = 300_000
NO_CODE, DEFLATE, GZIP = range(3)
OK, UNKNOWN, UNIMPLEMENTED = 0, 2, 12


class EchoServer:
    """A server on a Unix socket, whose events are answered by whoever runs a target, in that one's thread.

    Parameters
    ----------
    path
        Of the socket, which is made.
    engine
        That of open_engine; it outlives the server.

    Attributes
    ----------
    path : str
        Of the socket.
    opened : list of CallInfo
    received : list of bytes
        The calls and messages that Python was told of since `settle`.
    """

    def __init__(self, path: Path, engine: Engine, limits: Limits):
        self.path = str(path)
        self.opened: list[CallInfo] = []
        self.received: list[bytes] = []
        self._paths: dict[Call, str] = {}
        self._transport = Transport(limits, io_threads=1)
        for method, streaming in ((INFER, False), (STREAM_INFER, True)):
            self._transport.bind(
                method,
                engine,
                version_header=VERSION_HEADER,
                request_id_header=REQUEST_ID_HEADER,
                streaming=streaming,
            )
        self._transport.listen(f"unix:{self.path}")
        self._transport.start()

    def drain(self) -> None:
        """Take no more connections, and have those that are there end."""
        self._transport.drain()

    def close(self) -> None:
        """Stop, whatever is open."""
        self._transport.close()

    def answer_events(self) -> bool:
        """Answer what has happened so far; False when nothing had."""
        events = self._transport.wait_events(0)
        for kind, call, payload in events:
            if kind == CALL:
                self._open(call, payload)
            elif call is not None and call not in self._paths:
                raise Finding("a call was told of after its end, or before its beginning")
            elif kind == MESSAGE:
                self._take_message(call, payload)
            elif kind == HALF_CLOSE:
                self._finish(call)
            elif kind == CLOSED:
                del self._paths[call]
        return bool(events)

    def _open(self, call: Call, info: CallInfo) -> None:
        self._paths[call] = info.method
        self.opened.append(info)
        call.request_message()
        if info.method == "/echo/Many":
            call.send_initial_metadata(sendable(info.metadata), GZIP)
        elif info.method == "/echo/Pour":
            call.send_message(bytes(POURED_BYTES))
        elif info.method == "/echo/Refuse":
            call.send_status(UNKNOWN, "refused: ä%\n", sendable(info.metadata))
        elif not info.method.startswith("/echo/"):
            call.send_status(UNIMPLEMENTED, "Method not found!")

    def _take_message(self, call: Call, message: bytes) -> None:
        self.received.append(message)
        path = self._paths[call]
        if path == "/echo/Cancel":
            call.cancel()
        elif path == "/echo/Many":
            for _ in range(3):
                call.send_message(message, GZIP)
        elif path == "/echo/Deflate":
            call.send_message(message, DEFLATE)
        else:
            call.send_message(message)
        call.request_message()

    def _finish(self, call: Call) -> None:
        call.send_status(OK, "", (("echo-bin", b"\0\1"), ("echo", "done")))

    def settle(self) -> None:
        """Wait until the last connection is gone with all that it held; Finding when it does not go."""
        until = time.monotonic() + SETTLE_S
        while self.answer_events() or self._paths or any(self._transport.statistics().values()):
            time.sleep(0.00005)
            if time.monotonic() > until:
                raise Finding(f"not given back: {self._transport.statistics()}, {len(self._paths)} calls of Python's")
        self.opened.clear()
        self.received.clear()


def sendable(metadata: tuple[tuple[str, str | bytes], ...]) -> tuple[tuple[str, str | bytes], ...]:
    """Those of a client's fields that a servicer might send back."""
    chosen = []
    for pair in metadata[:32]:
        with contextlib.suppress(MetadataError):
            chosen += check_metadata([pair])
    return tuple(chosen)


def open_engine(folder: Path, *, inline: str) -> Engine:
    """An engine with a small model of each kind of trouble: batched, of strings, of two inputs, failing, large replies.

    None fails inside ONNX Runtime (1.32), which keeps some KB of each such run until there are thousands.
    """
    engine = Engine(workers=2, inline=inline, max_queue_requests=64, max_pending_bytes=1 << 20)
    models = {
        ("tiny", 1): (onnx_models.tiny(), 8),
        ("tiny", 2): (onnx_models.tiny(seed=8), 8),
        ("text", 1): (onnx_models.identity(onnx_models.ELEMENT_TYPES["BYTES"], ("batch", 2)), 4),
        ("sums", 1): (onnx_models.column_sums(), 0),
        ("pair", 1): (onnx_models.add_and_subtract(), 4),
        ("whole", 1): (onnx_models.identity(onnx_models.ELEMENT_TYPES["INT64"], ("batch", 1)), 4),
        ("halve", 1): (onnx_models.halver(), 4),
        ("wide", 1): (onnx_models.widener(), 8),
    }
    for (name, version), (model, max_batch_size) in models.items():
        session = Session(onnx_models.save(model, folder, name, version), intra_op_threads=1)
        engine.load(name, version, session, max_batch_size=max_batch_size)
    engine.set_unavailable("gone", 1, "it is gone")
    return engine
