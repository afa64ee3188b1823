"""`sluice infer`: runs a model once, on inputs from files or the command line."""

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands import connection_options as options

if TYPE_CHECKING:
    import numpy as np

    from service.client import Client, Inference
    from service.model_inputs import Declared

COLUMNS = ("output", "datatype", "shape", "values")
# Of an output with more elements, the table shows the first and the last.
SHOWN_ELEMENTS = 32


def infer(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="Value of an input: @FILE.npy, @FILE.json, or JSON as it is. Without NAME= for a model of one input. "
            "Repeat it for more inputs.",
        ),
    ] = None,
    npz: Annotated[Path | None, typer.Option(help="File with an array for each input, by name.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture for the one input without another value.")] = None,
    image_range: Annotated[
        str | None,
        typer.Option(metavar="BLACK:WHITE", help="What black and white become; 0:1, or 0:255 for whole numbers."),
    ] = None,
    version: Annotated[str, typer.Option(help="Version of the model; else the gateway or the server chooses.")] = "",
    url: options.Url = options.DEFAULT_URL,
    state_dir: options.StateDir = options.DEFAULT_STATE_DIR,
    ca: options.Authority = None,
    cert: options.Certificate = None,
    key: options.Key = None,
    insecure: options.Insecure = False,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Run a model once and print its outputs.

    Goes through the gateway of the deployment in the working directory if nothing else is said. Values get the model's
    datatypes, and a batch dimension where only that is missing.
    """
    from service.client import ClientError
    from service.model_inputs import InputError, read_inputs
    from service.tensors import TensorError

    values = _parse_range(image_range)
    try:
        with options.open_client(
            url, state_dir=state_dir, ca=ca, cert=cert, key=key, insecure=insecure, timeout=timeout
        ) as client:
            declared = _ask_inputs(client, model, version)
            arrays = read_inputs(declared, inputs or (), npz, image, values)
            datatypes = {one.name: one.datatype for one in declared}
            answer = client.infer(model, arrays, version=version, datatypes=datatypes)
    except (ClientError, InputError, TensorError) as error:
        typer.echo(f"sluice infer: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(format_json(answer) if as_json else format_answer(answer))


def _parse_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        black, white = map(float, text.split(":"))
    except ValueError:
        raise typer.BadParameter(f"expected BLACK:WHITE, given {text!r}", param_hint="--image-range") from None
    return black, white


def _ask_inputs(client: "Client", model: str, version: str) -> "list[Declared]":
    from service.model_inputs import Declared

    metadata = client.describe_model(model, version)
    return [Declared(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in metadata.inputs]


def format_answer(answer: "Inference") -> str:
    """Who answered, and a table of the outputs."""
    from service.commands.certs import format_table

    rows = [
        (name, answer.datatypes[name], str(list(array.shape)), _format_array(array))
        for name, array in answer.outputs.items()
    ]
    return "\n".join([f"{answer.model} version {answer.version}", "", *format_table([COLUMNS, *rows])])


def _format_array(array: "np.ndarray") -> str:
    import numpy as np

    form = {"max_line_width": 10**9, "threshold": SHOWN_ELEMENTS, "separator": ", "}
    if array.dtype.kind == "O":
        array = np.array([_to_text(element) for element in array.ravel()], object).reshape(array.shape)
        return " ".join(np.array2string(array, **form).split("\n"))
    # Without the blanks that align columns: it is one line.
    text = np.array2string(array, precision=4, suppress_small=True, **form)
    return re.sub(r"(?<=\[)\s+|\s+(?=[,\]])", "", " ".join(text.split()))


def format_json(answer: "Inference") -> str:
    """The answer as the protocol's JSON form has it; what JSON has no number for becomes text."""
    outputs = [
        {
            "name": name,
            "datatype": answer.datatypes[name],
            "shape": list(array.shape),
            "data": [_to_json(element) for element in array.ravel().tolist()],
        }
        for name, array in answer.outputs.items()
    ]
    whole = {"model_name": answer.model, "model_version": answer.version, "outputs": outputs}
    return json.dumps(whole, indent=2, ensure_ascii=False)


def _to_json(element: object) -> object:
    if isinstance(element, bytes):
        return _to_text(element)
    if isinstance(element, float) and not math.isfinite(element):
        return "NaN" if math.isnan(element) else "Infinity" if element > 0 else "-Infinity"
    return element


def _to_text(element: bytes) -> str:
    """Text where the bytes are UTF-8; others show as escapes."""
    return element.decode(errors="backslashreplace")
