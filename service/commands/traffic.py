"""`sluice traffic`: shows how a model's traffic is split between its versions, shifts it, and takes shifts back."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.connection_options import DEFAULT_STATE_DIR
from service.commands.traffic_options import StateDir, at_place

if TYPE_CHECKING:
    from service.shift_run import Progress
    from service.traffic_change import PlannedChange
    from service.traffic_place import TrafficPlace

traffic = typer.Typer(
    no_args_is_help=True,
    help="Show how a model's traffic is split between its versions, shift it, and take shifts back.",
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
OpenPlace = Callable[[], "TrafficPlace"]
ForGood = Annotated[bool, typer.Option("--for-good", help="Also in the file that Envoy reads when it starts again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would change, and change nothing.")]
UnhealthyToo = Annotated[
    bool, typer.Option("--unhealthy-too", help="Give traffic to versions without a healthy server as well.")
]


@traffic.command("show")
@at_place
def show(
    open_place: OpenPlace,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="All models if none is given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show each version's weight: declared, lasting, set by an operator, and the one in force; and who is healthy."""
    from service.commands.traffic_view import ModelTraffic, describe_traffic, format_traffic
    from service.running_gateway import RunningGateway
    from service.shadow_traffic import read_shadow
    from service.version_counters import read_counters

    with _explaining("show"):
        opened = open_place().open()
        gateway, shown = RunningGateway(opened.admin), []
        for name in [model] if model is not None else opened.deployment.models:
            layers = opened.read_layers(name)
            counters = read_counters(gateway, name, layers.declared)
            shown.append(ModelTraffic(name, layers, counters, read_shadow(opened, name)))
        typer.echo(json.dumps(describe_traffic(shown), indent=2) if as_json else format_traffic(shown))


@traffic.command("set")
@at_place
def set_weights(
    open_place: OpenPlace,
    model: Model,
    weights: Annotated[str, typer.Argument(metavar="VERSION=WEIGHT,...", help="Relative weights, as in 1=90,2=10.")],
    only: Annotated[bool, typer.Option("--only", help="Versions that are not named get 0.")] = False,
    for_good: ForGood = False,
    dry_run: DryRun = False,
    unhealthy_too: UnhealthyToo = False,
) -> None:
    """Set weights at once, until Envoy ends. Versions that are not named keep theirs, unless --only is given.

    Prints each version's share before and after. What cannot be is refused with exit code 1, and nothing is changed.
    """
    from service.deployment import parse_split

    with _explaining("set"):
        _change(open_place(), dry_run, model, parse_split(weights), for_good, unhealthy_too, is_only=only)


@traffic.command("pin")
@at_place
def pin(
    open_place: OpenPlace,
    model: Model,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version that is to get all traffic.")],
    for_good: ForGood = False,
    dry_run: DryRun = False,
    unhealthy_too: UnhealthyToo = False,
) -> None:
    """Give one version all of a model's traffic at once, but for calls that name another; `undo` takes it back."""
    from service.model_routing import WHOLE

    with _explaining("pin"):
        what = f"pin {version}"
        _change(open_place(), dry_run, model, {version: WHOLE}, for_good, unhealthy_too, is_only=True, what=what)


@traffic.command("shadow")
@at_place
def shadow(
    open_place: OpenPlace,
    model: Model,
    share: Annotated[
        str,
        typer.Argument(
            metavar="VERSION=PERCENT",
            help="How many of the calls are copied to the shadow, as in 3=5; 'declared' for as many as the file says.",
        ),
    ],
) -> None:
    """Set at once, until Envoy ends, how much of a model's traffic is copied to its shadow.

    Which version that is, the deployment file says. `show` tells what became of the copies.
    """
    from service.commands.traffic_view import describe_shadow
    from service.shadow_traffic import ShadowTraffic, parse_share

    with _explaining("shadow"):
        place = open_place()
        with place.lock():
            opened = place.open()
            shadows = ShadowTraffic(opened.deployment, opened.admin)
            shadows.set_percent(model, parse_share(share, shadows.read(model)))
            typer.echo(describe_shadow(model, shadows.read(model)))


@traffic.command("undo")
@at_place
def undo(
    open_place: OpenPlace,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="That of the last change if not given.")
    ] = None,
    dry_run: DryRun = False,
    unhealthy_too: UnhealthyToo = False,
) -> None:
    """Put back at once what was before the last change, be it a set, a shift or an undo; also amid a shift.

    An undo is a change as well: a second one takes back the first.
    """
    from service.traffic_change import TrafficChanger

    with _explaining("undo"):
        place = open_place()
        with nullcontext() if dry_run else place.lock():
            changer = TrafficChanger(place)
            planned = changer.plan_undo(model, unhealthy_too=unhealthy_too)
            _preview(planned)
            if not dry_run:
                changer.make(planned)


