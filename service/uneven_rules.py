"""The rules for batches of requests of different shapes, as the kernels take them."""

from kernels.session import Session
from kernels.uneven_rules import BatchInput, BatchOutput, PaddedInput, RaggedInput, UnevenRules
from service.uneven_plan import UnevenPlan


def make_uneven_rules(session: Session, plan: UnevenPlan | None) -> UnevenRules | None:
    """The rules of a session that serves by a plan; hides from callers what the server makes. None without a plan."""
    if plan is None:
        return None
    return UnevenRules(
        session,
        ragged=[RaggedInput(name, shape) for name, shape in plan.ragged.items()],
        batch_inputs=[BatchInput(one.input, one.kind, one.source) for one in plan.made],
        batch_outputs=[BatchOutput(one.output, one.shape, one.source) for one in plan.scattered],
        padded=[PaddedInput(name, filler) for name, filler in plan.fillers.items()],
        uncropped=plan.uncropped,
        multiple=plan.multiple,
        max_ratio=plan.max_ratio,
    )
