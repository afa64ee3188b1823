"""The demonstration itself: makes what is missing, runs the deployment, and shifts its traffic under load."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from certs import ensure_certificates
from service.admin import OperatorListener
from service.client import Credentials
from service.demo.digits import DemoError, load_digits
from service.demo.samples import Sample, write_sample
from service.demo.sender import DigitSender, Outcome
from service.demo.snippets import list_snippets, show_path
from service.demo.tally import COLUMNS, count_outcomes, find_problems, format_rows, list_failures
from service.demo.training import MODEL, Manifest, ensure_models
from service.supervisor import Supervisor
from service.traffic import Traffic

FIRST_SPLIT = {1: 90, 2: 10}
SECOND_SPLIT = {1: 50, 2: 50}
# How often every held-out digit is sent: with each split, and before the shift while its sending is under way.
ROUNDS = 5
ROUNDS_BEFORE_SHIFT = 1


class Tour:
    """One walk through the demonstration, told on a console; `prepare` comes first.

    Parameters
    ----------
    supervisor
        Not started yet; its plan has the demonstration's repository, and FIRST_SPLIT as the weights.
    """

    def __init__(self, supervisor: Supervisor, console: Console) -> None:
        self._supervisor = supervisor
        self._plan = supervisor.plan
        self._console = console

    def prepare(self) -> None:
        """Make the certificates, the data and the models that are not there yet. Raises DemoError."""
        issued = ensure_certificates(self._plan.certificates)
        self._say("certificates", f"{'issued' if issued else 'in place'}, {show_path(self._plan.certificates)}")
        with self._console.status("reading the scans ...") as status:
            self._digits = load_digits()
            manifests = ensure_models(
                self._plan.model_repository, self._digits, lambda text: status.update(f"{text} ...")
            )
        self._accuracies = {number: manifest.held_out_accuracy for number, manifest in manifests.items()}
        for number, manifest in manifests.items():
            self._say(f"{MODEL} version {number}", _describe(manifest))

    def start(self) -> None:
        """Start service and gateway. Raises SupervisorError."""
        started_s = time.monotonic()
        with self._console.status("starting the service and the gateway ..."):
            self._supervisor.start()
        self._say("gateway", f"{self._plan.gateway}, mTLS, up after {time.monotonic() - started_s:.1f} s")

    def show_shift(self) -> None:
        """Send, shift traffic in the midst of sending, send on; DemoError when anything is not as it should be."""
        scans = self._digits.held_out
        credentials = Credentials.of_state(self._plan.state_folder)
        with DigitSender(str(self._plan.gateway), credentials, scans) as sender:
            sender.connect()
            self._judge(self._send(sender, ROUNDS * len(scans)), FIRST_SPLIT)
            self._judge(self._send_across_shift(sender, len(scans)), SECOND_SPLIT)

    def show_snippets(self) -> None:
        """Print the commands to paste."""
        self._console.print("\nPaste in another terminal, in this folder:", style="bold")
        for snippet in list_snippets(self._plan, self._write_sample()):
            self._console.print(f"\n# {snippet.title}", style="cyan", highlight=False, soft_wrap=True)
            # As it is: a line that were wrapped could not be pasted.
            self._console.out(snippet.command, highlight=False)

    def _write_sample(self) -> Sample:
        return write_sample(self._digits.held_out, self._plan.state_folder / "samples")

    def _send(self, sender: DigitSender, count: int, **options: object) -> list[Outcome]:
        with self._progress(f"sending {count:,} held-out digits", count) as report:
            return sender.send(count, report, **options)

    def _send_across_shift(self, sender: DigitSender, round_size: int) -> list[Outcome]:
        """Shift while requests are under way; returns what was sent after the shift. Raises DemoError."""
        traffic = Traffic(
            self._supervisor.deployment, OperatorListener.of_state(self._plan.operator, self._plan.certificates)
        )
        times_s: list[float] = []

        def shift() -> None:
            times_s.append(time.monotonic())
            traffic.shift(MODEL, SECOND_SPLIT)
            times_s.append(time.monotonic())

        before = ROUNDS_BEFORE_SHIFT * round_size
        outcomes = self._send(sender, before + ROUNDS * round_size, midway=(before, shift))
        begun_s, ended_s = times_s
        if failures := list_failures(outcomes):
            raise DemoError(f"during the shift {failures[0]}")
        self._say(
            "shift",
            f"{_format_split(FIRST_SPLIT)} → {_format_split(SECOND_SPLIT)} through Envoy's admin in "
            f"{(ended_s - begun_s) * 1000:.0f} ms, amid {len(outcomes):,} requests, none of which failed",
        )
        return [outcome for outcome in outcomes if outcome.started_s >= ended_s]

    def _judge(self, outcomes: Sequence[Outcome], split: Mapping[int, int]) -> None:
        table = Table(title=f"split {_format_split(split)}", title_justify="left")
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for row in format_rows(count_outcomes(outcomes)):
            table.add_row(*row)
        self._console.print(table)
        if problems := find_problems(outcomes, split, self._accuracies):
            raise DemoError("\n".join(problems))

    @contextmanager
    def _progress(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(text, total=total)
            yield lambda done: progress.update(task, completed=done)

    def _say(self, subject: str, text: str) -> None:
        self._console.print(f"[bold]{subject:<17}[/bold] {text}", highlight=False, soft_wrap=True)


def _describe(manifest: Manifest) -> str:
    return (
        f"{manifest.recipe.description}: {manifest.held_out_accuracy:.1%} of {manifest.held_out_scans} held-out right"
    )


def _format_split(split: Mapping[int, int]) -> str:
    return "/".join(map(str, split.values()))
