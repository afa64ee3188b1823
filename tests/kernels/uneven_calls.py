"""Models on an engine whose batches are ragged or padded."""

import onnx_models
import uneven_models

from kernels.interface import Interface
from kernels.sequence_rules import SequenceRules
from kernels.session import Session
from kernels.uneven_rules import BatchInput, BatchOutput, PaddedInput, RaggedInput, UnevenRules
from tests.kernels.ways import WORKERS

SUM_RULES = {
    "ragged": [RaggedInput("values", (-1, -1))],
    "batch_inputs": [BatchInput("edges", "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", "values")],
    "batch_outputs": [BatchOutput("doubled", (-1, -1), "values")],
}
SUM_SHAPES = {"values": (-1, -1), "doubled": (-1, -1)}
# Long enough that all requests of a test come to be in one batch.
DELAY_US = 300_000


class UnevenLoader:
    """Loads models whose requests have different shapes into an engine, from files that are made on the spot."""

    def __init__(self, engine, folder, way=WORKERS):
        self._engine = engine
        self._folder = folder
        self._way = way

    def load(self, model, name, shapes=None, *, rules=None, sequences=None, **options):
        """Load a model.

        Parameters
        ----------
        shapes
            What callers see of tensors that the model has in another shape, by name.
        rules
            Keywords of UnevenRules.
        sequences
            Keywords of SequenceRules.
        """
        path = onnx_models.save(model, self._folder, name)
        count = max(self._way.sessions, 1)
        sessions = [Session(path, device=self._way.device) for _ in range(count)]
        if self._way.buffer_sets > 0:
            options["buffer_sets"] = self._way.buffer_sets
        if sequences is not None:
            options["sequences"] = SequenceRules(sessions[0], **sequences)
        made = UnevenRules(sessions[0], **(rules or {}))
        interface = show_shapes(sessions[0], shapes) if shapes else None
        options = {"max_batch_size": 8, "queue_delay_us": DELAY_US} | options
        self._engine.load(name, 1, sessions, interface=interface, uneven=made, **options)

    def load_sums(self, **options):
        """`ragged_sums` as `sums`, whose callers give and get rows."""
        self.load(uneven_models.ragged_sums(), "sums", SUM_SHAPES, rules=SUM_RULES, **options)

    def load_flat(self, datatype, shape=(-1, -1), **options):
        """`flat_identity` as `flat`."""
        self.load(
            uneven_models.flat_identity(datatype),
            "flat",
            {"values": shape, "same": shape},
            rules={
                "ragged": [RaggedInput("values", shape)],
                "batch_outputs": [BatchOutput("same", shape, "values")],
            },
            **options,
        )

    def load_encoder(self, rules=(), **options):
        """`encoder` as `encoder`, ids padded with -1."""
        padded = [PaddedInput("ids", (-1).to_bytes(8, "little", signed=True)), PaddedInput("mask", bytes(4))]
        self.load(uneven_models.encoder(), "encoder", rules={"padded": padded, **dict(rules)}, **options)


def show_shapes(session, shapes):
    """The interface of a session some of whose tensors have other shapes for callers."""
    inputs, outputs = (
        [shapes.get(spec.name, spec.shape) for spec in specs] for specs in (session.inputs, session.outputs)
    )
    return Interface(
        session, inputs=inputs, outputs=outputs, made=[spec.shape for spec in session.outputs], apart=set(shapes)
    )
