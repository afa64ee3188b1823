"""How a version of a model is to run: checked, told as its signature, and put into its queue."""

import threading

from cython cimport final
from libc.stdint cimport int32_t, int64_t

from kernels.instances cimport start_lanes
from kernels.interface cimport Interface
from kernels.queue_options cimport apply_options
from kernels.response_cache cimport response_cache
from kernels.sequence_rules cimport SequenceRules
from kernels.session cimport Session
from kernels.signature cimport signature
from kernels.uneven_rules cimport UnevenRules
from kernels.version_sequences cimport check_sequences, keep_sequences
from kernels.version_table cimport LoadedVersion

from kernels.instances import check_instances
from kernels.queue_options import QueueOptions, check_options
from kernels.uneven_rules import check_uneven
from kernels.version_table import check_batchable

cdef enum:
    MAX_DELAY_US = 60_000_000


@final
cdef class VersionOptions:
    """What Engine.prepare takes.

    Parameters
    ----------
    session : Session, or sequence of them
        Several sessions of one model are its instances; they need lanes.
    max_batch_size : int
        Rows in a batch; 0 when the model's first dimension is no batch.
    queue_delay_us : int
        How long, in microseconds, a batch that is not full waits for more.
    instance_count : int
        Batches that may run at the same time, all in one session, at most on half of the workers; without lanes only.
    max_queue_requests : int
        Requests that may wait; None is the engine's own number.
    buffer_sets : int
        0 runs batches on the engine's workers. Another number gives each session a lane, the one thread that runs
        it, and so many sets of buffers to be gathered, run and encoded side by side: for GPUs, at least 2. The
        largest batch is run once on each set before anything is served.
    cache_replies : bool
        Whether a request is answered by the reply that the same inputs got before, while that is kept.
    interface : Interface
        How callers see the session's tensors, where that is not as the model has them; of the first session.
    sequences : SequenceRules
        How the version keeps sequences; without, its requests have nothing to do with each other. Of the first
        session; never together with `cache_replies`, since what a request gets depends on those before it.
    uneven : UnevenRules
        How requests of different shapes go into one batch; without, they run in different ones. Of the first session;
        never of one that records its runs.
    queueing : QueueOptions
        Who waits where and for how long, and when a batch that is not full runs all the same.

    Raises
    ------
    ValueError
        A number is out of range, or the model's first dimensions cannot be a batch.
    """

    def __cinit__(self, session not None, *, int64_t max_batch_size=0, int64_t queue_delay_us=0,
                  int32_t instance_count=1, max_queue_requests=None, int32_t buffer_sets=0, bint cache_replies=False,
                  Interface interface=None, SequenceRules sequences=None, UnevenRules uneven=None,
                  queueing=QueueOptions()):
        if instance_count < 1 or (max_queue_requests is not None and max_queue_requests < 1):
            raise ValueError("instance_count and max_queue_requests must be at least 1")
        if not 0 <= queue_delay_us <= MAX_DELAY_US or max_batch_size < 0:
            raise ValueError(f"max_batch_size must be at least 0, queue_delay_us from 0 to {MAX_DELAY_US}")
        self.sessions = (session,) if isinstance(session, Session) else tuple(session)
        check_instances(self.sessions, instance_count, buffer_sets)
        check_options(queueing, max_batch_size)
        if interface is not None and interface.session is not self.sessions[0]:
            raise ValueError("the interface is of another session")
        check_sequences(sequences, self.sessions[0], cache_replies)
        check_uneven(uneven, self.sessions[0], interface, max_batch_size)
        if max_batch_size > 0:
            check_batchable(self.sessions[0])
        self.max_batch_size, self.queue_delay_us = max_batch_size, queue_delay_us
        self.instance_count, self.buffer_sets = instance_count, buffer_sets
        self.max_queue_requests, self.cache_replies = max_queue_requests, cache_replies
        self.interface, self.sequences, self.uneven, self.queueing = interface, sequences, uneven, queueing

    cdef int describe(self, signature* accepted) except -1:
        """Say what callers see: the session's own tensors, but for those that the interface has otherwise."""
        cdef Session session = self.sessions[0]
        cdef Interface interface = self.interface
        accepted.core = &session.core
        accepted.inputs = session.core.inputs
        accepted.outputs = session.core.outputs
        accepted.made = NULL
        accepted.bound = session.core.inputs if self.uneven is None else self.uneven.core.bound
        accepted.uneven = &self.uneven.core if self.uneven is not None else NULL
        accepted.reads_inputs = self.uneven is not None and self.uneven.core.n_lengths > 0
        accepted.labels = NULL
        accepted.sequences = &self.sequences.core if self.sequences is not None else NULL
        accepted.max_batch_size = self.max_batch_size
        if interface is None:
            return 0
        if interface.core.inputs != NULL:
            accepted.inputs = interface.core.inputs
        if interface.core.outputs != NULL:
            accepted.outputs = interface.core.outputs
            accepted.made = interface.core.made
        accepted.labels = interface.core.labels
        return 0

    cdef int apply(self, LoadedVersion made, response_cache* cache) except -1:
        """Have the queue, which is open and which nobody can reach yet, keep to the options."""
        if self.cache_replies and cache.max_bytes > 0:
            made.queue.cache = cache
        made.queue.rules.delay_ns = self.queue_delay_us * 1000
        apply_options(&made.queue, self.queueing)
        if self.sequences is not None:
            made.sequences, made.awaiting = self.sequences, threading.Lock()
            keep_sequences(&made.queue)
        if self.buffer_sets > 0:
            made.queue.task.is_inline = made.queue.place.is_inline = False
            start_lanes(&made.queue, made.sessions, self.buffer_sets)
        return 0
