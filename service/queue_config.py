"""What `dynamic_batching` says, for the engine: priorities and their policies, preferred sizes, order; checked."""

from collections.abc import Mapping, Sequence

from kernels.queue_options import MAX_LEVELS, MAX_PREFERRED, MAX_TIMEOUT_US, QueueOptions, QueuePolicy
from service.config_text import FILE_NAME, ModelConfigError
from service.pb.model_config_pb2 import ModelDynamicBatching, ModelQueuePolicy

# Parameters of the configuration: fields of our own would make its text unreadable to Triton.
ALONE_PARAMETER = "no_delay_when_alone"
LATE_PARAMETER = "refuse_late_requests"
QUEUE_PARAMETERS = (ALONE_PARAMETER, LATE_PARAMETER)

BATCHING = "dynamic_batching"
# Fields of dynamic_batching that are read.
QUEUE_FIELDS = frozenset(
    {
        "preferred_batch_size",
        "preserve_ordering",
        "priority_levels",
        "default_priority_level",
        "default_queue_policy",
        *(
            f"default_queue_policy.{field}"
            for field in (
                "timeout_action",
                "default_timeout_microseconds",
                "allow_timeout_override",
                "max_queue_size",
            )
        ),
        "priority_queue_policy",
    }
)


def read_queue_options(batching: ModelDynamicBatching, parameters: Mapping[str, str]) -> QueueOptions:
    """The options of a model's queue.

    Parameters
    ----------
    parameters
        Those of the configuration; others than QUEUE_PARAMETERS are passed over.

    Raises
    ------
    ModelConfigError
        A value is out of range; the text names the field.
    """
    if batching.priority_levels > MAX_LEVELS:
        raise _field_error("priority_levels", f"a number from 0 to {MAX_LEVELS}", batching.priority_levels)
    return QueueOptions(
        levels=_read_levels(batching),
        default_level=_read_default_level(batching),
        preferred_batch_sizes=_read_sizes(batching.preferred_batch_size),
        keeps_order=batching.preserve_ordering,
        skips_delay_alone=_read_choice(parameters, ALONE_PARAMETER, default=False),
        refuses_late=_read_choice(parameters, LATE_PARAMETER, default=True),
    )


def check_preferred_sizes(options: QueueOptions, max_batch_size: int) -> None:
    """Raise ModelConfigError for a preferred size beyond the largest batch, which the model file may have settled."""
    for size in options.preferred_batch_sizes:
        if size > max_batch_size:
            expected = f"sizes of at most max_batch_size, which is {max_batch_size}"
            raise _field_error("preferred_batch_size", expected, size)


def _read_levels(batching: ModelDynamicBatching) -> tuple[QueuePolicy, ...]:
    """A policy for each level, the most urgent first; one where there are no priorities."""
    for level in batching.priority_queue_policy:
        if not 1 <= level <= batching.priority_levels:
            expected = f"levels from 1 to priority_levels, which is {batching.priority_levels}"
            raise _field_error("priority_queue_policy", expected, level)
    default = _read_policy("default_queue_policy", batching.default_queue_policy)
    given = {
        level: _read_policy(f"priority_queue_policy[{level}]", policy)
        for level, policy in batching.priority_queue_policy.items()
    }
    return tuple(given.get(level, default) for level in range(1, max(1, batching.priority_levels) + 1))


def _read_policy(name: str, policy: ModelQueuePolicy) -> QueuePolicy:
    if policy.timeout_action not in ModelQueuePolicy.TimeoutAction.values():
        raise _field_error(f"{name}.timeout_action", "REJECT or DELAY", policy.timeout_action)
    if policy.default_timeout_microseconds > MAX_TIMEOUT_US:
        expected = f"a number from 0 to {MAX_TIMEOUT_US}"
        raise _field_error(f"{name}.default_timeout_microseconds", expected, policy.default_timeout_microseconds)
    return QueuePolicy(
        max_requests=policy.max_queue_size,
        timeout_us=policy.default_timeout_microseconds,
        takes_timeouts=policy.allow_timeout_override,
        postpones=policy.timeout_action == ModelQueuePolicy.DELAY,
    )


def _read_default_level(batching: ModelDynamicBatching) -> int:
    """From 1; priorities without a default are refused, as by Triton."""
    if batching.priority_levels == 0 and batching.default_priority_level == 0:
        return 1
    if not 1 <= batching.default_priority_level <= batching.priority_levels:
        expected = f"a level from 1 to priority_levels, which is {batching.priority_levels}"
        raise _field_error("default_priority_level", expected, batching.default_priority_level)
    return int(batching.default_priority_level)


def _read_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if len(sizes) > MAX_PREFERRED:
        raise _field_error("preferred_batch_size", f"at most {MAX_PREFERRED} sizes", len(sizes))
    for size in sizes:
        if size < 1:
            raise _field_error("preferred_batch_size", "sizes of at least 1", size)
    return tuple(sizes)


def _read_choice(parameters: Mapping[str, str], name: str, *, default: bool) -> bool:
    given = parameters.get(name)
    if given not in (None, "true", "false"):
        raise ModelConfigError(f"{FILE_NAME}: parameters[{name!r}]: expected 'true' or 'false', given {given!r}")
    return default if given is None else given == "true"


def _field_error(field: str, expected: str, given: int) -> ModelConfigError:
    return ModelConfigError(f"{FILE_NAME}: {BATCHING}.{field}: expected {expected}, given {given}")
