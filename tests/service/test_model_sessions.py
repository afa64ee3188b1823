"""service.model_sessions: sessions are opened where the configuration wants them, or the model is refused."""

import numpy as np
import pytest
from lifecycle_rig import infer
from servicers import serve_folder

from kernels.engine import Engine
from kernels.providers import available_providers
from kernels.session import DeviceError
from service.config_text import ModelConfigError
from service.model_config import read_config
from service.model_sessions import list_usable_gpus, open_sessions
from service.pb.model_config_pb2 import ModelInstanceGroup
from service.repository import State
from tests.onnx_models import identity, save

HAS_CUDA = "CUDAExecutionProvider" in available_providers()
needs_no_cuda = pytest.mark.skipif(HAS_CUDA, reason="the installed ONNX Runtime has the CUDA provider")
SETS = 'parameters { key: "buffer_sets" value { string_value: "3" } }'
FALL_BACK = 'parameters { key: "fall_back_to_cpu" value { string_value: "true" } }'


def open_with(folder, text, gpus=()):
    """The sessions of a model with that configuration."""
    path = save(identity(), folder, "same", config=text)
    return open_sessions(path, read_config(path.parent.parent / "config.pbtxt", "same"), gpus)


def devices_of(opened):
    """Where they are."""
    return [session.device for session in opened.sessions]


def test_instances_on_the_cpu_share_a_session(tmp_path):
    """Its runs may overlap, and the weights are there once."""
    opened = open_with(tmp_path, "instance_group { count: 4 }")
    assert (devices_of(opened), opened.instance_count, opened.buffer_sets, opened.gpus) == (["cpu"], 4, 0, [])


def test_instances_with_lanes_have_sessions_of_their_own(tmp_path):
    """Each is run by one thread."""
    opened = open_with(tmp_path, "instance_group { count: 2 }" + SETS)
    assert (devices_of(opened), opened.instance_count, opened.buffer_sets) == (["cpu", "cpu"], 1, 3)


@needs_no_cuda
@pytest.mark.parametrize("text", ["instance_group { kind: KIND_GPU gpus: [0] }", ""])
def test_gpu_that_cannot_be_used_is_a_reason_to_refuse(tmp_path, text):
    """Whether it was asked for or chosen; the CPU would be slower than anybody expects."""
    with pytest.raises(DeviceError, match=r"cuda:0: .*CUDA execution provider is not enabled in this build"):
        open_with(tmp_path, text, gpus=[0])


@needs_no_cuda
def test_cpu_stands_in_where_it_may(tmp_path):
    """In the same way as the GPU would have been run."""
    opened = open_with(tmp_path, "instance_group { kind: KIND_GPU gpus: [0, 1] }" + FALL_BACK)
    assert (devices_of(opened), opened.buffer_sets, opened.gpus) == (["cpu", "cpu"], 2, [])


def test_group_of_gpus_without_any_is_refused(tmp_path):
    """Before the model is read."""
    with pytest.raises(ModelConfigError, match="there is no GPU that ONNX Runtime can use"):
        open_with(tmp_path, "instance_group { kind: KIND_GPU }")


@needs_no_cuda
def test_library_without_provider_has_no_usable_gpu():
    """Whatever the machine has."""
    assert list_usable_gpus() == []


@pytest.mark.parametrize("text", [SETS, "instance_group { count: 2 }" + SETS, FALL_BACK, SETS + FALL_BACK])
def test_repository_serves_by_lanes(tmp_path, text):
    """The configuration that clients are told says where it ran."""
    save(identity(), tmp_path, "same", config=text)
    engine = Engine(workers=2)
    _, repository = serve_folder(tmp_path, engine)
    entry = repository.find("same")
    assert (entry.state, entry.reason) == (State.READY, "")
    assert [group.kind for group in entry.config.proto.instance_group] == [ModelInstanceGroup.KIND_CPU]
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(infer(engine, "same", rows), rows.reshape(-1))
    engine.close()


@needs_no_cuda
def test_repository_tells_why_a_gpu_cannot_be_used(tmp_path):
    """Clients and operators read the same reason."""
    save(identity(), tmp_path, "same", config="instance_group { kind: KIND_GPU gpus: [0] }")
    engine = Engine(workers=2)
    _, repository = serve_folder(tmp_path, engine)
    entry = repository.find("same")
    assert entry.state is State.UNAVAILABLE
    assert "CUDA execution provider is not enabled in this build" in entry.reason
    engine.close()
