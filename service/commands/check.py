"""`sluice check`: what a server would make of a model repository, without serving it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kernels.session import TensorSpec
    from service.repository_check import Finding

COLUMNS = ("model", "version", "verdict", "labels", "batch", "inputs", "outputs")


def check(
    repository: Annotated[Path, typer.Argument(help="Folder that holds the models.", metavar="REPO")],
    default_max_batch_size: Annotated[
        int, typer.Option(help="As the server's setting of that name.", min=0, max=65536)
    ] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Load every model version of a repository as a server would, warm-up included, and say what comes of it.

    The exit code is 1 when a version is refused or the repository cannot be read.
    """
    from kernels.runtime import RuntimeLibraryError
    from service.model_folders import ModelFolderError
    from service.repository_check import REFUSED, check_repository

    try:
        findings = list(check_repository(repository, default_max_batch_size))
    except (ModelFolderError, RuntimeLibraryError) as error:
        typer.echo(f"sluice check: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(
        json.dumps([describe_finding(one) for one in findings], indent=2) if as_json else format_findings(findings)
    )
    if any(finding.verdict == REFUSED for finding in findings):
        raise typer.Exit(1)


def describe_finding(finding: "Finding") -> dict[str, object]:
    """One row of the JSON: what does not apply is left out."""
    row: dict[str, object] = {"model": finding.model, "version": finding.version, "verdict": finding.verdict}
    if finding.labels:
        row["labels"] = list(finding.labels)
    if finding.config is not None:
        row["max_batch_size"] = finding.config.max_batch_size
        for side, specs in (("inputs", finding.config.inputs), ("outputs", finding.config.outputs)):
            row[side] = [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs]
    if finding.without_effect:
        row["without_effect"] = list(finding.without_effect)
    if finding.reason:
        row["reason"] = finding.reason
    return row


def format_findings(findings: "list[Finding]") -> str:
    """A table of the versions; below it, why those that are refused are, and which fields would change nothing."""
    from service.commands.certs import format_table

    if not findings:
        return "no models"
    notes = [f"{_name(one)}: {one.reason}" for one in findings if one.reason]
    notes += [f"{_name(one)}: {', '.join(one.without_effect)}: no effect" for one in findings if one.without_effect]
    return "\n".join([*format_table([COLUMNS, *map(_row, findings)]), *([""] if notes else []), *notes])


def _name(finding: "Finding") -> str:
    return f"{finding.model} {finding.version or '-'}"


def _row(finding: "Finding") -> tuple[str, ...]:
    config = finding.config
    tensors = (_format_tensors(config.inputs), _format_tensors(config.outputs)) if config else ("-", "-")
    batch = str(config.max_batch_size) if config else "-"
    version = str(finding.version or "-")
    return finding.model, version, finding.verdict, ", ".join(finding.labels) or "-", batch, *tensors


def _format_tensors(specs: "tuple[TensorSpec, ...]") -> str:
    return ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in specs) or "-"
