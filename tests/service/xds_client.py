"""A client of generated stubs that finds its servers by xDS, as a process: grpcio reads its bootstrap file once.

Reads requests from its input, a line of JSON each, and answers each with one: how many calls each version answered, and
the statuses of those that failed. Without a number of calls it calls until there is another line, an empty one.
"""

import itertools
import json
import select
import sys
from collections import Counter

import grpc
import numpy as np

from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.inference_messages import build_request

TIMEOUT_S = 60


def call(channel, model, calls=None, metadata=(), version="", compression=None):
    """Call a model so many times, or until there is more to read."""
    stub = GRPCInferenceServiceStub(channel)
    message = build_request(model, {"input": np.zeros((1, 16), np.float32)}, version=version)
    answers, failures = Counter(), Counter()
    for _ in itertools.takewhile(lambda _: calls or not is_told(), range(calls or sys.maxsize)):
        try:
            reply = stub.ModelInfer(
                message,
                timeout=TIMEOUT_S,
                metadata=[tuple(pair) for pair in metadata],
                compression=grpc.Compression.Gzip if compression else None,
            )
            answers[reply.model_version] += 1
        except grpc.RpcError as error:
            failures[f"{error.code().name}: {error.details()}"] += 1
    return {"answers": answers, "failures": failures}


def is_told():
    """Whether there is another line; takes it."""
    return bool(select.select([sys.stdin], [], [], 0)[0] and sys.stdin.readline())


def main():
    """Answer until the input ends."""
    target = sys.argv[1]
    with grpc.secure_channel(target, grpc.xds_channel_credentials()) as channel:
        while line := sys.stdin.readline():
            print(json.dumps(call(channel, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
