"""kernels.sequence_rules: what does not fit the model is refused."""

import onnx_models
import pytest
from sequence_calls import SUM_STATE

from kernels.sequence_rules import SequenceControl, SequenceRules
from kernels.session import Session


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"slots": 0}, "slots must be at least 1"),
        ({"idle_us": 0}, "idle_us from 1 to"),
        ({"states": [SUM_STATE._replace(input="nothing")]}, "the model has no input 'nothing'"),
        ({"states": [SUM_STATE._replace(output="nothing")]}, "the model has no output 'nothing'"),
        ({"states": [SUM_STATE, SUM_STATE]}, "cannot have two controls or states"),
        ({"states": [SUM_STATE._replace(shape=(1, 3))]}, "cannot begin with shape"),
        ({"states": [SUM_STATE._replace(shape=(1,))]}, "must have the same datatype and rank"),
        ({"states": [SUM_STATE._replace(initial=b"")]}, "does not have 0 bytes"),
        ({"controls": [SequenceControl("input", "id")]}, "has more than one element"),
        ({"controls": [SequenceControl("input", "start", b"0", b"1")]}, "has more than one element"),
    ],
)
def test_rules_that_do_not_fit_the_model_are_refused(tmp_path, options, text):
    """Before anything is served."""
    session = Session(onnx_models.save(onnx_models.accumulator(), tmp_path))
    with pytest.raises(ValueError, match=text):
        SequenceRules(session, **{"slots": 1, "idle_us": 1} | options)


def test_rules_are_of_the_session_that_they_were_made_for(engine, tmp_path):
    """Another one has nothing hidden."""
    first, second = (Session(onnx_models.save(onnx_models.accumulator(), tmp_path, name)) for name in ("a", "b"))
    with pytest.raises(ValueError, match="of another session"):
        engine.prepare("sum", 1, first, sequences=SequenceRules(second, slots=1, idle_us=1))
