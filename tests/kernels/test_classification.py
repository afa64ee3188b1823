"""The classification extension: which classes come, in which order, and how they are written."""

import numpy as np
import onnx_models
import pytest
from datatypes import DTYPES
from engine_calls import refusal_of, submit_all
from inference_messages import build_request, decode_reply
from memory_objects import MemoryObject, place_tensor
from onnx import TensorProto

from kernels import status
from kernels.interface import Interface
from kernels.session import Session

LABELS = [b"cat", b"dog", b"", "Käse".encode(), b"a:b"]
SORTED = ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64"]


@pytest.fixture
def classify(engine, tmp_path):
    """Give classes of an array from a model that returns it: classify(array, count, labels, max_batch_size)."""

    def run(array, count, labels=None, max_batch_size=8):
        datatype = next(name for name, dtype in DTYPES.items() if dtype == array.dtype)
        shape = ("batch", *array.shape[1:]) if max_batch_size else array.shape
        model = onnx_models.identity(onnx_models.ELEMENT_TYPES[datatype], shape)
        session = Session(onnx_models.save(model, tmp_path, "classes"))
        interface = Interface(session, labels=[labels]) if labels is not None else None
        engine.load("classes", 1, session, max_batch_size=max_batch_size, interface=interface)
        return decode_reply(engine.infer(request_of(array, count).SerializeToString()))["output"]

    return run


def request_of(array, count):
    """A request for so many classes of an output."""
    request = build_request("classes", {"input": array}, outputs=["output"])
    request.outputs[0].parameters["classification"].int64_param = count
    return request


def expected_classes(row, count, labels=()):
    """What C++'s std::to_string and a stable sort give."""
    form = "%f" if row.dtype.kind == "f" else "%d"
    order = sorted(range(row.size), key=lambda index: (-int(row[index]) if form == "%d" else -row[index], index))
    texts = []
    for index in order[:count]:
        text = f"{form % row[index]}:{index}".encode()
        texts.append(text + b":" + labels[index] if index < len(labels) and labels[index] else text)
    return texts


@pytest.mark.parametrize("count", [1, 2, 5, 6, 100])
@pytest.mark.parametrize("datatype", SORTED)
def test_each_row_gives_its_largest_in_order(classify, datatype, count):
    """Of every datatype that has an order, extremes among them; no more than there are."""
    dtype = np.dtype(DTYPES[datatype])
    low, high = (-1e30, 1e30) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    rows = np.array([[1, low, 3, high, 2], [high, 7, 0, 9, 7], [0, 0, 0, 0, 0]], dtype)
    output = classify(rows, count, LABELS)
    assert output.shape == (3, min(count, 5))
    assert output.tolist() == [expected_classes(row, count, LABELS) for row in rows]


def test_classes_without_labels_have_value_and_index(classify):
    """As Triton writes them, six digits behind the point."""
    assert classify(np.array([[0.5, -1.25, 100]], np.float32), 2).tolist() == [[b"100.000000:2", b"0.500000:0"]]


def test_class_without_a_label_has_none(classify):
    """One that the file leaves empty, and those behind its end."""
    row = np.arange(7, dtype=np.int32).reshape(1, 7)
    assert classify(row, 7, LABELS).tolist() == [
        [b"6:6", b"5:5", b"4:4:a:b", "3:3:Käse".encode(), b"2:2", b"1:1:dog", b"0:0:cat"]
    ]


def test_output_without_batches_is_one_row(classify):
    """However many dimensions it has."""
    rows = np.array([[3, 1], [4, 2]], np.int64)
    output = classify(rows, 3, max_batch_size=0)
    assert output.tolist() == [b"4:2", b"3:0", b"2:3"]


def test_rows_of_several_dimensions_count_through(classify):
    """The index is that of the element within its row."""
    rows = np.array([[[1, 2], [3, 4]], [[8, 7], [6, 5]]], np.float64)
    assert classify(rows, 1).tolist() == [[b"4.000000:3"], [b"8.000000:0"]]


def test_what_is_no_number_comes_last(classify):
    """And the two zeros are one number."""
    row = np.array([[np.nan, -np.inf, 0.0, np.inf, -0.0, -np.nan]], np.float32)
    indices = [int(text.split(b":")[1]) for text in classify(row, 6)[0]]
    assert indices == [3, 2, 4, 1, 0, 5]


