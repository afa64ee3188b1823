"""Classifies digits through the gateway with nothing but the generated stubs, mTLS and NumPy.

Run it beside `sluice demo`: python examples/infer_digits.py [SCANS.npy]
"""

import argparse
from pathlib import Path

import grpc
import numpy as np

from service.pb import open_inference_pb2 as messages
from service.pb import open_inference_pb2_grpc as stubs


def main() -> None:
    """Send the scans as one batch and print what the model makes of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scans", nargs="?", default=".sluice/samples/digit.npy", help="FP32 [n, 64], levels 0 to 16")
    parser.add_argument("--gateway", default="127.0.0.1:8443")
    parser.add_argument("--certificates", type=Path, default=Path(".sluice/certs"))
    arguments = parser.parse_args()
    with grpc.secure_channel(arguments.gateway, read_credentials(arguments.certificates)) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(build_request(np.load(arguments.scans)), timeout=10)
    labels, probabilities = read_outputs(answer)
    for label, row in zip(labels, probabilities, strict=True):
        print(f"version {answer.model_version}: {label}, probability {row[label]:.3f}")


def read_credentials(folder: Path) -> grpc.ChannelCredentials:
    """Whom to trust, and who we are."""
    authority, key, certificate = (
        (folder / name).read_bytes() for name in ("gateway-ca.pem", "client.key", "client.pem")
    )
    return grpc.ssl_channel_credentials(authority, key, certificate)


def build_request(scans: np.ndarray) -> messages.ModelInferRequest:
    """No version is named: the gateway draws one by its weights."""
    request = messages.ModelInferRequest(model_name="digits", id="an example")
    request.inputs.add(name="input", datatype="FP32", shape=scans.shape)
    request.raw_input_contents.append(np.ascontiguousarray(scans, "<f4").tobytes())
    return request


def read_outputs(answer: messages.ModelInferResponse) -> tuple[np.ndarray, np.ndarray]:
    """The arrays by the outputs' names."""
    dtypes = {"INT64": "<i8", "FP32": "<f4"}
    arrays = {
        output.name: np.frombuffer(content, dtypes[output.datatype]).reshape(output.shape)
        for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
    return arrays["label"], arrays["probabilities"]


if __name__ == "__main__":
    main()
