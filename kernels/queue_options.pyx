"""The options of a queue and of its batches: checked, and put into a batcher that nobody can reach yet."""

from typing import NamedTuple

from libc.stdint cimport INT64_MAX, int32_t, int64_t

from kernels.batch_rules cimport MAX_PREFERRED_SIZES
from kernels.batcher cimport batcher
from kernels.request_queue cimport queue_level

MAX_PREFERRED = MAX_PREFERRED_SIZES
MAX_LEVELS = 1024
MAX_TIMEOUT_US = INT64_MAX // 1000


class QueuePolicy(NamedTuple):
    """The rules of one level of priority.

    ``max_requests`` may wait, any number for 0; each for ``timeout_us``, for ever for 0, or for a shorter time that it
    names, if that ``takes_timeouts``. One that has waited too long is given up, or ``postpones`` puts it behind the others.
    """

    max_requests: int = 0
    timeout_us: int = 0
    takes_timeouts: bool = False
    postpones: bool = False


class QueueOptions(NamedTuple):
    """Who waits where, and when a batch runs.

    ``levels`` are the most urgent first, none for one without limits; ``default_level`` counts them from 1. A batch of
    ``preferred_batch_sizes`` rows does not wait for the delay to be over, nor, with ``skips_delay_alone``, does a request that
    nobody is beside. ``keeps_order`` has requests settled as they came. ``refuses_late`` refuses those whose deadline could
    not be kept.
    """

    levels: tuple = ()
    default_level: int = 1
    preferred_batch_sizes: tuple = ()
    keeps_order: bool = False
    skips_delay_alone: bool = False
    refuses_late: bool = True


def check_options(options, max_batch_size):
    """Raise ValueError for a number that is out of range."""
    levels, sizes = options.levels, options.preferred_batch_sizes
    if len(levels) > MAX_LEVELS or not 1 <= options.default_level <= max(1, len(levels)):
        raise ValueError(f"expected at most {MAX_LEVELS} levels, and default_level to be one of them")
    if any(policy.max_requests < 0 or not 0 <= policy.timeout_us <= MAX_TIMEOUT_US for policy in levels):
        raise ValueError(f"max_requests must be at least 0, timeout_us from 0 to {MAX_TIMEOUT_US}")
    if len(sizes) > MAX_PREFERRED or any(not 1 <= size <= max_batch_size for size in sizes):
        raise ValueError(f"expected at most {MAX_PREFERRED} preferred_batch_sizes, each from 1 to {max_batch_size}")


cdef int apply_options(batcher* target, options) except -1:
    """Set what was checked; the queue has as many levels as the options name, or one."""
    cdef int32_t index
    for index in range(len(options.levels)):
        apply_policy(&target.queue.levels[index], options.levels[index])
    target.queue.default_level = options.default_level - 1
    sizes = sorted(set(options.preferred_batch_sizes))
    for index in range(len(sizes)):
        target.rules.preferred[index] = sizes[index]
    target.rules.n_preferred = len(sizes)
    target.rules.keeps_order = target.order.is_kept = options.keeps_order
    target.rules.skips_delay_alone = options.skips_delay_alone
    target.refuses_late = options.refuses_late
    return 0


cdef int apply_policy(queue_level* level, policy) except -1:
    level.policy.max_requests = policy.max_requests
    level.policy.timeout_ns = <int64_t> policy.timeout_us * 1000
    level.policy.takes_timeouts = policy.takes_timeouts
    level.policy.postpones = policy.postpones
    return 0
