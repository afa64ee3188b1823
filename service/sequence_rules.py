"""The rules for sequences as the kernels take them: with the elements with which each state begins."""

import math
from pathlib import Path

from kernels.sequence_rules import SequenceControl, SequenceRules, SequenceState
from kernels.session import Session
from service.config_text import ModelConfigError
from service.model_folders import ModelFolder, find_state_file
from service.sequence_plan import SequencePlan, StatePlan
from service.warmup import ELEMENT_BYTES, LENGTH_BYTES

MAX_STATE_BYTES = 2**30


def make_sequence_rules(session: Session, plan: SequencePlan | None, folder: ModelFolder) -> SequenceRules | None:
    """The rules of a session that keeps sequences by a plan; hides from callers what is the server's. None without.

    Raises
    ------
    ModelConfigError, ModelFolderError
        A state's first elements cannot be read, or are not as many as its shape needs.
    """
    if plan is None:
        return None
    batch = (1,) if plan.is_batched else ()
    return SequenceRules(
        session,
        slots=plan.slots,
        idle_us=plan.idle_us,
        enough_rows=plan.enough_rows,
        controls=[SequenceControl(one.input, one.kind, one.false, one.true) for one in plan.controls],
        states=[
            SequenceState(state.input, state.output, (*batch, *state.shape), read_first_state(state, folder))
            for state in plan.states
        ],
        shown=plan.shown,
    )


def read_first_state(state: StatePlan, folder: ModelFolder) -> bytes:
    """The elements with which a state begins: zeros or empty texts, unless there is a file with them."""
    elements = math.prod(state.shape)
    size = elements * ELEMENT_BYTES.get(state.datatype, LENGTH_BYTES)
    if size > MAX_STATE_BYTES:
        raise ModelConfigError(f"{state.where}.dims: expected at most {MAX_STATE_BYTES} bytes, given {size}")
    if not state.data_file:
        return bytes(size)
    path, where = find_state_file(folder, state.data_file), f"{state.where}.initial_state[0].data_file"
    if state.datatype == "BYTES":
        return _read_texts(path, where, elements)
    if path.stat().st_size != size:
        raise ModelConfigError(f"{where}: expected {size} bytes, given {path.stat().st_size} in {state.data_file}")
    return path.read_bytes()


def _read_texts(path: Path, where: str, elements: int) -> bytes:
    """The content of a file that has texts, each behind its length, as requests carry them."""
    if path.stat().st_size > MAX_STATE_BYTES:
        raise ModelConfigError(f"{where}: expected at most {MAX_STATE_BYTES} bytes, given more in {path.name}")
    content, position, found = path.read_bytes(), 0, 0
    while position + LENGTH_BYTES <= len(content):
        position += LENGTH_BYTES + int.from_bytes(content[position : position + LENGTH_BYTES], "little")
        found += 1
    if position != len(content) or found != elements:
        raise ModelConfigError(
            f"{where}: expected {elements} texts, each behind its length of {LENGTH_BYTES} bytes, in {path.name}"
        )
    return content
