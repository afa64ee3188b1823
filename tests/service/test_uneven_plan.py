"""Ragged and padded batches in config.pbtxt: what is read, what is refused, and what is made of it."""

import numpy as np
import pytest
import uneven_models
from onnx_models import save

from kernels.session import Session, TensorSpec
from service.config_text import ModelConfigError
from service.model_config import read_config
from service.pad_values import encode_element
from service.serving_config import complete_config
from service.uneven_plan import MadePlan, ScatterPlan

VALUES = TensorSpec("values", "FP32", (-1,), ("elements",))
EDGES = TensorSpec("edges", "INT32", (-1,), ("edges",))
TABLE = TensorSpec("table", "FP32", (-1, -1), ("rows", ""))
SUMS = TensorSpec("sums", "FP32", (-1,), ("batch",))
DOUBLED = TensorSpec("doubled", "FP32", (-1,), ("elements",))

INPUT = 'input { name: "values" data_type: TYPE_FP32 dims: [-1, 2] allow_ragged_batch: true }'
MADE = 'batch_input { kind: %s target_name: "%s" data_type: %s source_input: "values" }'
EDGES_MADE = MADE % ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", "edges", "TYPE_INT32")
TABLE_MADE = MADE % ("BATCH_ITEM_SHAPE", "table", "TYPE_FP32")
OUTPUT = 'output { name: "doubled" data_type: TYPE_FP32 dims: [-1, 2] }'
SCATTERED = 'batch_output { target_name: "doubled" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "values" }'
BATCH = "max_batch_size: 8"
ALL = "\n".join([BATCH, INPUT, EDGES_MADE, TABLE_MADE, OUTPUT, SCATTERED])

IDS = TensorSpec("ids", "INT64", (-1, -1), ("batch", "length"))
MASK = TensorSpec("mask", "BOOL", (-1, -1), ("batch", "length"))
OTHER = TensorSpec("other", "FP32", (-1, -1, 3), ("batch", "", ""))
TOKENS = TensorSpec("tokens", "FP32", (-1, -1, 768), ("batch", "length", ""))
POOLED = TensorSpec("pooled", "FP32", (-1, 768), ("batch", ""))
BOXES = TensorSpec("boxes", "FP32", (-1, -1, 4), ("batch", "found", ""))


def complete(tmp_path, text=ALL, inputs=(VALUES, EDGES, TABLE), outputs=(SUMS, DOUBLED)):
    """Complete a configuration of this text."""
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    return complete_config("digits", read_config(path, "digits"), inputs, outputs, 64)


def set_parameters(**values):
    """Parameters of a configuration, as its text."""
    return "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in values.items()
    )


def pad(tmp_path, inputs=(IDS, MASK), outputs=(TOKENS, POOLED), text=BATCH, **parameters):
    """Complete a configuration with parameters."""
    return complete(tmp_path, f"{text}\n{set_parameters(**parameters)}", inputs, outputs)


# ---- ragged


def test_ragged_configuration_becomes_a_plan(tmp_path):
    """With the shapes that requests have, and what the server fills in hidden from callers."""
    config = complete(tmp_path)
    assert dict(config.uneven.ragged) == {"values": (-1, -1, 2)}
    assert config.uneven.made == (
        MadePlan("edges", "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", "values"),
        MadePlan("table", "BATCH_ITEM_SHAPE", "values"),
    )
    assert config.uneven.scattered == (ScatterPlan("doubled", (-1, -1, 2), "values"),)
    assert [(spec.name, spec.shape) for spec in config.inputs] == [("values", (-1, -1, 2))]
    assert [(spec.name, spec.shape) for spec in config.outputs] == [("sums", (-1,)), ("doubled", (-1, -1, 2))]
    assert config.model_inputs == ((-1,), (-1,), (-1, -1))
    assert config.model_outputs == ((-1,), (-1,))
    assert config.is_reshaped
    assert (config.fills("edges"), config.fills("values")) == (True, False)


