"""kernels.signature: every wrong request is refused with its input's name, the expected and the given."""

import numpy as np
import onnx_models
import pytest
from inference_messages import build_request, decode_reply
from onnx import TensorProto

from kernels import status
from kernels.engine import InferError
from kernels.session import Session

ROW = np.arange(16, dtype=np.float32).reshape(1, 16)


@pytest.fixture
def refuse(engine):
    """Send a request that must be refused; return its code and text."""

    def send(request):
        with pytest.raises(InferError) as refusal:
            engine.infer(request.SerializeToString())
        return refusal.value.code, refusal.value.message

    return send


@pytest.fixture
def tiny(load):
    """The tiny model, batched up to 8 rows."""
    load(onnx_models.tiny(), max_batch_size=8)


def request_of(array=ROW, **options):
    """A request to tiny with one input."""
    return build_request("tiny", {"input": array}, **options)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([1, 15], "has the wrong shape: expected [-1,16], got [1,15]"),
        ([16], "has the wrong rank: expected [-1,16], got [16]"),
        ([], "has the wrong rank: expected [-1,16], got []"),
        ([1, 1, 16], "has the wrong rank: expected [-1,16], got [1,1,16]"),
        ([-1, 16], "has a negative dimension: expected [-1,16], got [-1,16]"),
        ([1, -16], "has a negative dimension"),
        ([0, 16], "has a batch of 0 rows"),
        ([9, 16], "has a batch of 9 rows; expected at most 8"),
        ([1 << 62, 16], "has more elements than 63 bits can count"),
        ([2, 16], "has 64 bytes of raw content; expected 128"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_input_of_wrong_shape_is_refused(refuse, shape, expected):
    """A shape that is not the model's, or not the content's, names both."""
    request = request_of()
    request.inputs[0].ClearField("shape")
    request.inputs[0].shape.extend(shape)
    code, text = refuse(request)
    assert code == status.INVALID
    assert text.startswith("input 'input' ")
    assert expected in text


def test_input_narrowed_by_configuration_refuses_what_the_file_allows(engine, tmp_path, refuse):
    """A session that was told to take width 4 refuses width 3."""
    session = Session(onnx_models.save(onnx_models.identity(shape=("batch", "width")), tmp_path))
    session.narrow_inputs([(-1, 4)])
    engine.load("same", 1, session, max_batch_size=8)
    code, text = refuse(build_request("same", {"input": np.zeros((2, 3), np.float32)}))
    assert (code, text) == (status.INVALID, "input 'input' has the wrong shape: expected [-1,4], got [2,3]")
    engine.infer(build_request("same", {"input": np.zeros((2, 4), np.float32)}).SerializeToString())


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"x" * 65, b"x" * 128])
@pytest.mark.usefixtures("tiny")
def test_raw_content_of_wrong_size_is_refused(refuse, content):
    """Content must have exactly the bytes of its shape."""
    request = request_of()
    request.raw_input_contents[0] = content
    assert refuse(request) == (
        status.INVALID,
        f"input 'input' has {len(content)} bytes of raw content; expected 64 for its shape and FP32",
    )


@pytest.mark.usefixtures("tiny")
def test_bytes_beyond_63_bits_are_refused(load, refuse):
    """A shape whose elements fit and whose bytes do not is refused."""
    load(onnx_models.identity(TensorProto.DOUBLE, ("a", "b")), "wide")
    request = build_request("wide", {"input": np.zeros((1, 1))})
    request.inputs[0].shape[:] = [1 << 31, 1 << 31]
    assert refuse(request) == (
        status.INVALID,
        "input 'input' has more bytes than 63 bits can count: expected [-1,-1], got [2147483648,2147483648]",
    )


