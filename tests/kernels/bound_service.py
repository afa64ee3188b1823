"""A native server whose methods are bound to an engine, and a client of its messages as bytes."""

import grpc

from kernels.grpc_server import Server

SERVICE = "inference.GRPCInferenceService"
WAIT_S = 30


class BoundService:
    """ModelInfer and ModelStreamInfer of an engine on a free port.

    Parameters
    ----------
    options
        Those of kernels.grpc_server.Server.
    """

    def __init__(self, engine, **options):
        self.server = Server(**options)
        for name, streaming in (("ModelInfer", False), ("ModelStreamInfer", True)):
            self.server.bind(f"/{SERVICE}/{name}", engine, version_header="model-version", streaming=streaming)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop(None)

    def connect(self):
        """A channel on a connection of its own."""
        return grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])


def infer_by(channel):
    """ModelInfer as a multicallable of bytes."""
    return channel.unary_unary(f"/{SERVICE}/ModelInfer")
