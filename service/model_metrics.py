"""What the kernels count of each model version, under Triton's metric names, and histograms of our own."""

from collections.abc import Callable, Iterable, Mapping

from kernels.statistics import DURATION_BOUNDS_US, VersionStatistics
from service.cache_metrics import CACHE_COUNTERS
from service.exposition import Family, format_labels
from service.repository import ModelVersion, State
from service.statistics import count_failures, count_refusals

NS_PER_US, NS_PER_S = 1_000, 1_000_000_000
BOUNDS_S = tuple(repr(bound / 1e6) for bound in DURATION_BOUNDS_US)

# A metric's meaning, and what it is of a version's counters.
Counter = tuple[str, Callable[[dict[str, int]], int]]

# Triton's.
COUNTERS: dict[str, Counter] = {
    "nv_inference_request_success": ("Number of successful inference requests", lambda c: c["success"]),
    "nv_inference_count": ("Number of inferences performed, a batch of n counting n", lambda c: c["rows"]),
    "nv_inference_exec_count": ("Number of model executions performed", lambda c: c["executions"]),
    "nv_inference_request_duration_us": (
        "Cumulative time of successful inference requests from arrival to answer, in microseconds",
        lambda c: c["success_ns"] // NS_PER_US,
    ),
    "nv_inference_queue_duration_us": (
        "Cumulative time that successful inference requests waited in the queue, in microseconds",
        lambda c: c["queue_ns"] // NS_PER_US,
    ),
    "nv_inference_compute_input_duration_us": (
        "Cumulative time that successful inference requests waited for their inputs to be gathered, in microseconds",
        lambda c: c["request_gather_ns"] // NS_PER_US,
    ),
    "nv_inference_compute_infer_duration_us": (
        "Cumulative time that successful inference requests waited for the model to run, in microseconds",
        lambda c: c["request_run_ns"] // NS_PER_US,
    ),
    "nv_inference_compute_output_duration_us": (
        "Cumulative time that successful inference requests waited for their outputs to be encoded, in microseconds",
        lambda c: c["request_encode_ns"] // NS_PER_US,
    ),
}
FAILURES = ("nv_inference_request_failure", "Number of failed inference requests, by reason")
PENDING = ("nv_inference_pending_request_count", "Number of inference requests that wait in the queue now")
# Ours.
REFUSALS = ("sluice_queue_refusals_total", "Number of inference requests that the queue refused or gave up, by reason")
DISPATCHES = ("sluice_dispatches_total", "Number of batches that left the queue, by why they did")
SEQUENCES = ("sluice_sequences", "Number of sequences that are under way now")
LOADS = ("nv_model_load_duration_secs", "Model load time in seconds")
# Each with the kernels' name of the histogram and of its sum.
HISTOGRAMS = {
    "sluice_request_duration_seconds": (
        "Time of successful requests from arrival to answer, in seconds",
        "request",
        "success_ns",
    ),
    "sluice_queue_duration_seconds": (
        "Time that successful requests waited in the queue, in seconds",
        "queue",
        "queue_ns",
    ),
    "sluice_gather_duration_seconds": ("Time that gathering a batch's inputs took, in seconds", "gather", "gather_ns"),
    "sluice_run_duration_seconds": ("Time that running a batch took, in seconds", "run", "run_ns"),
    "sluice_encode_duration_seconds": ("Time that encoding a batch's replies took, in seconds", "encode", "encode_ns"),
}


def describe_models(versions: Iterable[VersionStatistics]) -> list[Family]:
    """The families, with a sample for each version.

    A version that has not run yet has none of ours: with thousands of models most samples would say nothing.
    """
    counters, cached = make_counters(COUNTERS), make_counters(CACHE_COUNTERS)
    failures, refusals, dispatches = (Family(name, "counter", text) for name, text in (FAILURES, REFUSALS, DISPATCHES))
    pending, sequences = (Family(name, "gauge", text) for name, text in (PENDING, SEQUENCES))
    histograms = [
        (Family(name, "histogram", meaning), phase, total) for name, (meaning, phase, total) in HISTOGRAMS.items()
    ]
    for version in versions:
        labels = format_labels({"model": version.name, "version": str(version.version)})
        for family, read in counters:
            family.add(read(version.counts), labels)
        _add_reasons(failures, labels, count_failures(version.counts))
        pending.add(version.queued, labels)
        if version.counts["cache_hits"] or version.counts["cache_misses"]:
            for family, read in cached:
                family.add(read(version.counts), labels)
        if version.sequences is not None:
            sequences.add(version.sequences, labels)
        if version.counts["executions"]:
            _add_reasons(refusals, labels, count_refusals(version.counts))
            _add_reasons(dispatches, labels, version.dispatches)
            for family, phase, total in histograms:
                family.add_histogram(BOUNDS_S, version.histograms[phase], version.counts[total] / NS_PER_S, labels)
    ours = [refusals, dispatches, *(family for family, _, _ in histograms)]
    return [*(family for family, _ in (*counters, *cached)), failures, pending, sequences, *ours]


def make_counters(table: dict[str, Counter]) -> list[tuple[Family, Callable[[dict[str, int]], int]]]:
    """An empty family of each of a table's counters, and how to read it."""
    return [(Family(name, "counter", meaning), read) for name, (meaning, read) in table.items()]


def _add_reasons(family: Family, labels: str, counts: Mapping[str, int]) -> None:
    for reason, count in counts.items():
        family.add(count, f'{labels},reason="{reason}"')


def describe_loads(entries: Iterable[ModelVersion]) -> list[Family]:
    """How long it took to load each version that serves."""
    family = Family(LOADS[0], "gauge", LOADS[1])
    for entry in entries:
        if entry.state is State.READY and not entry.is_dormant:
            family.add(entry.load_s, format_labels({"model": entry.name, "version": str(entry.version)}))
    return [family]
