"""docs/observing.md names every metric, and no other."""

import re
from pathlib import Path

from service import lazy_loading
from service.cache_metrics import describe_cache
from service.gpu_metrics import METRICS as GPU_METRICS
from service.machine_metrics import MachineMetrics
from service.model_metrics import describe_loads, describe_models
from service.transport_metrics import METRICS, describe_transport

GUIDE = Path(__file__).parents[2] / "docs" / "observing.md"


def test_guide_names_every_metric_that_is_exposed():
    """What a scrape can hold is in a table, with its meaning."""
    traffic = dict.fromkeys((number for _, _, number in METRICS.values()), 0)
    families = [*describe_models([]), *describe_loads([]), *MachineMetrics().describe(), *describe_transport(traffic)]
    families += describe_cache(dict.fromkeys(("max_bytes", "bytes", "entries", "evictions"), 1))
    documented = re.findall(r"^\| `([a-z_]+)` \|", GUIDE.read_text(), re.MULTILINE)
    metrics = [name for name in documented if name.startswith(("nv_", "sluice_", "process_"))]
    names = [*(family.name for family in families), *(name for name, _, _, _ in GPU_METRICS), *lazy_loading.METRICS]
    assert sorted(metrics) == sorted(names)
