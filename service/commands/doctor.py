"""`sluice doctor`: what this machine has for running models, and for each missing piece the command that brings it."""

import typer

# The provider of ONNX Runtime, and the command that brings it.
GPU_PROVIDERS = {
    "CUDA": ("CUDAExecutionProvider", "pip uninstall -y onnxruntime && pip install 'sluice-serving[gpu]'"),
    "TensorRT": ("TensorrtExecutionProvider", "pip uninstall -y onnxruntime && pip install 'sluice-serving[gpu]'"),
}
DRIVER_REMEDY = "install NVIDIA's driver, and in a container start it with the GPU (docker run --gpus all)"


def doctor() -> None:
    """Say what runs models here: ONNX Runtime, GPUs, their driver, and the libraries that they need.

    The exit code is 0 when models can run on the CPU at least. Nothing is changed.
    """
    from kernels.runtime import RuntimeLibraryError, find_library, runtime_version

    try:
        _say("ONNX Runtime", f"{runtime_version()}  {find_library()}")
    except RuntimeLibraryError as error:
        _say("ONNX Runtime", f"missing: {error}")
        raise typer.Exit(1) from None
    _describe_gpus()
    for provider in GPU_PROVIDERS:
        _describe_provider(provider)


def _describe_gpus() -> None:
    from service.gpus import driver_version, list_gpus, order_like_management

    order_like_management()
    if driver := driver_version():
        _say("driver", driver)
    elif not _has_management():
        _say("driver", "not asked: NVIDIA's management library for Python is missing", "pip install nvidia-ml-py")
    else:
        _say("driver", "missing", DRIVER_REMEDY)
    for gpu in list_gpus():
        _say(f"cuda:{gpu.number}", f"{gpu.name}, {gpu.memory_bytes / 2**30:.1f} GiB")


def _describe_provider(provider: str) -> None:
    """Say whether the library has a provider, and whether what that needs can be loaded."""
    from kernels.cuda_libraries import load_cuda_libraries
    from kernels.providers import available_providers

    name, remedy = GPU_PROVIDERS[provider]
    if name not in available_providers():
        _say(provider, "not in the installed ONNX Runtime", remedy)
        return
    libraries = load_cuda_libraries(provider)
    missing = [library for library in libraries if library.problem]
    _say(provider, f"{len(libraries) - len(missing)} of {len(libraries)} libraries can be loaded")
    for library in libraries:
        _say(f"  {library.name}", library.problem or str(library.path or "the system's"), library.remedy)


def _has_management() -> bool:
    from importlib.util import find_spec

    return find_spec("pynvml") is not None


def _say(subject: str, text: str, remedy: str = "") -> None:
    typer.echo(f"{subject:<14} {text}")
    if remedy:
        typer.echo(f"{'':<14} → {remedy}")