def test_model_config_shows_ragged_fields_as_they_were_written(tmp_path):
    """As Triton's ModelConfig does; what is made is not among the inputs."""
    proto = complete(tmp_path).proto
    assert [(tensor.name, tensor.allow_ragged_batch, list(tensor.dims)) for tensor in proto.input] == [
        ("values", True, [-1, 2])
    ]
    assert [list(given.target_name) for given in proto.batch_input] == [["edges"], ["table"]]
    assert [list(given.source_input) for given in proto.batch_output] == [["values"]]


def test_reshape_gives_batch_inputs_the_shape_that_the_model_is_told(tmp_path):
    """As with Triton, whose backends see the reshaped one."""
    text = ALL.replace("dims: [-1, 2] allow", "dims: [-1, 2] reshape { shape: [1, -1, 2] } allow")
    config = complete(tmp_path, text)
    assert dict(config.uneven.ragged) == {"values": (-1, 1, -1, 2)}
    assert config.input_shapes[0] == (-1, -1, 2)


def test_batch_input_of_an_input_that_is_not_ragged_is_taken(tmp_path):
    """It tells of that one's shape."""
    plain = TensorSpec("values", "FP32", (-1, 4), ("batch", ""))
    text = "\n".join([BATCH, EDGES_MADE, TABLE_MADE])
    config = complete(tmp_path, text, (plain, EDGES, TABLE), (SUMS,))
    assert (dict(config.uneven.ragged), len(config.uneven.made)) == ({}, 2)


