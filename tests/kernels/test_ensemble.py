"""kernels.ensemble: a graph that cannot be run is refused with the names of its steps and tensors."""

import pytest
from ensemble_graphs import echo, spec, step

from kernels.ensemble import Ensemble, EnsembleError

INPUT, OUTPUT = spec("input", -1, 4), spec("output", -1, 4)


def test_steps_come_after_those_whose_tensors_they_read():
    """Whatever their order in the configuration."""
    steps = [echo("two", "output", "c"), echo("one", "two", "b"), echo("input", "one", "a")]
    graph = Ensemble([INPUT], [OUTPUT], steps)
    assert [made.model for made in graph.steps] == ["a", "b", "c"]
    assert (graph.inputs, graph.outputs) == ((INPUT,), (OUTPUT,))


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([], "there is no step"),
        ([echo("input", "other", "a")], "output 'output' is made by no step"),
        ([echo("nothing", "output", "a")], "step 'a' reads tensor 'nothing', which nobody makes"),
        (
            [echo("input", "output", "a"), echo("input", "output", "b")],
            "tensor 'output' is made twice, by step 'a' and by step 'b'",
        ),
        (
            [echo("input", "output", "a"), echo("output", "input", "b")],
            "tensor 'input' is made twice, by the ensemble's callers and by step 'b'",
        ),
        (
            [echo("two", "one", "a"), echo("one", "two", "b"), echo("input", "output", "c")],
            "steps wait for each other's tensors: 'a', 'b'",
        ),
        ([echo("output", "output", "a")], "steps wait for each other's tensors: 'a'"),
        ([step("a", {"input": "input"}, {})], "step 'a' makes no tensor"),
    ],
)
def test_graph_that_cannot_run_is_refused(steps, reason):
    """By itself, whatever its models are."""
    with pytest.raises(EnsembleError) as refusal:
        Ensemble([INPUT], [OUTPUT], steps)
    assert str(refusal.value) == reason


def test_input_handed_out_as_output_is_refused():
    """An output is what a step makes."""
    with pytest.raises(EnsembleError, match="output 'input' is made by no step"):
        Ensemble([INPUT], [INPUT], [echo("input", "output", "a")])


def test_tensor_of_too_many_dimensions_is_refused():
    """As a model with such a tensor is."""
    with pytest.raises(EnsembleError, match="tensor 'input' has more than 32 dimensions"):
        Ensemble([spec("input", *[1] * 33)], [OUTPUT], [echo("input", "output", "a")])
