"""Sends a tensor of so many bytes with NVIDIA's client and prints whether the same came back, or the status."""

import sys

import numpy as np
import tritonclient.grpc as triton


def main(address, size):
    """Ask the model `same`."""
    values = np.random.default_rng(3).integers(0, 2**31, size // 4, np.int32).view(np.float32)
    tensor = triton.InferInput("input", values.shape, "FP32")
    tensor.set_data_from_numpy(values)
    with triton.InferenceServerClient(address) as client:
        try:
            given = client.infer("same", [tensor]).as_numpy("output")
        except triton.InferenceServerException as error:
            print(error.status(), error.message(), sep="\n")
        else:
            print("the same" if given.tobytes() == values.tobytes() else "something else")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