REFUSED = {
    "no batches": (ALL.replace(BATCH, ""), "input 'values': allow_ragged_batch: expected max_batch_size of at least 1"),
    "batch input without batches": (EDGES_MADE, r"batch_input\[0\]: expected max_batch_size of at least 1"),
    "batch output without batches": (OUTPUT + SCATTERED, r"batch_output\[0\]: expected max_batch_size of at least 1"),
    "dims": (ALL.replace(" dims: [-1, 2] allow", " allow"), "allow_ragged_batch: expected dims and no optional"),
    "optional": (ALL.replace("allow_r", "optional: true allow_r"), "expected dims and no optional, given optional"),
    "zero": (ALL.replace("dims: [-1, 2] allow", "dims: [0] allow"), r"input 'values': dims: expected \[0\]"),
    "graphs": (
        ALL + "instance_group { kind: KIND_GPU } optimization { cuda { graphs: true } }",
        "optimization.cuda.graphs: expected none beside input 'values': allow_ragged_batch",
    ),
    "no ragged model": (
        f'{BATCH} input {{ name: "table" dims: [-1] allow_ragged_batch: true }}',
        r"input 'table': allow_ragged_batch: expected a model file whose shape is \[-1\], given \[-1, -1\]",
    ),
    "kind": (ALL.replace("BATCH_ITEM_SHAPE", "9"), r"batch_input\[1\].kind: expected a number from 0 to 5, given 9"),
    "data type": (
        ALL.replace('"table" data_type: TYPE_FP32', '"table" data_type: TYPE_INT64'),
        r"batch_input\[1\].data_type: expected TYPE_INT32 or TYPE_FP32, given TYPE_INT64",
    ),
    "other data type": (
        ALL.replace('"table" data_type: TYPE_FP32', '"table" data_type: TYPE_INT32'),
        r"batch_input\[1\].data_type: expected TYPE_FP32, as input 'table' has in the model file, given TYPE_INT32",
    ),
    "no target": (ALL.replace('target_name: "table"', ""), r"batch_input\[1\].target_name: expected at least one name"),
    "target twice": (ALL + EDGES_MADE, r"batch_input\[2\].target_name: expected each input once, given 'edges' again"),
    "target in input": (
        ALL + 'input { name: "table" dims: [-1] }',
        r"batch_input\[1\].target_name: expected an input that is not in input, given 'table'",
    ),
    "unknown target": (
        ALL + MADE % ("BATCH_ELEMENT_COUNT", "nobody", "TYPE_INT32"),
        r"batch_input\[2\].target_name: expected an input of the model .*, of edges, table, given 'nobody'",
    ),
    "rank": (
        "\n".join([BATCH, INPUT, EDGES_MADE, MADE % ("BATCH_ITEM_SHAPE_FLATTEN", "table", "TYPE_FP32")]),
        r"batch_input\[1\].target_name: expected an input of shape \[-1\] for BATCH_ITEM_SHAPE_FLATTEN, given 'table'",
    ),
    "no source": (ALL.replace('source_input: "values"', "", 1), r"batch_input\[0\].source_input: expected one input"),
    "two sources": (
        ALL.replace('source_input: "values"', 'source_input: ["values", "values"]', 1),
        r"batch_input\[0\].source_input: expected one input, given 2",
    ),
    "unknown source": (
        ALL.replace('source_input: "values"', 'source_input: "nobody"', 1),
        r"batch_input\[0\].source_input: expected an input that every request has, one of values, given 'nobody'",
    ),
    "source that is made": (
        ALL.replace('source_input: "values"', 'source_input: "table"', 1),
        r"batch_input\[0\].source_input: expected an input that every request has, one of values, given 'table'",
    ),
    "output that is not listed": (
        ALL.replace(OUTPUT, ""),
        r"batch_output\[0\].target_name: expected an output with dims in output, given 'doubled'",
    ),
    "output twice": (ALL + SCATTERED, r"batch_output\[1\].target_name: expected each output once, given 'doubled'"),
    "output kind": (
        ALL.replace("BATCH_SCATTER_WITH_INPUT_SHAPE", "1"),
        r"batch_output\[0\].kind: expected a number from 0 to 0, given 1",
    ),
    "output source": (
        ALL.replace('SHAPE source_input: "values"', 'SHAPE source_input: "nobody"'),
        r"batch_output\[0\].source_input: expected an input that every request has, one of values, given 'nobody'",
    ),
    "open dimension": (
        ALL.replace(OUTPUT, OUTPUT.replace("[-1, 2]", "[2, 3, -1]")),
        r"batch_output\[0\].source_input: expected an input with the open dimensions of 'doubled', \[2, 3, -1\]",
    ),
    "control": (
        ALL + 'sequence_batching { control_input { name: "edges" control { int32_false_true: [0, 1] } } }',
        r"batch_input\[0\].target_name: expected an input of the model that nobody else fills",
    ),
    "ensemble": (
        'input { name: "values" data_type: TYPE_FP32 dims: [-1] allow_ragged_batch: true } ensemble_scheduling {}',
        r"input\[0\].allow_ragged_batch: an ensemble has no batches",
    ),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_wrong_ragged_configuration_is_refused_by_field(tmp_path, wrong):
    """What Triton would refuse, and what it would fail each request for."""
    text, reason = REFUSED[wrong]
    with pytest.raises(ModelConfigError, match=rf"config\.pbtxt: .*{reason}"):
        complete(tmp_path, text)


# ---- padded


def test_padding_becomes_a_plan(tmp_path):
    """With the bytes of the elements that pad."""
    config = pad(
        tmp_path,
        pad_inputs="ids = -7, mask=false",
        pad_to_multiple_of="8",
        max_padding_ratio="3.5",
    )
    assert dict(config.uneven.fillers) == {"ids": np.int64(-7).tobytes(), "mask": b"\0"}
    assert (config.uneven.multiple, config.uneven.max_ratio, config.uneven.uncropped) == (8, 3.5, frozenset())
    assert (config.uneven.apart, config.is_reshaped) == (frozenset(), False)


def test_output_that_follows_no_padded_length_must_be_fixed_or_named(tmp_path):
    """Else callers would get another shape than alone."""
    with pytest.raises(
        ModelConfigError, match=r"\['pad_inputs'\]: dimension 1 of output 'boxes' is open and has the name"
    ):
        pad(tmp_path, outputs=(TOKENS, BOXES), pad_inputs="ids=0, mask=0")
    fixed = f'{BATCH} output {{ name: "boxes" dims: [9, 4] }}'
    assert pad(tmp_path, outputs=(BOXES,), text=fixed, pad_inputs="ids=0, mask=0").uneven.uncropped == frozenset()
    named = pad(tmp_path, outputs=(BOXES,), pad_inputs="ids=0, mask=0", uncropped_outputs="boxes")
    assert named.uneven.uncropped == {"boxes"}


def test_input_that_dims_fix_needs_no_padding(tmp_path):
    """The name of a dimension counts where it is open."""
    fixed = f'{BATCH} input {{ name: "mask" dims: [4] }}'
    assert dict(pad(tmp_path, outputs=(TOKENS,), text=fixed, pad_inputs="ids=1").uneven.fillers) == {
        "ids": np.int64(1).tobytes()
    }


REFUSED_PADDING = {
    "nothing": ({"pad_inputs": " , "}, r"\['pad_inputs'\]: expected at least one NAME=VALUE"),
    "no value": ({"pad_inputs": "ids"}, r"\['pad_inputs'\]: expected NAME=VALUE, each name once, given 'ids'"),
    "twice": ({"pad_inputs": "ids=0, ids=1"}, "each name once, given 'ids=1'"),
    "value": ({"pad_inputs": "ids=1.5, mask=0"}, "expected a value of INT64 for input 'ids', given '1.5'"),
    "range": ({"pad_inputs": f"ids={2**63}, mask=0"}, "expected a value of INT64 for input 'ids'"),
    "truth": ({"pad_inputs": "ids=0, mask=2"}, "expected a value of BOOL for input 'mask', given '2'"),
    "unknown": ({"pad_inputs": "ids=0, mask=0, nobody=0"}, "neither optional nor ragged, given 'nobody'"),
    "neighbour": ({"pad_inputs": "ids=0"}, "expected 'mask' too, whose dimension 1 is 'length' as well"),
    "multiple": ({"pad_inputs": "ids=0, mask=0", "pad_to_multiple_of": "0"}, "expected a number from 1 to 1024"),
    "multiple text": ({"pad_inputs": "ids=0, mask=0", "pad_to_multiple_of": "-8"}, "given '-8'"),
    "ratio": ({"pad_inputs": "ids=0, mask=0", "max_padding_ratio": "0.5"}, "expected a number from 1 to 1000000"),
    "ratio text": ({"pad_inputs": "ids=0, mask=0", "max_padding_ratio": "nan"}, "given 'nan'"),
    "alone": ({"max_padding_ratio": "2"}, r"\['max_padding_ratio'\]: expected pad_inputs beside it, given none"),
    "uncropped": (
        {"pad_inputs": "ids=0, mask=0", "uncropped_outputs": "nobody"},
        r"\['uncropped_outputs'\]: expected outputs of the model, of pooled, tokens, given 'nobody'",
    ),
}


@pytest.mark.parametrize("wrong", REFUSED_PADDING)
def test_wrong_padding_is_refused_by_parameter(tmp_path, wrong):
    """What pads what must be said, and nothing else."""
    parameters, reason = REFUSED_PADDING[wrong]
    with pytest.raises(ModelConfigError, match=reason):
        pad(tmp_path, **parameters)


REFUSED_MODELS = {
    "no batches": ((IDS, MASK), "max_batch_size: 0", "ids=0, mask=0", "expected max_batch_size of at least 1"),
    "fixed": ((IDS, MASK, POOLED), BATCH, "pooled=0", "expected inputs with an open dimension beside the batch"),
    "texts": ((IDS._replace(datatype="BYTES"),), BATCH, "ids=0", "expected inputs of numbers"),
    "optional": ((OTHER,), f'{BATCH} input {{ name: "other" optional: true }}', "other=0", "neither optional"),
    "ragged": (
        (VALUES,),
        f'{BATCH} input {{ name: "values" dims: [-1] allow_ragged_batch: true }}',
        "values=0",
        "nor ragged, given 'values'",
    ),
    "graphs": (
        (IDS, MASK),
        f"{BATCH} instance_group {{ kind: KIND_GPU }} optimization {{ cuda {{ graphs: true }} }}",
        "ids=0, mask=0",
        r"optimization.cuda.graphs: expected none beside parameters\['pad_inputs'\]",
    ),
    "state": (
        (IDS, TensorSpec("state", "FP32", (-1, -1), ("batch", "length"))),
        BATCH + ' sequence_batching { state { input_name: "state" output_name: "pooled" } }',
        "ids=0",
        r"expected states of fixed dims beside it, since a state would keep the padding, given 'state' of \[-1\]",
    ),
    "state of a padded length": (
        (IDS, TensorSpec("state", "FP32", (-1, -1), ("batch", "length"))),
        BATCH + ' sequence_batching { state { input_name: "state" output_name: "pooled" dims: 3 } }',
        "ids=0",
        "expected dimensions that no state has, given 'length', which 'state' has too",
    ),
    "ensemble": (
        (IDS,),
        'input { name: "a" data_type: TYPE_FP32 dims: 1 } output { name: "b" data_type: TYPE_FP32 dims: 1 } '
        "ensemble_scheduling {}",
        "a=0",
        "an ensemble has no batches",
    ),
    "lengths": (
        tuple(TensorSpec(f"x{n}", "FP32", (-1, -1), ("batch", "")) for n in range(17)),
        BATCH,
        ", ".join(f"x{n}=0" for n in range(17)),
        "expected at most 16 dimensions of different names, given 17",
    ),
}


@pytest.mark.parametrize("wrong", REFUSED_MODELS)
def test_padding_of_what_cannot_be_padded_is_refused(tmp_path, wrong):
    """And the refusal says why."""
    inputs, text, values, reason = REFUSED_MODELS[wrong]
    outputs = (TensorSpec("pooled", "FP32", (-1, -1), ("batch", "size")),) if "state" in wrong else (POOLED,)
    with pytest.raises(ModelConfigError, match=reason):
        pad(tmp_path, inputs=inputs, outputs=outputs, text=text, pad_inputs=values)


@pytest.mark.parametrize(
    ("datatype", "text", "expected"),
    [
        ("UINT8", "255", b"\xff"),
        ("INT32", "-1", b"\xff\xff\xff\xff"),
        ("BOOL", "true", b"\x01"),
        ("FP32", "-inf", np.float32(-np.inf).tobytes()),
        ("FP16", "1.5", np.float16(1.5).tobytes()),
        ("FP64", "0.1", np.float64(0.1).tobytes()),
        ("BF16", "1.00390625", b"\x80\x3f"),
        ("BF16", "-2", b"\x00\xc0"),
        ("BF16", "nan", b"\xc0\x7f"),
    ],
)
def test_value_becomes_the_bytes_of_an_element(datatype, text, expected):
    """As requests carry it; BF16 is rounded to the nearest."""
    assert encode_element("x", datatype, text) == expected


@pytest.mark.parametrize(
    ("datatype", "text"),
    [
        ("UINT8", "256"),
        ("UINT8", "-1"),
        ("INT8", "x"),
        ("FP16", "1e6"),
        ("FP32", "1e39"),
        ("BF16", "3.4e38x"),
        ("BOOL", ""),
    ],
)
def test_value_that_does_not_fit_is_refused(datatype, text):
    """By the input's name."""
    with pytest.raises(ModelConfigError, match=rf"expected a value of {datatype} for input 'x', given '{text}'"):
        encode_element("x", datatype, text)


def test_kernels_agree_with_the_plan_on_real_files(tmp_path):
    """Names of dimensions are those that ONNX Runtime reads in the file."""
    session = Session(save(uneven_models.encoder(), tmp_path, "encoder"))
    config = pad(tmp_path, inputs=session.inputs, outputs=session.outputs, pad_inputs="ids=-1, mask=0")
    assert list(config.uneven.fillers) == ["ids", "mask"]
