"""What every transport serves."""

from dataclasses import dataclass

from grpc_health.v1 import health_pb2_grpc

from kernels.engine import Engine
from service import health, metadata
from service.guard import Guard
from service.model_control import ModelControl
from service.observing import Observed
from service.pb import open_inference_pb2_grpc
from service.peers import GuardedServer
from service.reflection import add_reflection
from service.repository import Repository


@dataclass(frozen=True)
class Services:
    """The engine, whose methods each transport answers in its own way, and what the other services tell about."""

    engine: Engine
    repository: Repository
    board: health.HealthBoard
    observed: Observed
    control: ModelControl
    guard: Guard | None = None

    def register(
        self, server: GuardedServer, health_servicer: health_pb2_grpc.HealthServicer, *, asynchronous: bool
    ) -> None:
        """Register everything but inference.

        Parameters
        ----------
        health_servicer
            Of the kind that the server runs.
        asynchronous
            Whether the server runs coroutines.
        """
        servicer = metadata.InferenceServicer(
            self.repository, self.board, self.observed, self.engine.shared_memory, self.control
        )
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        add_reflection(server, (metadata.SERVICE_NAME, health.SERVICE_NAME), asynchronous=asynchronous)
