"""The rpcs that tell how models serve and have served, and those that change what is logged and traced."""

from dataclasses import dataclass

import grpc

from kernels.engine import Engine
from service.log_settings import LogSettings
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc
from service.permissions import Permissions
from service.repository import Repository
from service.statistics import describe_version, read_statistics
from service.status import answers
from service.trace_settings import TraceSettings


@dataclass(frozen=True)
class Observed:
    """What the rpcs below tell about, beside the models, and who may change it."""

    engine: Engine
    logs: LogSettings
    traces: TraceSettings
    permissions: Permissions


class ObservingServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """A part of the servicer of GRPCInferenceService."""

    def __init__(self, repository: Repository, observed: Observed):
        self._repository = repository
        self._observed = observed

    @answers
    def ModelConfig(self, request: pb.ModelConfigRequest, context: grpc.ServicerContext):  # noqa: N802, D102
        entry = self._repository.find_described(request.name, request.version)
        return pb.ModelConfigResponse(config=entry.config.proto)

    @answers
    def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: grpc.ServicerContext):  # noqa: N802, D102
        read = read_statistics(self._observed.engine, self._repository, request.name, request.version)
        is_visible = self._observed.permissions.find_visible("statistics", context)
        return pb.ModelStatisticsResponse(model_stats=[describe_version(one) for one in read if is_visible(one.name)])

    @answers
    def LogSettings(self, request: pb.LogSettingsRequest, context: grpc.ServicerContext):  # noqa: N802, D102
        logs = self._observed.logs
        if not request.settings:
            return _describe_logs(logs.read())
        self._observed.permissions.check("log_settings", context)
        return _describe_logs(logs.change({name: _read_value(value) for name, value in request.settings.items()}))

    @answers
    def TraceSetting(self, request: pb.TraceSettingRequest, context: grpc.ServicerContext):  # noqa: N802, D102
        traces = self._observed.traces
        if request.model_name:
            self._repository.list_versions(request.model_name)
        if not request.settings:
            return _describe_traces(traces.read(request.model_name))
        self._observed.permissions.check("trace_settings", context, request.model_name or None)
        wanted = {name: value.value for name, value in request.settings.items()}
        return _describe_traces(traces.change(wanted, request.model_name))


def _read_value(value: pb.LogSettingsRequest.SettingValue) -> bool | int | str | None:
    """None for a value of no type."""
    choice = value.WhichOneof("parameter_choice")
    return None if choice is None else getattr(value, choice)


def _describe_logs(settings: dict[str, bool | int | str]) -> pb.LogSettingsResponse:
    fields = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    described = {
        name: pb.LogSettingsResponse.SettingValue(**{fields[type(value)]: value}) for name, value in settings.items()
    }
    return pb.LogSettingsResponse(settings=described)


def _describe_traces(settings: dict[str, list[str]]) -> pb.TraceSettingResponse:
    described = {name: pb.TraceSettingResponse.SettingValue(value=values) for name, values in settings.items()}
    return pb.TraceSettingResponse(settings=described)