@pytest.mark.parametrize(("given", "shown"), [("INT32", "INT32"), ("", ""), ("FLOAT", "FLOAT"), ("fp32", "fp32")])
@pytest.mark.usefixtures("tiny")
def test_wrong_or_unknown_datatype_is_refused(refuse, given, shown):
    """The datatype must be the model's, in its wire form."""
    request = request_of()
    request.inputs[0].datatype = given
    assert refuse(request) == (status.INVALID, f"input 'input' has datatype '{shown}'; expected FP32")


@pytest.mark.usefixtures("tiny")
def test_unknown_input_is_refused_with_what_there_is(refuse):
    """An unknown name is answered with the known ones."""
    request = request_of()
    request.inputs[0].name = "imput"
    assert refuse(request) == (status.INVALID, "input 'imput' is unknown; the model has 'input'")


@pytest.mark.usefixtures("tiny")
def test_name_of_megabytes_is_cut_in_the_refusal(refuse):
    """A refusal stays short whatever the client sent, also when the cut falls into a character."""
    request = request_of()
    request.inputs[0].name = "ü" * 1_000_000
    code, text = refuse(request)
    assert code == status.INVALID
    assert len(text) < 512


@pytest.mark.usefixtures("tiny")
def test_missing_input_is_refused(refuse):
    """Without inputs the first missing one is named."""
    request = request_of()
    del request.inputs[:], request.raw_input_contents[:]
    assert refuse(request) == (status.INVALID, "input 'input' is missing; got 0 of 1 inputs")


def test_input_given_twice_is_refused(load, refuse):
    """A duplicate is neither the first nor the last: it is an error."""
    load(onnx_models.add_and_subtract(), "sums", max_batch_size=4)
    request = build_request("sums", {"a": np.zeros((1, 3), np.float32)})
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])
    assert refuse(request) == (status.INVALID, "input 'a' is given twice")


def test_inputs_of_different_batch_sizes_are_refused(load, refuse):
    """All inputs of a request have the same rows."""
    load(onnx_models.add_and_subtract(), "sums", max_batch_size=4)
    code, text = refuse(build_request("sums", {"a": np.zeros((1, 3), np.float32), "b": np.zeros((2, 3), np.float32)}))
    assert code == status.INVALID
    assert text == "input 'b' has a batch of 2 rows, another input has 1; expected the same in all inputs"


@pytest.mark.usefixtures("tiny")
def test_raw_contents_missing_or_extra_are_refused(refuse):
    """As many raw contents as inputs."""
    request = request_of()
    request.raw_input_contents.append(b"")
    expected = "expected one raw_input_contents entry for each of the 1 inputs, got 2"
    assert refuse(request) == (status.INVALID, expected)


@pytest.mark.usefixtures("tiny")
def test_no_content_at_all_is_refused(refuse):
    """Neither raw nor typed content is too few elements."""
    request = request_of()
    del request.raw_input_contents[:]
    assert refuse(request) == (status.INVALID, "input 'input' has 0 elements; expected 16 for its shape")


@pytest.mark.usefixtures("tiny")
def test_both_raw_and_typed_content_are_refused(refuse):
    """Which of the two would count is not for the server to guess."""
    request = request_of()
    request.inputs[0].contents.fp32_contents.extend([0.0] * 16)
    code, text = refuse(request)
    assert (code, text) == (
        status.INVALID,
        "input 'input' has both raw_input_contents and contents; expected one of them",
    )


@pytest.mark.usefixtures("tiny")
def test_typed_content_in_another_field_is_refused(refuse):
    """FP32 values belong in fp32_contents."""
    request = request_of()
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp64_contents.extend([0.0] * 16)
    assert refuse(request) == (
        status.INVALID,
        "input 'input' has values in field 7 of contents; expected FP32 in field 6",
    )


@pytest.mark.usefixtures("tiny")
def test_typed_content_gives_the_same_as_raw(engine):
    """Typed values are laid out as the raw ones are."""
    raw = request_of()
    typed = request_of()
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.fp32_contents.extend(ROW.ravel().tolist())
    replies = [engine.infer(request.SerializeToString()) for request in (raw, typed)]
    assert replies[0] == replies[1]


