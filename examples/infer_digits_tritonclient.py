"""Classifies digits through the gateway with NVIDIA's tritonclient, as it is.

Run it beside `sluice demo`: python examples/infer_digits_tritonclient.py [SCANS.npy]
It needs tritonclient[grpc] 2.70 or later and NumPy, and nothing of sluice.
"""

import argparse
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput


def main() -> None:
    """Send the scans as one batch and print what the model makes of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scans", nargs="?", default=".sluice/samples/digit.npy", help="FP32 [n, 64], levels 0 to 16")
    parser.add_argument("--gateway", default="127.0.0.1:8443")
    parser.add_argument("--certificates", type=Path, default=Path(".sluice/certs"))
    arguments = parser.parse_args()
    scans = np.load(arguments.scans)
    images = InferInput("input", scans.shape, "FP32")
    images.set_data_from_numpy(scans)
    client = connect(arguments.gateway, arguments.certificates)
    answer = client.infer("digits", [images], outputs=[InferRequestedOutput("label")])
    for label in answer.as_numpy("label"):
        print(f"version {answer.get_response().model_version}: {label}")
    client.close()


def connect(gateway: str, folder: Path) -> InferenceServerClient:
    """A client that trusts the gateway's authority and shows the demo client's certificate."""
    authority, key, certificate = (str(folder / name) for name in ("gateway-ca.pem", "client.key", "client.pem"))
    return InferenceServerClient(
        gateway, ssl=True, root_certificates=authority, private_key=key, certificate_chain=certificate
    )


if __name__ == "__main__":
    main()
