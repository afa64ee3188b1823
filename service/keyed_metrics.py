"""What the kernels count of requests with an idempotency key."""

from collections.abc import Mapping

from service.exposition import Family

# Each with its kind, its meaning, and the kernels' name of the number.
METRICS = {
    "sluice_idempotency_max_bytes": ("gauge", "Most bytes of answers that are kept under keys", "max_bytes"),
    "sluice_idempotency_bytes": ("gauge", "Bytes of answers kept under keys, and of requests that run", "bytes"),
    "sluice_idempotency_entries": ("gauge", "Keys whose answer is kept, or whose request runs", "entries"),
    "sluice_idempotency_waiting": ("gauge", "Callers that wait for the run of a request with a key", "waiting"),
    "sluice_idempotency_runs_total": ("counter", "Requests with a key that were run", "runs"),
    "sluice_idempotency_replays_total": ("counter", "Requests answered by what another one was run for", "replays"),
    "sluice_idempotency_conflicts_total": ("counter", "Keys that came with another message", "conflicts"),
    "sluice_idempotency_evictions_total": ("counter", "Answers that had to go before their time", "evictions"),
}


def describe_keyed(usage: Mapping[str, int]) -> list[Family]:
    """What is kept under keys; nothing where no answers are kept."""
    families = []
    if usage["max_bytes"]:
        for name, (kind, meaning, number) in METRICS.items():
            families.append(Family(name, kind, meaning))
            families[-1].add(usage[number])
    return families
