"""The kernels' counters of model versions as the protocol's ModelStatistics."""

from kernels.engine import Engine
from kernels.statistics import BatchCounts, VersionStatistics
from service.pb import open_inference_pb2 as pb
from service.repository import ModelVersion, Repository, State


def read_statistics(
    engine: Engine, repository: Repository, name: str = "", version: str = ""
) -> list[VersionStatistics]:
    """The counters of every version that serves, of one model, or of one version; by name and then by number.

    Raises
    ------
    InvalidArgumentError, NotFoundError, UnavailableError
        The model or version that was named, as Repository.find_ready says.
    """
    if version or (name and not _list_ready(repository.list_versions(name))):
        # One that does not serve has no counters, and says why it does not.
        entries = [repository.find_ready(name, version)]
    else:
        entries = _list_ready(repository.list_versions(name) if name else repository.index())
    return [read for entry in entries if (read := _read_version(engine, entry)) is not None]


def _list_ready(entries: list[ModelVersion]) -> list[ModelVersion]:
    return [entry for entry in entries if entry.state is State.READY]


def _read_version(engine: Engine, entry: ModelVersion) -> VersionStatistics | None:
    """None for one that has been unloaded a moment ago."""
    try:
        return engine.read_statistics(entry.name, entry.version)
    except KeyError:
        return None


def count_refusals(counts: dict[str, int]) -> dict[str, int]:
    """Requests that the queue did not take or gave up, by our reason; Triton has one for all."""
    return {
        "full": counts["rejected"],
        "late": counts["late"],
        "deadline": counts["expired"],
        "timeout": counts["timed_out"],
    }


def count_failures(counts: dict[str, int]) -> dict[str, int]:
    """Requests that got an error, by Triton's reason."""
    return {
        "REJECTED": sum(count_refusals(counts).values()),
        "CANCELED": counts["cancelled"],
        "BACKEND": counts["failed"],
        "OTHER": counts["refused"],
    }


def describe_version(read: VersionStatistics) -> pb.ModelStatistics:
    """The message about one version."""
    counts = read.counts
    computed = counts["success"] - counts["cache_hits"]
    return pb.ModelStatistics(
        name=read.name,
        version=str(read.version),
        last_inference=counts["last_inference_ms"],
        inference_count=counts["rows"],
        execution_count=counts["executions"],
        inference_stats=pb.InferStatistics(
            success=_duration(counts["success"], counts["success_ns"]),
            fail=_duration(sum(count_failures(counts).values()), counts["failure_ns"]),
            queue=_duration(counts["success"], counts["queue_ns"]),
            compute_input=_duration(computed, counts["request_gather_ns"]),
            compute_infer=_duration(computed, counts["request_run_ns"]),
            compute_output=_duration(computed, counts["request_encode_ns"]),
            cache_hit=_duration(counts["cache_hits"], counts["cache_hit_ns"]),
            cache_miss=_duration(counts["cache_misses"], counts["cache_miss_ns"]),
        ),
        batch_stats=map(_describe_batch, read.batches),
    )


def _describe_batch(batch: BatchCounts) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=batch.rows,
        compute_input=_duration(batch.executions, batch.gather_ns),
        compute_infer=_duration(batch.executions, batch.run_ns),
        compute_output=_duration(batch.executions, batch.encode_ns),
    )


def _duration(count: int, ns: int) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=ns)
