"""What can happen to a gateway and its servers, at random: faults of servers in one thread, changes in another."""

import dataclasses
import os
import random
import re
import signal
import threading
import time
from contextlib import suppress

from certs import ensure_certificates
from service.admin import AdminError
from service.deployment import Version
from service.envoy_check import find_envoy
from service.gateway_apply import GatewayChange
from service.traffic import Traffic
from tests.end_to_end.deployment_rig import POLL_S
from tests.end_to_end.models import VERSIONS
from tests.service.gateway_rig import START_TIMEOUT_S

MODEL = "adder"
HEALTHY = re.compile(rf"^cluster\.(?:{MODEL}@\d+|service)\.membership_healthy: (\d+)$", re.MULTILINE)


class Faults:
    """Kills, stops and hangs one of two servers after the other, never both at a time, until it is told to end.

    Parameters
    ----------
    seed
        Of what happens to whom.
    """

    def __init__(self, twins, seed):
        self._twins = twins
        self._random = random.Random(seed)
        self._is_over = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._run, name="faults")
        self.happened = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self):
        left = []
        try:
            while not self._is_over.is_set():
                if not left:
                    left = [self._kill, self._end, self._hang]
                    self._random.shuffle(left)
                fault, backend = left.pop(), self._random.choice(self._twins.backends)
                self.happened.append(fault.__name__.strip("_"))
                fault(backend)
                await_healthy(self._twins, 2)
        except BaseException as error:  # raised where the block ends
            self._error = error

    def _kill(self, backend):
        backend.kill()
        self._twins.start_again(backend)

    def _end(self, backend):
        backend.terminate()
        assert backend.wait() == 0
        self._twins.start_again(backend)

    def _hang(self, backend):
        os.kill(backend.pid, signal.SIGSTOP)
        try:
            await_healthy(self._twins, 1)
        finally:
            os.kill(backend.pid, signal.SIGCONT)


class Changes:
    """What an operator does, one thing after another; knows who may answer afterwards."""

    def __init__(self, twins, seed):
        self._twins = twins
        self._random = random.Random(seed)
        self._whole = twins.rig.deployment
        self._declared = self._whole
        self._change = GatewayChange(twins.rig.state_folder, find_envoy(), take_timeout_s=START_TIMEOUT_S)
        self.happened = []
        self._left = []

    def make_one(self):
        """Change something, in force when this returns; the versions that may answer from then on."""
        if not self._left:
            self._left = [
                self._shift,
                self._shift,
                self._declare,
                self._declare,
                self._reload,
                self._renew,
                self._replace,
            ]
            self._random.shuffle(self._left)
        step = self._left.pop()
        self.happened.append(step.__name__.strip("_"))
        step()
        weights = self._traffic.read_weights(MODEL)
        return {str(version) for version, weight in weights.items() if weight > 0}

    @property
    def _traffic(self):
        return Traffic(self._declared, self._twins.rig.operator)

    def _shift(self):
        """Weights by the admin, some of them 0."""
        versions = list(self._declared.versions(MODEL))
        weights = {version: self._random.choice((0, 1, 10)) for version in versions}
        weights[self._random.choice(versions)] = 5
        self._traffic.shift(MODEL, weights)

    def _declare(self):
        """A version comes or goes, or the weights are others."""
        kept = self._random.choice([(1,), (2,), VERSIONS, VERSIONS])
        servers = self._whole.versions(MODEL)[1].endpoints
        versions = {version: Version(self._random.choice((1, 9)), servers) for version in kept}
        # What the admin was given would lie above.
        self._traffic.put_back(MODEL, {})
        self._apply(dataclasses.replace(self._declared, models={**self._whole.models, MODEL: versions}))

    def _reload(self):
        """Listeners and routes change in something that no call here notices."""
        limit = self._random.randrange(10**7, 10**8)
        self._apply(dataclasses.replace(self._declared, max_message_bytes=limit))

    def _renew(self):
        """Certificates of everybody, while everybody is connected."""
        ensure_certificates(self._twins.certificates, renew=True)

    def _replace(self):
        """Another Envoy takes over."""
        self._twins.rig.replace_envoy()

    def _apply(self, deployment):
        assert self._change.apply(deployment)
        self._declared = deployment


def await_healthy(twins, count):
    """Return when the gateway takes so many servers for healthy, in each cluster that there is."""
    deadline, text = time.monotonic() + START_TIMEOUT_S, ""
    while True:
        # Between an Envoy's admin and its successor's there is none.
        with suppress(AdminError):
            text = twins.rig.admin.request("GET", "/stats?filter=membership_healthy")
            if {int(found) for found in HEALTHY.findall(text)} == {count}:
                return
        assert time.monotonic() < deadline, text
        time.sleep(POLL_S)
