"""Servers and contexts that refer to each other are garbage like any other."""

import subprocess
import sys

from tests.conformance.servers import SERVERS

TIMEOUT_S = 60
# In a process of its own, so that a crash is one failed test.
SCRIPT = """
import gc, sys
from tests.conformance.probe import Probe
from tests.conformance.servers import SERVERS

servers = []

def keep(request, context):
    context.kept = [context, *servers]
    return request

for _ in range(30):
    with Probe(SERVERS[sys.argv[1]], "unary_unary", keep) as probe:
        servers.append(probe.server)
        probe.connect()(b"a message")
    servers.clear()
    del probe
    gc.collect()
"""


def test_contexts_that_keep_their_server_are_collected_with_it(kind, pytestconfig):
    """Whichever of the two goes first, nothing of it is touched afterwards."""
    name = next(name for name in SERVERS if SERVERS[name] is kind)
    command = [sys.executable, "-c", SCRIPT, name]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
