"""`sluice certs`: shows the deployment's certificates and renews them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from certs import Entry

COLUMNS = ("name", "identity", "issuer", "expires", "days left", "state")


def certs(
    state_dir: Annotated[
        Path, typer.Option(envvar="SLUICE_STATE_DIR", help="Folder of the deployment's state.")
    ] = Path(".sluice"),
    renew: Annotated[
        bool, typer.Option("--renew", help="Issue all but the authorities anew, and make what is missing.")
    ] = False,
) -> None:
    """Show the certificates, who they speak for and when they expire; renew them.

    A running gateway takes renewed certificates at once. The exit code is 1 while one is missing, broken or expired.
    """
    from certs import ensure_certificates, inventory

    directory = state_dir / "certs"
    if renew:
        issued = ensure_certificates(directory, renew=True)
        typer.echo(f"issued {', '.join(issued)} in {directory}\n")
    entries = inventory(directory)
    for line in format_table([COLUMNS, *map(_row, entries)]):
        typer.echo(line)
    if any(entry.state in ("missing", "broken", "expired") for entry in entries):
        typer.echo("\nMake what is missing or expired with: sluice certs --renew", err=True)
        raise typer.Exit(1)


def format_table(rows: list[tuple[str, ...]]) -> list[str]:
    """Align rows of text in columns, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(entry: "Entry") -> tuple[str, ...]:
    expires = f"{entry.expires:%Y-%m-%d %H:%M}Z" if entry.expires else "-"
    days_left = str(entry.days_left) if entry.days_left is not None else "-"
    return entry.name, entry.identity, entry.issuer or "-", expires, days_left, entry.state
