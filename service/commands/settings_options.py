"""Turns the table of settings into the options of a command."""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from service import settings


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each setting, and --config and --print-settings, and call it with Settings.

    The command's first parameter is the Settings; its others stay options of its own. A wrong setting ends the process
    with 2 and its text; --print-settings prints the outcome and ends with 0.
    """
    _, *others = inspect.signature(command).parameters.values()
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others]

    @functools.wraps(command)
    def run(config: Path | None, print_settings: bool, **options: object) -> None:
        flags = {name: options.pop(name) for name in settings.TABLE}
        try:
            loaded = settings.load_settings(config, os.environ, flags)
        except settings.SettingsError as error:
            typer.echo(f"sluice: {error}", err=True)
            raise typer.Exit(2) from None
        if print_settings:
            typer.echo(settings.format_settings(loaded).rstrip())
            raise typer.Exit
        command(loaded, **options)

    parameters = [*map(_option, settings.TABLE), *_FILE_OPTIONS, *own]
    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _option(name: str) -> inspect.Parameter:
    """The option of one setting; its default is None, so that what was not given can be told from what was."""
    row = settings.TABLE[name]
    repeated = settings.TYPES[name] == tuple[str, ...]
    flag = settings.flag_name(name)
    flags = (f"{flag}/--no-{flag[2:]}",) if settings.TYPES[name] is bool else (flag,)
    default = "" if row.default in (None, ()) else f" (default: {str(row.default).lower()})"
    option = typer.Option(*flags, help=row.metadata["help"] + default, show_default=False, metavar=_metavar(name))
    kind = list[str] | None if repeated else bool | None if settings.TYPES[name] is bool else str | None
    return _parameter(name, Annotated[kind, option])


def _metavar(name: str) -> str | None:
    if kind := settings.TABLE[name].metadata["kind"]:
        return kind
    names = {bool: None, int: "NUMBER", int | None: "NUMBER", float: "NUMBER", str: "TEXT", tuple[str, ...]: "TEXT"}
    return names.get(settings.TYPES[name], "PATH")


def _parameter(name: str, annotation: object, default: object = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_FILE_OPTIONS = (
    _parameter(
        "config",
        Annotated[Path | None, typer.Option("--config", help="TOML file with settings (also SLUICE_CONFIG).")],
    ),
    _parameter(
        "print_settings",
        Annotated[bool, typer.Option("--print-settings", help="Print every setting and where it came from, and stop.")],
        False,
    ),
)