def test_typed_value_out_of_range_is_refused(load, refuse):
    """An INT8 of 300 is not silently cut to 44."""
    load(onnx_models.identity(TensorProto.INT8), "bytes", max_batch_size=4)
    request = build_request("bytes", {"input": np.zeros((1, 4), np.int8)})
    del request.raw_input_contents[:]
    request.inputs[0].contents.int_contents.extend([1, 2, 300, 4])
    assert refuse(request) == (status.INVALID, "input 'input' has a value in its contents that does not fit INT8")


def test_fp16_in_typed_content_is_refused(load, refuse):
    """FP16 has no field of its own and goes raw."""
    load(onnx_models.identity(TensorProto.FLOAT16), "half", max_batch_size=4)
    request = build_request("half", {"input": np.zeros((1, 4), np.float16)})
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([0.0] * 4)
    assert refuse(request) == (
        status.INVALID,
        "input 'input' has a datatype that only raw_input_contents can carry",
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x01\x00\x00\x00a", "has 1 elements; expected 2"),
        (b"\x01\x00\x00\x00a\x01\x00", "ends within a length prefix"),
        (b"\x01\x00\x00\x00a\xff\xff\xff\xffb", "has a BYTES element of 4294967295 bytes where 1 are left"),
        (b"\x00\x00\x00\x00" * 3, "has 3 elements; expected 2"),
        (b"", "has 0 elements; expected 2"),
    ],
)
def test_bytes_with_bad_length_prefixes_are_refused(load, refuse, content, expected):
    """Length prefixes are walked before anything is copied."""
    load(onnx_models.identity(TensorProto.STRING, ("batch", 2)), "strings", max_batch_size=4)
    request = build_request("strings", {"input": np.array([[b"a", b"b"]], dtype=object)})
    request.raw_input_contents[0] = content
    code, text = refuse(request)
    assert code == status.INVALID
    assert expected in text


@pytest.mark.usefixtures("tiny")
def test_unknown_output_is_refused_with_what_there_is(refuse):
    """A requested output must exist."""
    assert refuse(request_of(outputs=["logits"])) == (
        status.INVALID,
        "requested output 'logits' is unknown; the model has 'output'",
    )


@pytest.mark.usefixtures("tiny")
def test_output_requested_twice_is_refused(refuse):
    """Each output once."""
    assert refuse(request_of(outputs=["output", "output"])) == (status.INVALID, "output 'output' is requested twice")


def test_requested_outputs_come_in_their_order(engine, load):
    """A subset, in the order asked for."""
    load(onnx_models.add_and_subtract(), "sums", max_batch_size=4)
    a, b = np.array([[5, 6, 7]], np.float32), np.array([[1, 1, 1]], np.float32)
    both = build_request("sums", {"a": a, "b": b}, outputs=["difference", "sum"])
    assert list(decode_reply(engine.infer(both.SerializeToString()))) == ["difference", "sum"]
    one = build_request("sums", {"b": b, "a": a}, outputs=["difference"])
    np.testing.assert_array_equal(decode_reply(engine.infer(one.SerializeToString()))["difference"], a - b)


@pytest.mark.usefixtures("tiny")
def test_unknown_parameters_are_ignored(engine):
    """Of the request, of an input and of an output; those of Triton's that mean nothing here are among them."""
    plain, marked = request_of(outputs=["output"]), request_of(outputs=["output"])
    marked.parameters["priority"].uint64_param = 1
    marked.parameters["mine"].string_param = "x"
    marked.inputs[0].parameters["binary_data"].bool_param = True
    marked.outputs[0].parameters["binary_data_size"].int64_param = 4
    replies = [engine.infer(request.SerializeToString()) for request in (plain, marked)]
    assert replies[0] == replies[1]