@traffic.command("history")
def history(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="All models if none is given.")] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the changes that were made from this state folder: when, by whom, what, and how each one ended."""
    import dataclasses

    from service.commands.traffic_view import format_history
    from service.traffic_history import TrafficHistory

    with _explaining("history"):
        changes = [one for one in TrafficHistory(state_dir.resolve()).read() if model in (None, one.model)]
        rows = [dataclasses.asdict(one) for one in changes]
        typer.echo(json.dumps(rows, indent=2) if as_json else format_history(changes))


@traffic.command("shift")
@at_place
def shift(
    open_place: OpenPlace,
    model: Model,
    to: Annotated[
        str,
        typer.Option(
            metavar="VERSION=SHARE,...",
            help="Percent of the model's traffic at the end, as in 2=100; versions that are not named share the rest "
            "as they do now.",
        ),
    ],
    over: Annotated[str, typer.Option(metavar="DURATION", help="How long it takes, as in 90s, 10m or 1h30m.")],
    steps: Annotated[int, typer.Option(help="In how many steps; the last one is watched as long as the others.")] = 10,
    max_errors: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            min=0.0,
            max=100.0,
            help="Go back when more of a gaining version's calls fail in a step. No limit if not given: refusals that "
            "are the callers' own fault count too, and only you know how many of them are usual.",
        ),
    ] = None,
    for_good: ForGood = False,
    dry_run: DryRun = False,
    unhealthy_too: UnhealthyToo = False,
) -> None:
    """Shift traffic step by step and show how each version fares; Ctrl-C stops and leaves the weights where they are.

    Goes back to what was before when a version that gains traffic fails or has no healthy server left; stops when
    somebody else changes the weights.
    """
    from service.duration import parse_duration
    from service.shift_run import ShiftRun
    from service.traffic_change import TrafficChanger
    from service.traffic_shift import parse_shares, plan_shift

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with _explaining("shift"):
        shares, over_s = parse_shares(to), parse_duration(over)
        place = open_place()
        with nullcontext() if dry_run else place.lock_shift(model):
            changer = TrafficChanger(place)
            in_force = changer.traffic.read_weights(model)
            keeps_sum = changer.traffic.deployment.routing_of(model).keeps_versions
            plan = plan_shift(model, in_force, shares, steps=steps, over_s=over_s, in_percent=keeps_sum)
            planned = changer.plan_set(
                model,
                plan.steps[-1],
                is_for_good=for_good,
                unhealthy_too=unhealthy_too,
                what=f"shift --to {to} --over {over} --steps {steps}",
            )
            _preview(planned)
            if not dry_run:
                limit = None if max_errors is None else max_errors / 100
                with _telling(model) as tell:
                    ShiftRun(place, plan, planned, max_errors=limit, tell=tell).run()
                typer.echo(f"\nDone. Take it back with: sluice traffic undo {model}")


def _change(
    place: "TrafficPlace",
    is_dry_run: bool,
    model: str,
    weights: dict[int, int],
    is_for_good: bool,
    unhealthy_too: bool,
    *,
    is_only: bool,
    what: str = "",
) -> None:
    """Preview other weights, and put them in force."""
    from service.traffic_change import TrafficChanger

    with nullcontext() if is_dry_run else place.lock():
        changer = TrafficChanger(place)
        planned = changer.plan_set(
            model, weights, is_only=is_only, is_for_good=is_for_good, unhealthy_too=unhealthy_too, what=what
        )
        _preview(planned)
        if not is_dry_run:
            changer.make(planned)
            typer.echo(f"\nIn force. Take it back with: sluice traffic undo {model}")


def _preview(planned: "PlannedChange") -> None:
    """Print what would change, whether or not it is refused then."""
    from service.commands.traffic_view import format_change
    from service.traffic_change import check_healthy

    typer.echo(format_change(planned))
    check_healthy(planned)


@contextmanager
def _telling(model: str) -> Iterator["Callable[[Progress], None]"]:
    """Shows a shift: on a terminal as a table that is kept fresh, elsewhere a line for each step that is over."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from service.commands.traffic_view import format_progress, format_step

    def tell_line(progress: "Progress") -> None:
        if progress.is_step_over:
            typer.echo(format_step(progress))

    typer.echo()
    try:
        console = Console()
        if not console.is_terminal:
            yield tell_line
            return
        with Live(console=console, auto_refresh=False) as live:
            yield lambda progress: live.update(Text(format_progress(progress)), refresh=True)
    except KeyboardInterrupt:
        typer.echo(
            f"\nStopped; the weights stay as they are. Take the shift back with: sluice traffic undo {model}", err=True
        )
        raise typer.Exit(130) from None


@contextmanager
def _explaining(command: str) -> Iterator[None]:
    """Ends the process with 1 and a line that says why, for all that can be wrong."""
    from service.admin import AdminError
    from service.deployment import DeploymentError
    from service.duration import DurationError
    from service.instance import InstanceError
    from service.traffic_change import TrafficError
    from service.traffic_history import TrafficHistoryError

    try:
        yield
    except (AdminError, DeploymentError, DurationError, InstanceError, TrafficError, TrafficHistoryError) as error:
        typer.echo(f"sluice traffic {command}: {error}", err=True)
        raise typer.Exit(1) from None