def test_largest_double_is_written_whole(classify):
    """309 digits and six more."""
    largest = np.finfo(np.float64).max
    assert classify(np.array([[largest, -largest]]), 2).tolist() == [
        [f"{largest:f}:0".encode(), f"{-largest:f}:1".encode()]
    ]


@pytest.mark.parametrize("count", [1, 10, 1000, 5000])
def test_many_classes_come_in_order(classify, count):
    """A heap keeps them; equal ones come by their index."""
    row = np.random.default_rng(3).integers(0, 500, (1, 5000)).astype(np.int32)
    assert classify(row, count)[0].tolist() == expected_classes(row[0], count)


def test_rows_of_requests_that_run_together_stay_apart(engine, load):
    """One asks for classes, the other for elements, of one run."""
    load(onnx_models.identity(), "classes", max_batch_size=8, queue_delay_us=300_000)
    ones, twos = np.array([[1, 2, 3, 4]], np.float32), np.array([[9, 8, 7, 6]], np.float32)
    done = submit_all(engine, {"classes": request_of(twos, 2), "elements": build_request("classes", {"input": ones})})
    given = {call.context: decode_reply(payload)["output"].tolist() for call, _, payload in done}
    assert given == {"classes": [[b"9.000000:0", b"8.000000:1"]], "elements": ones.tolist()}
    assert engine.statistics("classes", 1)["executions"] == 1


def test_one_output_of_two_gives_classes(engine, load):
    """The other its elements, whatever their order."""
    load(onnx_models.add_and_subtract(), "sums", max_batch_size=4)
    a, b = np.array([[5, 6, 7]], np.float32), np.array([[1, 1, 3]], np.float32)
    for names in (["sum", "difference"], ["difference", "sum"]):
        request = build_request("sums", {"a": a, "b": b}, outputs=names)
        request.outputs[names.index("sum")].parameters["classification"].int64_param = 1
        outputs = decode_reply(engine.infer(request.SerializeToString()))
        assert list(outputs) == names
        assert outputs["sum"].tolist() == [[b"10.000000:2"]]
        np.testing.assert_array_equal(outputs["difference"], a - b)


@pytest.mark.parametrize(
    "parameter", [{"int64_param": 0}, {"int64_param": -1}, {"string_param": "2"}, {"uint64_param": 2}]
)
def test_number_of_classes_must_be_one(engine, load, parameter):
    """At least one, of the type that the protocol has for it."""
    load(onnx_models.identity(), "classes", max_batch_size=8)
    request = request_of(np.zeros((1, 4), np.float32), 1)
    request.outputs[0].parameters["classification"].Clear()
    for name, value in parameter.items():
        setattr(request.outputs[0].parameters["classification"], name, value)
    code, text = refusal_of(engine, request.SerializeToString())
    assert (code, text) == (
        status.INVALID,
        "output 'output' has a classification that is no int64_param of at least 1",
    )


@pytest.mark.parametrize("datatype", ["BOOL", "FP16", "BF16", "BYTES"])
def test_datatype_without_an_order_is_refused(engine, load, datatype):
    """As by Triton."""
    load(onnx_models.identity(onnx_models.ELEMENT_TYPES[datatype]), "classes", max_batch_size=8)
    array = np.full((1, 4), b"a", object) if datatype == "BYTES" else np.zeros((1, 4), DTYPES[datatype])
    code, text = refusal_of(engine, request_of(array, 1).SerializeToString())
    assert (code, text) == (status.INVALID, f"output 'output' is {datatype}, of which there is no classification")


def test_classes_in_shared_memory_are_refused(engine, load):
    """As by Triton: an output has one or the other."""
    load(onnx_models.identity(TensorProto.FLOAT), "classes", max_batch_size=8)
    with MemoryObject(bytes(64)) as memory:
        engine.shared_memory.register("all", memory.key, 0, 64)
        request = request_of(np.zeros((1, 4), np.float32), 1)
        place_tensor(request.outputs[0], "all", 64)
        code, text = refusal_of(engine, request.SerializeToString())
    assert (code, text) == (status.INVALID, "output 'output' cannot have both classification and shared memory")
