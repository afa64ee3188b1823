"""service.device_config: where instances run and with which options, as configurations of Triton's say it."""

import pytest

from service.config_text import ModelConfigError
from service.device_config import check_memory_limit, choose_graph_batches, place_instances
from service.gpus import Gpu
from service.model_config import read_config

TENSORRT = """
optimization { execution_accelerators { gpu_execution_accelerator {
  name: "tensorrt"
  parameters { key: "precision_mode" value: "FP16" }
  parameters { key: "max_workspace_size_bytes" value: "1073741824" }
  parameters { key: "trt_engine_cache_enable" value: "1" }
} } }
"""
CUDA = """
optimization { execution_accelerators { gpu_execution_accelerator {
  name: "cuda" parameters { key: "NAME" value: "on" }
} } }
"""
GRAPHS = "optimization { cuda { graphs: true } }"


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
    ("options", "found"),
    [
        ({"precision_mode": "FP32"}, {}),
        ({"precision_mode": "INT8"}, {"trt_int8_enable": "1"}),
        (
            {"trt_engine_cache_enable": "1", "trt_engine_cache_path": "/var/cache/engines"},
            {"trt_engine_cache_enable": "1", "trt_engine_cache_path": "/var/cache/engines"},
        ),
        ({"trt_timing_cache_enable": "1"}, {"trt_timing_cache_enable": "1"}),
        ({"int8_calibration_table_name": "table"}, {"trt_int8_calibration_table_name": "table"}),
    ],
)
def test_options_of_tensorrt_go_to_the_provider(tmp_path, options, found):
    """Precision, workspace and the cache of its engines, by Triton's names or the provider's."""
    given = "".join(f'parameters {{ key: "{name}" value: "{value}" }}' for name, value in options.items())
    accelerator = f'name: "tensorrt" {given}'
    text = f"optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ {accelerator} }} }} }}"
    assert read(tmp_path, text).tensorrt_options == found


@pytest.mark.parametrize(
    ("text", "max_batch_size", "sizes"),
    [
        ("", 8, ()),
        ("optimization { cuda { graph_spec { batch_size: 2 } } }", 8, ()),
        (GRAPHS, 1, (1,)),
        (GRAPHS, 8, (1, 2, 4, 8)),
        (GRAPHS, 12, (1, 2, 4, 8, 12)),
        ("optimization { cuda { graphs: true graph_spec { batch_size: 8 } graph_spec { batch_size: 3 } } }", 8, (3, 8)),
    ],
)
def test_sizes_to_record_are_those_of_the_configuration(tmp_path, text, max_batch_size, sizes):
    """Or, where it names none, the powers of two and the largest batch."""
    assert choose_graph_batches(read(tmp_path, text), max_batch_size) == sizes


@pytest.mark.parametrize(
    ("specs", "max_batch_size", "expected"),
    [
        ("", 0, "optimization.cuda.graphs: expected a model with max_batch_size above 0"),
        ("graph_spec { batch_size: 9 }", 8, r"graph_spec.batch_size: expected 1 to max_batch_size \(8\), given 9"),
        ("graph_spec { batch_size: 0 }", 8, "given 0"),
        ("graph_spec { batch_size: -1 }", 8, "given -1"),
    ],
)
def test_sizes_that_no_batch_has_are_refused(tmp_path, specs, max_batch_size, expected):
    """Once it is known how large a batch may be."""
    config = read(tmp_path, f"optimization {{ cuda {{ graphs: true {specs} }} }}")
    with pytest.raises(ModelConfigError, match=expected):
        choose_graph_batches(config, max_batch_size)


def test_limit_above_the_memory_of_the_gpu_is_refused(tmp_path):
    """Both numbers are told; a GPU that is as large as the limit will do."""
    config = read(tmp_path, parameter("gpu_mem_limit", "1025"))
    check_memory_limit(config, Gpu(number=1, uuid="GPU-1", name="a GPU", memory_bytes=1025))
    check_memory_limit(read(tmp_path, ""), Gpu(number=1, uuid="GPU-1", name="a GPU", memory_bytes=0))
    with pytest.raises(ModelConfigError, match=r"gpu_mem_limit: .* 1024 bytes of cuda:1 \(a GPU\), given 1025"):
        check_memory_limit(config, Gpu(number=1, uuid="GPU-1", name="a GPU", memory_bytes=1024))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (parameter("buffer_sets", "17"), "expected a number from 0 to 16, given '17'"),
        (parameter("buffer_sets", "two"), "expected a number from 0 to 16, given 'two'"),
        (parameter("fall_back_to_cpu", "1"), "expected 'true' or 'false', given '1'"),
        (TENSORRT.replace("FP16", "FP8"), "precision_mode: expected one of FP32, FP16, INT8, given 'FP8'"),
        (TENSORRT.replace("tensorrt", "openvino"), "'openvino': expected 'tensorrt' or 'cuda'"),
        (
            TENSORRT.replace("trt_engine_cache_enable", "trt_cuda_graph_enable"),
            "optimization.cuda.graphs: true instead",
        ),
        (CUDA.replace("NAME", "enable_cuda_graph"), "enable_cuda_graph: expected it left out"),
        (
            TENSORRT.replace("optimization {", "optimization { cuda { graphs: true }"),
            "optimization.cuda.graphs: expected false where TensorRT is asked for",
        ),
        (parameter("gpu_mem_limit", "0"), r"parameters: gpu_mem_limit: expected a number of bytes above 0, given '0'"),
        (parameter("gpu_mem_limit", "4GB"), "given '4GB'"),
        (
            CUDA.replace("NAME", "gpu_mem_limit"),
            "'cuda': gpu_mem_limit: expected a number of bytes above 0, given 'on'",
        ),
        (parameter("use_tf32", "true"), "use_tf32: expected one of 0, 1, given 'true'"),
        (parameter("do_copy_in_default_stream", "2"), "expected one of 0, 1, given '2'"),
        (parameter("cudnn_conv_use_max_workspace", ""), "expected one of 0, 1, given ''"),
        (parameter("arena_extend_strategy", "2"), "expected one of kNextPowerOfTwo, kSameAsRequested, given '2'"),
        (parameter("cudnn_conv_algo_search", "FAST"), "expected one of EXHAUSTIVE, HEURISTIC, DEFAULT, given 'FAST'"),
        (TENSORRT.replace("trt_engine_cache_enable", "user_compute_stream"), "option, given 'user_compute_stream'"),
        (TENSORRT.replace("trt_engine_cache_enable", "device_id"), "name of an option, given 'device_id'"),
    ],
)
def test_wrong_value_says_what_was_expected(tmp_path, text, expected):
    """And where it was given."""
    with pytest.raises(ModelConfigError, match=expected):
        read(tmp_path, text)
