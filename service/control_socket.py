"""Answers `sluice control show` and `apply` on the control plane's socket."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.control_client import SHOW, SOCKET, shorten_path
from service.deployment import DeploymentError
from service.deployment_file import parse_deployment
from service.fleet import Fleet, FleetError
from service.follower import describe

OWNER_ONLY = 0o600
# Of a line: a deployment of thousands of models.
MOST_BYTES = 64 * 2**20

Write = Callable[[dict[str, Any]], None]


async def listen(fleet: Fleet, state_folder: Path) -> asyncio.Server:
    """Answer on the state folder's socket, which its owner alone can open."""
    path = state_folder / SOCKET
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _answer(fleet, json.loads(await reader.readline()), lambda line: writer.write(_encode(line)))
            await writer.drain()
        except (ConnectionError, ValueError):
            # Whoever asked has gone, or is no `sluice`.
            pass
        finally:
            writer.close()

    umask = os.umask(0o777 & ~OWNER_ONLY)
    try:
        with shorten_path(path) as address:
            return await asyncio.start_unix_server(answer, address, limit=MOST_BYTES)
    finally:
        os.umask(umask)


async def _answer(fleet: Fleet, request: dict[str, Any], write: Write) -> None:
    if request["command"] == SHOW:
        followers = [describe(follower) for follower in fleet.followers]
        return write({"halted": fleet.halted, "followers": followers})
    try:
        deployment = parse_deployment(request["deployment"], "deployment", Path.cwd())
        await fleet.apply(
            deployment, lambda stage: write({"stage": stage}), unhealthy_too=request.get("unhealthy_too", False)
        )
    except (DeploymentError, FleetError) as error:
        return write({"error": str(error)})
    return write({"followers": len(fleet.followers)})


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"
