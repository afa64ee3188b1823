"""The commands that the demonstration prints: each can be pasted into a shell, in the folder where it was started."""

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from service.demo.digits import MAX_LEVEL
from service.demo.samples import Sample
from service.demo.training import MODEL
from service.deployment import runtime_key
from service.plan import GATEWAY, Plan

# The oldest whose protobuf is not years old.
TRITONCLIENT = (2, 70)
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"

GENERATED_STUBS = """\
{python} - <<'END'
import grpc, numpy
from service.pb import open_inference_pb2 as messages, open_inference_pb2_grpc as stubs

def read(path):
    with open(path, "rb") as file:
        return file.read()

credentials = grpc.ssl_channel_credentials(
    read({authority}), read({key}), read({certificate}))
with grpc.secure_channel({gateway}, credentials) as channel:
    scan = numpy.load({array_file})
    request = messages.ModelInferRequest(model_name={model}, raw_input_contents=[scan.tobytes()])
    request.inputs.add(name="input", datatype="FP32", shape=scan.shape)
    answer = stubs.GRPCInferenceServiceStub(channel).ModelInfer(request)
    label = numpy.frombuffer(answer.raw_output_contents[0], numpy.int64)[0]
    print(f"version {{answer.model_version}} reads a scan of {label} as {{label}}")
END"""

TRITON_CLIENT = """\
{python} - <<'END'
import numpy
from tritonclient.grpc import InferenceServerClient, InferInput

client = InferenceServerClient(
    {gateway}, ssl=True, root_certificates={authority},
    private_key={key}, certificate_chain={certificate})
scan = numpy.load({array_file})
image = InferInput("input", scan.shape, "FP32")
image.set_data_from_numpy(scan)
answer = client.infer({model}, [image])
print(f"version {{answer.get_response().model_version}} reads a scan of {label} as {{answer.as_numpy('label')[0]}}")
END"""


@dataclass(frozen=True)
class Snippet:
    """A command for a shell, and what it shows."""

    title: str
    command: str


def list_snippets(plan: Plan, sample: Sample) -> list[Snippet]:
    """Every command, for a deployment that runs as planned."""
    files = {"authority": "gateway-ca.pem", "certificate": "client.pem", "key": "client.key"}
    values = {name: json.dumps(show_path(plan.certificates / file)) for name, file in files.items()}
    values |= {
        "gateway": json.dumps(str(plan.gateway)),
        "array_file": json.dumps(show_path(sample.array_file)),
        "model": json.dumps(MODEL),
        "label": sample.label,
    }
    return [
        Snippet("a Python client with the generated stubs", GENERATED_STUBS.format(python=quote(_python()), **values)),
        _show_tritonclient(plan, values),
        *_show_grpcurl(plan, sample),
        _show_sluice(plan, sample),
        _show_shift(plan),
    ]


def show_path(path: Path) -> str:
    """The path as it is typed from here: relative where it lies below the working directory."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


def _show_tritonclient(plan: Plan, values: Mapping[str, object]) -> Snippet:
    """With this interpreter where it has the package, else with one of its own: its protobuf is an older one."""
    python, setup = quote(_python()), ""
    if not _has_tritonclient():
        folder = show_path(plan.state_folder / "tritonclient")
        wanted = ".".join(map(str, TRITONCLIENT))
        python = quote(f"{folder}/bin/python")
        setup = f"{quote(_python())} -m venv {quote(folder)}\n"
        setup += f"{python} -m pip install --quiet 'tritonclient[grpc]>={wanted}'\n"
    return Snippet("tritonclient, unchanged", setup + TRITON_CLIENT.format(python=python, **values))


def _has_tritonclient() -> bool:
    try:
        numbers = importlib.metadata.version("tritonclient").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(map(int, numbers)) >= TRITONCLIENT


def _show_grpcurl(plan: Plan, sample: Sample) -> list[Snippet]:
    program, setup, advice = _find_grpcurl(plan)
    folder = show_path(plan.certificates)
    files = {"-cacert": "gateway-ca.pem", "-cert": "client.pem", "-key": "client.key"}
    call = " ".join([program, *(f"{flag} {quote(f'{folder}/{file}')}" for flag, file in files.items())])
    inputs = {"name": "input", "datatype": "FP32", "shape": [1, 64]}
    inputs["contents"] = {"fp32_contents": [int(level) for level in sample.image.ravel()]}
    request = quote(json.dumps({"model_name": MODEL, "inputs": [inputs]}, separators=(",", ":")))
    service = "inference.GRPCInferenceService"
    health = quote(json.dumps({"service": MODEL}))
    return [
        Snippet(
            f"grpcurl, by reflection: no proto files needed{advice}",
            f"{setup}{call} {plan.gateway} list\n{call} {plan.gateway} describe {service}",
        ),
        Snippet(
            "grpcurl, inference and health; the outputs are raw bytes, which JSON carries in base64",
            f"{call} -d {request} {plan.gateway} {service}/ModelInfer\n"
            f"{call} -d {health} {plan.gateway} grpc.health.v1.Health/Check",
        ),
    ]


def _find_grpcurl(plan: Plan) -> tuple[str, str, str]:
    """How it is called, what to type before when it is not installed, and where it comes from when Go is not either."""
    if shutil.which("grpcurl"):
        return "grpcurl", "", ""
    if not shutil.which("go"):
        return "grpcurl", "", " (it is not installed; https://github.com/fullstorydev/grpcurl/releases has it)"
    folder = show_path(plan.state_folder / "bin")
    path = quote(folder) if os.path.isabs(folder) else f'"$PWD"/{quote(folder)}'
    return quote(f"{folder}/grpcurl"), f"GOBIN={path} go install {GRPCURL}\n", ""


def _show_sluice(plan: Plan, sample: Sample) -> Snippet:
    where = "" if plan.gateway == GATEWAY else f" --url {plan.gateway}"
    folder = show_path(plan.state_folder)
    where += "" if folder == ".sluice" else f" --state-dir {quote(folder)}"
    picture = f"--image {quote(show_path(sample.picture_file))} --image-range 0:{MAX_LEVEL}"
    sluice = quote(_program("sluice"))
    return Snippet("sluice itself", f"{sluice} models{where}\n{sluice} infer {MODEL} {picture}{where}")


def _show_shift(plan: Plan) -> Snippet:
    folder = show_path(plan.certificates)
    files = {"--cacert": "gateway-ca.pem", "--cert": "operator.pem", "--key": "operator.key"}
    options = " ".join(f"{flag} {quote(f'{folder}/{file}')}" for flag, file in files.items())
    weights = "&".join(f"{runtime_key(MODEL, number)}={weight}" for number, weight in {1: 20, 2: 80}.items())
    url = quote(f"https://{plan.operator}/runtime_modify?{weights}")
    return Snippet(
        "shift the traffic to 20/80 through Envoy's admin, as an operator", f"curl --silent {options} -X POST {url}"
    )


def _python() -> str:
    return show_path(Path(sys.executable))


def _program(name: str) -> str:
    """A console script: by its name where the shell finds it, else beside the interpreter."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) or not beside.exists() else show_path(beside)
