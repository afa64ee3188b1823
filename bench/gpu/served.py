"""A model on a device behind the whole server, on each transport: closed load, and what a part of it takes."""

from pathlib import Path
from typing import Any

from bench.effort import Effort
from bench.gpu.loop import MODEL
from bench.gpu.watch import list_goals, watching
from bench.processes import CORES, LOAD_CORE
from bench.rows import Figure, Goal, Row
from bench.servers import Server, prepare_load, run_sluice

TRANSPORTS = ("native", "grpcio")
CONNECTIONS = 8
CLOSED_S, OPEN_S = 20.0, 15.0
# Of what the closed load reached.
OPEN_LOAD = 0.8
LATENCY_GOAL = 2.0
# Opening a large model, and trying how each of its operators is quickest, may take minutes.
START_TIMEOUT_S = 240.0


def measure_servers(
    folder: Path, message: bytes, conditions: dict[str, Any], batch_s: float, goal: Goal, effort: Effort
) -> list[Row]:
    """A row a transport; the native one is held to the goal.

    Parameters
    ----------
    conditions
        Of the rows of the same model; its `device`, `max_batch_size` and `buffer_sets` are the server's too.
    batch_s
        What the session alone takes for a batch.
    """
    write_config(folder, conditions)
    # The load has a core to itself where there are others.
    cores = set(CORES) - {LOAD_CORE} or set(CORES)
    made = []
    for transport in TRANSPORTS:
        options = (f"--transport={transport}", "--inline=never")
        name = f"sluice-{transport}"
        with run_sluice(
            folder, folder, name=name, options=options, cores=cores, start_timeout_s=START_TIMEOUT_S
        ) as server:
            figures = measure_server(server, message, folder, conditions, batch_s, effort)
        is_held = conditions["device"].startswith("cuda") and transport == "native"
        goals = [goal, Goal("p99_per_batch_time", at_most=LATENCY_GOAL), *list_goals(figures)] if is_held else []
        made.append(Row("gpu_server", figures, {**conditions, "transport": transport}, goals))
    return made


def measure_server(
    server: Server, message: bytes, folder: Path, conditions: dict[str, Any], batch_s: float, effort: Effort
) -> dict[str, Figure]:
    """What the server reaches under closed load, and its latencies at a part of that."""
    batch = conditions["max_batch_size"]
    frame, reply_bytes = prepare_load(server, message, folder)
    load = {"connections": CONNECTIONS, "streams": max((conditions["buffer_sets"] + 2) * batch // CONNECTIONS, 1)}
    closed_s, open_s = effort.pick(CLOSED_S, 1.0), effort.pick(OPEN_S, 1.0)
    with watching() as watch:
        cpu_us, closed = server.measure_calls(frame, reply_bytes, **load, duration_s=closed_s)
    reached = closed.succeeded / closed.seconds
    _, open_ = server.measure_calls(frame, reply_bytes, **load, rate=OPEN_LOAD * reached, duration_s=open_s)
    figures = {
        "rows_per_s": reached,
        "ratio_to_bare": reached * batch_s / batch,
        "cpu_us_per_request": cpu_us,
        "p50_us": open_.latency_us["p50"],
        "p99_us": open_.latency_us["p99"],
        "p99_per_batch_time": open_.latency_us["p99"] / (batch_s * 1e6),
        # A large part of the latency: the generator could not keep up, and the figures above are its own.
        "p99_lateness_us": open_.lateness_us["p99"],
    }
    return {**{name: Figure((float(value),)) for name, value in figures.items()}, **watch.figures()}


def write_config(repository: Path, conditions: dict[str, Any]) -> None:
    """Have the server run the model where the loop ran it, in the same batches."""
    device = conditions["device"]
    kind = "KIND_CPU" if device.startswith("cpu") else f"KIND_GPU gpus: [{device.removeprefix('cuda:')}]"
    sets = f'parameters {{ key: "buffer_sets" value {{ string_value: "{conditions["buffer_sets"]}" }} }}'
    text = f"max_batch_size: {conditions['max_batch_size']}\ninstance_group {{ kind: {kind} }}\n{sets}\n"
    (repository / MODEL / "config.pbtxt").write_text(text)
