"""service.device_config: where instances run and with which options, as configurations of Triton's say it."""

import pytest

from service.config_text import ModelConfigError
from service.device_config import place_instances
from service.model_config import read_config

TENSORRT = """
optimization { execution_accelerators { gpu_execution_accelerator {
  name: "tensorrt"
  parameters { key: "precision_mode" value: "FP16" }
  parameters { key: "max_workspace_size_bytes" value: "1073741824" }
  parameters { key: "trt_engine_cache_enable" value: "1" }
} } }
"""


def read(folder, text):
    """What a configuration with that text says about devices."""
    path = folder / "config.pbtxt"
    path.write_text(text)
    return read_config(path, "digits").devices


def parameter(name, value):
    """A parameter of a model."""
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'


@pytest.mark.parametrize(
    ("text", "gpus", "devices"),
    [
        ("", [], ["cpu"]),
        ("", [0, 1], ["cuda:0", "cuda:1"]),
        ("instance_group { count: 3 }", [], ["cpu"] * 3),
        ("instance_group { kind: KIND_CPU count: 2 }", [0], ["cpu"] * 2),
        ("instance_group { kind: KIND_GPU }", [0, 1], ["cuda:0", "cuda:1"]),
        ("instance_group { kind: KIND_GPU gpus: [1] count: 2 }", [0, 1], ["cuda:1"] * 2),
        ("instance_group { gpus: [1, 0] }", [0, 1], ["cuda:1", "cuda:0"]),
        # Named GPUs are asked for even where none was found, so that the refusal says what is wrong with them.
        ("instance_group { kind: KIND_GPU gpus: [5] }", [], ["cuda:5"]),
        ("instance_group { kind: KIND_GPU gpus: [0] } instance_group { kind: KIND_CPU }", [0], ["cuda:0", "cpu"]),
        ("instance_group { kind: KIND_GPU }" + parameter("fall_back_to_cpu", "true"), [], ["cpu"]),
    ],
)
def test_instances_are_placed_as_groups_say(tmp_path, text, gpus, devices):
    """A group's count is for each of its GPUs, as in Triton; left out, the GPUs are all."""
    assert place_instances(read(tmp_path, text), gpus) == devices


def test_group_on_gpus_that_are_not_there_is_refused(tmp_path):
    """The way out, and what says more, are named."""
    config = read(tmp_path, "instance_group { kind: KIND_GPU }")
    with pytest.raises(
        ModelConfigError, match=r"instance_group\[0\].kind: KIND_GPU, .* `sluice doctor` .* fall_back_to_"
    ):
        place_instances(config, [])


def test_group_of_cpus_with_gpus_is_refused(tmp_path):
    """One of the two is a mistake."""
    config = read(tmp_path, "instance_group { kind: KIND_CPU gpus: [0] }")
    with pytest.raises(ModelConfigError, match=r"instance_group\[0\].gpus: expected none with KIND_CPU, given \[0\]"):
        place_instances(config, [0])


def test_tensorrt_is_asked_for_by_its_accelerator(tmp_path):
    """Triton's names become the provider's, the provider's own stay."""
    config = read(tmp_path, TENSORRT)
    assert config.tensorrt_options == {
        "trt_fp16_enable": "1",
        "trt_max_workspace_size": "1073741824",
        "trt_engine_cache_enable": "1",
    }
    assert read(tmp_path, "").tensorrt_options is None


def test_cuda_options_come_from_parameters_and_accelerator(tmp_path):
    """Numbers stand for names where Triton has them so."""
    text = parameter("cudnn_conv_algo_search", "1") + parameter("gpu_mem_limit", "4294967296")
    text += parameter("arena_extend_strategy", "kSameAsRequested") + parameter("use_tf32", "0")
    accelerator = 'name: "cuda" parameters { key: "enable_skip_layer_norm_strict_mode" value: "1" }'
    text += f"optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ {accelerator} }} }} }}"
    assert read(tmp_path, text).cuda_options == {
        "cudnn_conv_algo_search": "HEURISTIC",
        "gpu_mem_limit": "4294967296",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_skip_layer_norm_strict_mode": "1",
    }


def test_other_parameters_are_read(tmp_path):
    """Buffers, fallback, and entries of the session's configuration."""
    text = parameter("buffer_sets", "3") + parameter("fall_back_to_cpu", "true")
    config = read(tmp_path, text + parameter("session.disable_cpu_ep_fallback", "1"))
    assert (config.buffer_sets, config.falls_back) == (3, True)
    assert config.session_config == {"session.disable_cpu_ep_fallback": "1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (parameter("buffer_sets", "17"), "expected a number from 0 to 16, given '17'"),
        (parameter("buffer_sets", "two"), "expected a number from 0 to 16, given 'two'"),
        (parameter("fall_back_to_cpu", "1"), "expected 'true' or 'false', given '1'"),
        (TENSORRT.replace("FP16", "FP8"), "precision_mode: expected one of FP32, FP16, INT8, given 'FP8'"),
        (TENSORRT.replace("tensorrt", "openvino"), "'openvino': expected 'tensorrt' or 'cuda'"),
        (TENSORRT.replace("trt_engine_cache_enable", "trt_cuda_graph_enable"), "CUDA graphs are not served"),
        (TENSORRT.replace("trt_engine_cache_enable", "user_compute_stream"), "option, given 'user_compute_stream'"),
        (TENSORRT.replace("trt_engine_cache_enable", "device_id"), "name of an option, given 'device_id'"),
    ],
)
def test_wrong_value_says_what_was_expected(tmp_path, text, expected):
    """And where it was given."""
    with pytest.raises(ModelConfigError, match=expected):
        read(tmp_path, text)
