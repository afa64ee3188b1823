"""Runs grpcio's asyncio server in a thread, so that a test can call it with any client."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

TIMEOUT_S = 30


@dataclass
class RunningServer:
    """A server on a free port and the loop that it runs in."""

    address: str
    server: grpc.aio.Server
    loop: asyncio.AbstractEventLoop

    def call(self, coroutine, timeout_s=TIMEOUT_S):
        """Run a coroutine in the server's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)


@contextlib.contextmanager
def running_server(register):
    """A server with the services that `register(server)` adds, within its running loop; stopped at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="aio-server")
    thread.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            running = asyncio.run_coroutine_threadsafe(_start(register, pool, loop), loop).result(TIMEOUT_S)
            try:
                yield running
            finally:
                running.call(running.server.stop(grace=0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(register, pool, loop):
    server = grpc.aio.server(migration_thread_pool=pool, options=[("grpc.so_reuseport", 0)])
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return RunningServer(f"127.0.0.1:{port}", server, loop)
