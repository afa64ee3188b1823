"""What the tests of the lifecycle do: requests on an engine, and files that need not be models."""

import numpy as np

from service.pb import open_inference_pb2 as pb
from tests.onnx_models import identity, save


def infer(engine, name, values, version=""):
    """Run a model with an input `input` on the engine."""
    request = pb.ModelInferRequest(model_name=name, model_version=version)
    request.inputs.add(name="input", datatype="FP32", shape=values.shape)
    request.raw_input_contents.append(values.tobytes())
    response = pb.ModelInferResponse.FromString(engine.infer(request.SerializeToString()))
    return np.frombuffer(response.raw_output_contents[0], np.float32)


def save_bytes(repository, name, content):
    """Put a file that need not be a model where a model belongs."""
    path = save(identity(), repository, name)
    path.write_bytes(content)
