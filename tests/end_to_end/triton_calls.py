"""What the checks with NVIDIA's client have in common."""

import numpy as np
import tritonclient.grpc as triton


def make_input(values, datatype, name="input"):
    """One input with raw contents."""
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def infer_adder(client, rows, version="1"):
    """One request of the model `adder`."""
    return client.infer("adder", [make_input(np.zeros((rows, 4), np.int64), "INT64")], model_version=version)


def read_statistics(client, name, version="1"):
    """The only entry for one version."""
    [entry] = client.get_inference_statistics(name, version).model_stats
    assert (entry.name, entry.version) == (name, version)
    return entry
