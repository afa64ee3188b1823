"""What the kernels count of the response cache: Triton's metrics of each model version, and ours of the whole."""

from collections.abc import Callable, Mapping

from service.exposition import Family

NS_PER_US = 1_000

# Of versions that have looked for a request in the cache: Triton's names, each with its meaning and what it is of a
# version's counters.
CACHE_COUNTERS: dict[str, tuple[str, Callable[[dict[str, int]], int]]] = {
    "nv_cache_num_hits_per_model": ("Number of response cache hits per model", lambda c: c["cache_hits"]),
    "nv_cache_num_misses_per_model": ("Number of response cache misses per model", lambda c: c["cache_misses"]),
    "nv_cache_hit_duration_per_model": (
        "Total time of looking up response cache hits per model, in microseconds",
        lambda c: c["cache_hit_ns"] // NS_PER_US,
    ),
    "nv_cache_miss_duration_per_model": (
        "Total time of looking up and keeping response cache misses per model, in microseconds",
        lambda c: c["cache_miss_ns"] // NS_PER_US,
    ),
}
# Ours, each with the kernels' name of what the cache holds.
CACHE_USAGE = {
    "sluice_response_cache_max_bytes": ("gauge", "Most bytes of replies that the response cache keeps", "max_bytes"),
    "sluice_response_cache_bytes": ("gauge", "Bytes of replies that it keeps now", "bytes"),
    "sluice_response_cache_entries": ("gauge", "Replies that it keeps now", "entries"),
    "sluice_response_cache_evictions_total": ("counter", "Replies that had to make room for others", "evictions"),
}


def describe_cache(usage: Mapping[str, int]) -> list[Family]:
    """What the response cache holds; nothing where there is none."""
    families = []
    if usage["max_bytes"]:
        for name, (kind, meaning, key) in CACHE_USAGE.items():
            families.append(Family(name, kind, meaning))
            families[-1].add(usage[key])
    return families
