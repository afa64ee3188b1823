"""A model changes while Triton's clients call it in every way: no call fails; run in another process.

The environment's ADDRESS says whom to call, REPOSITORY where the server's models lie, SPARE where the versions to come
do, and MODE how the server learns of them.
"""

import asyncio
import itertools
import os
import queue
import shutil
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async

ADDRESS = os.environ["ADDRESS"]
MODEL = Path(os.environ["REPOSITORY"], "adder")
SPARE = Path(os.environ["SPARE"], "adder")
IS_POLLED = os.environ["MODE"] == "poll"
TIMEOUT_S = 60
OFFSET = 10**12


def ask(nonce):
    """A request that nobody else makes, of whatever version is the newest."""
    tensor = triton.InferInput("input", [1, 4], "INT64")
    tensor.set_data_from_numpy(np.full((1, 4), nonce, np.int64))
    return {"model_name": "adder", "inputs": [tensor], "request_id": str(nonce)}


class Traffic:
    """Callers that never pause; counts right answers by version and keeps what was wrong."""

    def __init__(self):
        self._changed = threading.Condition()
        self._is_over = False
        self._threads = [threading.Thread(target=way) for way in (self._infer, self._stream, self._run_asyncio)]
        self.versions = Counter()
        self.wrong = []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_over = True
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def record(self, way, nonce, result, error):
        """Take what came of a request."""
        version = None
        if error is None:
            version = int(result.get_response().model_version)
            expected = [[nonce + version * OFFSET] * 4]
            if result.get_response().id != str(nonce) or result.as_numpy("output").tolist() != expected:
                error = "another's answer"
        with self._changed:
            if error is None:
                self.versions[way, version] += 1
            else:
                self.wrong.append((way, str(error)))
            self._changed.notify_all()

    def await_version(self, version, count=50):
        """Return once every way has been answered so often by a version; none has failed."""
        ways = ("infer", "stream", "asyncio", "asyncio stream")
        with self._changed:
            assert self._changed.wait_for(
                lambda: self.wrong or all(self.versions[way, version] >= count for way in ways), TIMEOUT_S
            ), self.versions
            assert self.wrong == []

    def _infer(self):
        with triton.InferenceServerClient(ADDRESS) as client:
            for nonce in itertools.takewhile(lambda _: not self._is_over, itertools.count()):
                try:
                    self.record("infer", nonce, client.infer(**ask(nonce)), None)
                except triton.InferenceServerException as error:
                    self.record("infer", nonce, None, error)

    def _stream(self):
        answers = queue.SimpleQueue()
        with triton.InferenceServerClient(ADDRESS) as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            for nonce in itertools.takewhile(lambda _: not self._is_over, itertools.count()):
                client.async_stream_infer(**ask(nonce))
                self.record("stream", nonce, *answers.get(timeout=TIMEOUT_S))
            client.stop_stream()

    def _run_asyncio(self):
        asyncio.run(self._call_asyncio())

    async def _call_asyncio(self):
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            callers = [self._infer_asyncio(client, place) for place in range(4)]
            await asyncio.gather(*callers, self._stream_asyncio(client))

    async def _infer_asyncio(self, client, place):
        for nonce in itertools.takewhile(lambda _: not self._is_over, itertools.count(place, 4)):
            try:
                self.record("asyncio", nonce, await client.infer(**ask(nonce)), None)
            except triton.InferenceServerException as error:
                self.record("asyncio", nonce, None, error)

    async def _stream_asyncio(self, client):
        async def requests():
            for nonce in itertools.takewhile(lambda _: not self._is_over, itertools.count()):
                yield ask(nonce)

        nonces = itertools.count()
        async for result, error in client.stream_infer(requests()):
            self.record("asyncio stream", next(nonces), result, error)


@pytest.fixture
def change():
    """Change the repository as operators do, and have the server know."""
    with triton.InferenceServerClient(ADDRESS) as client:

        def bring(version):
            # As a whole, so that nobody sees half of a file.
            shutil.copytree(SPARE / version, MODEL / f".{version}")
            (MODEL / f".{version}").rename(MODEL / version)
            if not IS_POLLED:
                client.load_model("adder")

        yield bring


def test_versions_come_while_traffic_flows(change):
    """Each is answered from as soon as it is there; unary and streaming callers notice nothing else."""
    with Traffic() as traffic:
        traffic.await_version(1)
        for version in (2, 3, 4):
            change(str(version))
            traffic.await_version(version)
            # The policy serves one version; the one before is gone.
            before = traffic.versions["infer", version - 1]
            traffic.await_version(version, count=100)
            assert traffic.versions["infer", version - 1] == before
    assert traffic.wrong == []
