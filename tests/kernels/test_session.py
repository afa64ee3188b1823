"""kernels.session and kernels.runtime: what a model takes and gives, and what cannot be loaded."""

import re
import subprocess
import sys

import onnx_models
import pytest
from onnx import TensorProto
from sanitizers import skip_under_sanitizers
from ways import every_lane

from kernels.providers import available_providers, refusals_of_absent_providers
from kernels.runtime import RuntimeLibraryError, configure_runtime, runtime_version
from kernels.session import DeviceError, Session, SessionError, TensorSpec

HAS_CUDA = "CUDAExecutionProvider" in available_providers()


def test_session_of_tiny_names_types_and_shapes(tmp_path):
    """Names, datatypes, open dimensions and their symbols come from the model."""
    session = Session(onnx_models.save(onnx_models.tiny(), tmp_path))
    assert session.inputs == (TensorSpec("input", "FP32", (-1, 16), ("batch", "")),)
    assert session.outputs == (TensorSpec("output", "FP32", (-1, 4), ("batch", "")),)


def test_session_of_scalar_has_rank_0(tmp_path):
    """A scalar's shape is empty."""
    assert Session(onnx_models.save(onnx_models.scalar_doubler(), tmp_path)).inputs[0].shape == ()


@pytest.mark.parametrize(
    ("element_type", "datatype"),
    [
        (TensorProto.BOOL, "BOOL"),
        (TensorProto.INT8, "INT8"),
        (TensorProto.UINT64, "UINT64"),
        (TensorProto.FLOAT16, "FP16"),
        (TensorProto.BFLOAT16, "BF16"),
        (TensorProto.DOUBLE, "FP64"),
        (TensorProto.STRING, "BYTES"),
    ],
)
def test_session_names_every_datatype_of_the_wire(tmp_path, element_type, datatype):
    """ONNX element types come out under their wire names."""
    assert Session(onnx_models.save(onnx_models.identity(element_type), tmp_path)).inputs[0].datatype == datatype


def test_session_with_threads_of_its_own_loads(tmp_path):
    """A thread count makes a pool for the session, with every option's slot called."""
    path = onnx_models.save(onnx_models.tiny(), tmp_path)
    session = Session(path, intra_op_threads=2, inter_op_threads=2, optimization_level=1, arena=False)
    assert session.outputs[0].name == "output"


def test_session_of_missing_file_says_so(tmp_path):
    """The error names the file."""
    with pytest.raises(SessionError, match=r"absent\.onnx"):
        Session(tmp_path / "absent.onnx")


def test_session_of_broken_file_says_so(tmp_path):
    """Random bytes are no model."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\x00\x01 no protobuf")
    with pytest.raises(SessionError, match="ONNX Runtime"):
        Session(path)


def test_session_of_newer_opset_names_it(tmp_path):
    """The refusal names the opset, and nothing of ONNX Runtime's source."""
    with pytest.raises(SessionError, match="999") as refusal:
        Session(onnx_models.save(onnx_models.newer_opset(), tmp_path))
    assert "onnxruntime_src" not in str(refusal.value)


def test_session_of_sequence_is_refused_by_name(tmp_path):
    """What is no tensor cannot be carried by the protocol, and is refused at load."""
    path = onnx_models.save(onnx_models.sequence(), tmp_path)
    with pytest.raises(SessionError, match="output 'output' is a sequence, map or optional"):
        Session(path)


def test_session_on_unknown_device_is_refused(tmp_path):
    """Only what is there can be asked for."""
    path = onnx_models.save(onnx_models.tiny(), tmp_path)
    with pytest.raises(SessionError, match="expected 'cpu'"):
        Session(path, device="tpu")


@pytest.mark.parametrize("device", ["cuda", "cuda:", "cuda:x", "cpu:0", "CUDA:0", "cuda:0 "])
def test_session_on_malformed_device_is_refused(tmp_path, device):
    """A GPU is named by its number."""
    path = onnx_models.save(onnx_models.tiny(), tmp_path)
    with pytest.raises(SessionError, match="expected 'cpu' or 'cuda:' and a number"):
        Session(path, device=device)


@pytest.mark.skipif(HAS_CUDA, reason="the installed ONNX Runtime has the CUDA provider")
@pytest.mark.parametrize(("options", "provider"), [({}, "CUDA"), ({"tensorrt_options": {}}, "TensorRT")])
def test_session_on_gpu_without_provider_names_it(tmp_path, options, provider):
    """Nothing falls back to the CPU by itself; that another device could do is in the error's type."""
    path = onnx_models.save(onnx_models.tiny(), tmp_path)
    with pytest.raises(DeviceError, match=f"cuda:0: .*{provider} execution provider is not enabled in this build"):
        Session(path, device="cuda:0", cuda_options={"arena_extend_strategy": "kSameAsRequested"}, **options)


@pytest.mark.skipif(HAS_CUDA, reason="the installed ONNX Runtime has the CUDA provider")
def test_slots_of_absent_providers_answer_by_name():
    """Each speaks of its own provider, which is not there, or of an option that it alone has: the slots are right."""
    said = refusals_of_absent_providers()
    assert len(said) == 6
    for slot, text in said.items():
        provider = "TensorRT" if "TensorRT" in slot else "CUDA"
        if slot.startswith("SessionOptionsAppend"):
            assert re.search(f"{provider}|external_data_loader", text), slot
        else:
            assert text == f"{provider} execution provider is not enabled in this build."


def test_session_with_unknown_configuration_value_is_refused(tmp_path):
    """Entries of the session's configuration reach ONNX Runtime."""
    path = onnx_models.save(onnx_models.tiny(), tmp_path)
    Session(path, session_config={"session.use_env_allocators": "0"})
    with pytest.raises(SessionError, match="ONNX Runtime"):
        Session(path, session_config={"": "0"})


@skip_under_sanitizers("a sanitizer ends the process that asks for petabytes")
@every_lane
def test_model_that_does_not_fit_is_refused_with_the_sizes(load, way):
    """When it is loaded, and not when the first large batch comes."""
    with pytest.raises(
        DeviceError, match=f"a batch of {1 << 30} rows does not fit on {way.device}: .* {1 << 52} bytes"
    ):
        load(onnx_models.identity(shape=("batch", 1 << 20)), max_batch_size=1 << 30)


def test_runtime_configured_after_first_session_is_refused(tmp_path):
    """The process's thread pools cannot be changed once they exist."""
    Session(onnx_models.save(onnx_models.tiny(), tmp_path))
    with pytest.raises(RuntimeLibraryError, match="too late"):
        configure_runtime(intra_op_threads=7)


def test_runtime_version_is_that_of_the_installed_package():
    """The library that is opened is the one that pip installed."""
    import importlib.metadata

    assert runtime_version() == importlib.metadata.version("onnxruntime")


def test_session_does_not_import_onnxruntime(tmp_path):
    """A serving process holds the library and not the package."""
    path = onnx_models.save(onnx_models.tiny(), tmp_path)
    program = (
        "import sys; from kernels.session import Session; "
        f"Session({str(path)!r}); assert 'onnxruntime' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
