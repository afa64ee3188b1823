"""A server that answers every call with the bytes it came with: grpcio's asyncio server on uvloop, and nothing else.

What a server on that transport cannot be cheaper than. With three PEM files (certificate, key, the clients' authority)
it speaks mTLS.
"""

import json
import sys
from pathlib import Path

import grpc
import uvloop


async def echo(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
    """Answer with the message."""
    return message


async def serve(files: list[str]) -> None:
    """Serve on a free port until the process is ended; prints the address when ready."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_registered_method_handlers("inference.GRPCInferenceService", methods)
    if files:
        certificate, key, authority = (Path(file).read_bytes() for file in files)
        credentials = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"event": "ready", "address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1:]))
