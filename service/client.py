"""A small client over the generated stubs: mTLS channels, NumPy arrays in and out, errors that tell what failed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from certs.identities import GATEWAY_CA
from service.pb import open_inference_pb2 as messages
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.tensors import TensorError, decode_array, encode_array, find_datatype

DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
DEFAULT_TIMEOUT_S = 30.0
# What gRPC's own words for a connection that never came about begin with; the rest of them repeats the address.
_NO_CONNECTION = re.compile(r"failed to connect to all addresses; last error: (?:\w+: )?(?:ipv[46]:\S+ )?")


class ClientError(Exception):
    """A call that failed.

    Attributes
    ----------
    code
        The status of the call; None when there was no call, such as for a certificate that cannot be read.
    """

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Credentials:
    """PEM files by which a client knows the server and shows who it is itself.

    Attributes
    ----------
    authority
        Who vouches for the server.
    certificate, key
        The client's own; both or neither.
    """

    authority: Path
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def of_state(cls, state_folder: Path, name: str = "client") -> "Credentials":
        """The demo client's, or another identity's, in a deployment's own state folder."""
        folder = state_folder / "certs"
        return cls(folder / f"{GATEWAY_CA}.pem", folder / f"{name}.pem", folder / f"{name}.key")

    def load(self) -> grpc.ChannelCredentials:
        """Read the files; ClientError names the one that cannot be read."""
        if (self.certificate is None) != (self.key is None):
            raise ClientError("client certificate: expected a certificate and its key, given one of them")
        authority, certificate, key = map(_read_pem, (self.authority, self.certificate, self.key))
        return grpc.ssl_channel_credentials(authority, key, certificate)


@dataclass(frozen=True)
class Inference:
    """The answer to one request: who gave it, and its outputs by name in the answer's order."""

    model: str
    version: str
    request_id: str
    outputs: dict[str, np.ndarray]
    datatypes: dict[str, str]


def open_channel(
    target: str, credentials: Credentials | None = None, *, max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
) -> grpc.Channel:
    """A channel with a connection of its own; plain text without credentials."""
    options = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Channels to one address would otherwise share one connection, and so one thread of the gateway.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials.load(), options)


def build_request(
    model: str,
    inputs: Mapping[str, np.ndarray],
    *,
    version: str = "",
    request_id: str = "",
    datatypes: Mapping[str, str] | None = None,
    outputs: Sequence[str] = (),
) -> messages.ModelInferRequest:
    """A request with raw contents.

    Parameters
    ----------
    datatypes
        Wire names by input, for those that the array's dtype does not tell: BF16 from float32.
    outputs
        Names of those wanted; none stands for all.

    Raises
    ------
    TensorError
        An array that no tensor can carry.
    """
    request = messages.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name, array in inputs.items():
        datatype = (datatypes or {}).get(name) or find_datatype(array)
        request.raw_input_contents.append(encode_array(array, datatype))
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def read_response(response: messages.ModelInferResponse) -> Inference:
    """The arrays of a response with raw contents; TensorError when they are not what it says they are."""
    if len(response.raw_output_contents) != len(response.outputs):
        raise TensorError(
            f"response: expected raw contents for {len(response.outputs)} outputs, "
            f"given for {len(response.raw_output_contents)}"
        )
    pairs = list(zip(response.outputs, response.raw_output_contents, strict=True))
    arrays = {output.name: decode_array(content, output.datatype, output.shape) for output, content in pairs}
    datatypes = {output.name: output.datatype for output, _ in pairs}
    return Inference(response.model_name, response.model_version, response.id, arrays, datatypes)


class Client:
    """Calls one server, directly or through the gateway; close it, or use it as a context.

    Parameters
    ----------
    target
        Host and port.
    credentials
        None speaks plain text.
    timeout_s
        Deadline of each call, in seconds.
    """

    def __init__(
        self, target: str, credentials: Credentials | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._channel = open_channel(target, credentials)
        self._stub = GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def infer(self, model: str, inputs: Mapping[str, np.ndarray], **options: Any) -> Inference:
        """Run a model; the options are those of `build_request`. Raises ClientError and TensorError."""
        return read_response(self._call(self._stub.ModelInfer, build_request(model, inputs, **options)))

    def describe_model(self, model: str, version: str = "") -> messages.ModelMetadataResponse:
        """What a model takes and gives, of one version or of the highest that serves. Raises ClientError."""
        return self._call(self._stub.ModelMetadata, messages.ModelMetadataRequest(name=model, version=version))

    def list_models(self) -> list[messages.RepositoryIndexResponse.ModelIndex]:
        """Every version in the repository with its state. Raises ClientError."""
        return list(self._call(self._stub.RepositoryIndex, messages.RepositoryIndexRequest()).models)

    def _call(self, method: grpc.UnaryUnaryMultiCallable, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise ClientError(f"{self._target}: {explain(error)}", error.code()) from None


def explain(error: grpc.RpcError) -> str:
    """The status and text of a failed call; gRPC's wordy way of saying that nobody answered is made short."""
    text, found = _NO_CONNECTION.subn("no connection: ", error.details() or "")
    return text if found else f"{error.code().name}: {text}"


def _read_pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from None
