"""Reads back what a running Envoy goes by: which files it has taken, what overrides them, who is healthy and busy."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import yaml

from service.admin import AdminError
from service.envoy_check import FOLDER
from service.traffic import FILE_LAYER, Admin

# The statistics that hold the version of what was taken, by the file's name or its folder's.
VERSION_STATS = {
    "clusters": "cluster_manager.cds.version_text",
    "endpoints": "cluster.{}.version_text",
    "listeners": "listener_manager.lds.version_text",
    "routes": "http.gateway.rds.gateway.version_text",
    "runtime": "runtime.version_text",
    "secrets": "sds.{}.version_text",
}
WARMING_STATS = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")


class RunningGateway:
    """A running Envoy, by its admin; every method raises AdminError when that cannot be reached.

    Parameters
    ----------
    admin
        The way to it: AdminSocket or OperatorListener.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def is_up(self) -> bool:
        """Whether it answers at all."""
        try:
            self._admin.request("GET", "/ready")
        except AdminError as error:
            # One that starts or drains says so with another status.
            return " 503 " in str(error)
        return True

    def find_untaken(self, files: Mapping[str, bytes]) -> list[str]:
        """Of some files, by their path in the state folder, those that it does not go by."""
        taken = self._read_texts()
        watched = {path: stat for path in files if (stat := _name_stat(path))}
        return [path for path, stat in watched.items() if taken.get(stat) != _read_version(files[path])]

    def is_warming(self) -> bool:
        """Whether something that it has taken is not in use yet."""
        return any(self.read_numbers(WARMING_STATS).values())

    def read_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Statistics by name; those that are not there are left out."""
        return self.find_numbers("|".join(map(re.escape, names)))

    def find_numbers(self, pattern: str) -> dict[str, int]:
        """Statistics whose whole name fits a pattern."""
        text = self._admin.request("GET", f"/stats?{urlencode({'filter': f'^({pattern})$', 'type': 'All'})}")
        pairs = (line.rsplit(": ", 1) for line in text.splitlines())
        return {name: int(value) for name, value in pairs if value.isdigit()}

    def read_histogram(self, name: str) -> dict[tuple[float, float], int]:
        """How many values fell between two bounds since the start, as of Envoy's last flush of its statistics."""
        query = {"filter": f"^{re.escape(name)}$", "format": "json", "histogram_buckets": "detailed"}
        stats = json.loads(self._admin.request("GET", f"/stats?{urlencode(query)}"))["stats"]
        details = [each for one in stats for each in one.get("histograms", {}).get("details", ())]
        return {
            (bucket["lower_bound"], bucket["lower_bound"] + bucket["width"]): bucket["count"]
            for detail in details
            for bucket in detail.get("totals", ())
        }

    def count_healthy(self, clusters: Iterable[str]) -> dict[str, int]:
        """How many servers of each cluster are healthy."""
        stats = {f"cluster.{cluster}.membership_healthy": cluster for cluster in clusters}
        return {stats[name]: count for name, count in self.read_numbers(stats).items()}

    def count_calls(self, clusters: Iterable[str]) -> tuple[int, int]:
        """How many calls to some clusters are under way, and how many have begun since the start."""
        names = list(clusters)
        counts = self.read_numbers(
            f"cluster.{name}.upstream_rq_{kind}" for name in names for kind in ("active", "total")
        )
        under_way = sum(count for stat, count in counts.items() if stat.endswith("active"))
        return under_way, sum(counts.values()) - under_way

    def read_overrides(self) -> dict[str, str]:
        """Runtime keys that the admin was given, and that shadow those of the file."""
        runtime: dict[str, Any] = json.loads(self._admin.request("GET", "/runtime?format=json"))
        above = [place for place, layer in enumerate(runtime["layers"]) if layer != FILE_LAYER]
        return {
            key: value
            for key, entry in runtime["entries"].items()
            for place in above
            if (value := entry["layer_values"][place])
        }

    def _read_texts(self) -> dict[str, str]:
        text = self._admin.request("GET", "/stats?type=TextReadouts")
        return {name: value.strip('"') for name, _, value in (line.partition(": ") for line in text.splitlines())}


def _name_stat(path: str) -> str | None:
    """The statistic that holds the version of a file that was taken; None for one that Envoy does not watch."""
    kind, _, rest = path.removeprefix(f"{FOLDER}/").removesuffix(".yaml").partition("/")
    stat = VERSION_STATS.get(kind)
    # In the names of statistics a colon stands for nothing else; no name of ours has one.
    return stat.format(rest) if stat else None


def _read_version(content: bytes) -> str:
    return str(yaml.safe_load(content.split(b"\n", 1)[0])["version_info"])
