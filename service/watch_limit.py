"""Whether this machine lets an Envoy watch as many files as a gateway has."""

from collections.abc import Iterable
from pathlib import Path

from service.envoy_check import FOLDER, GatewayError

LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
# Envoy 1.40 takes an instance for each file of servers, and so many for all other files together; too few abort it.
OTHER_WATCHES = 12


def check_watches(paths: Iterable[str], limit_file: Path = LIMIT) -> None:
    """Raise GatewayError when the files of a gateway, by their path in the state folder, are too many to be watched."""
    needed = sum(path.startswith(f"{FOLDER}/endpoints/") for path in paths) + OTHER_WATCHES
    limit = int(limit_file.read_text())
    if needed > limit:
        raise GatewayError(
            f"Envoy needs {needed} instances of inotify for so many versions, and a user may have {limit} here; type: "
            f"sysctl fs.inotify.max_user_instances={2 * needed + limit}"
        )
