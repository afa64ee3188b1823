"""A model whose configuration enables the response cache, as a client, its statistics and a scrape see it."""

import numpy as np
import onnx_models
import pytest
from inference_messages import build_request

from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.metrics_page import read_samples
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

TIMEOUT_S = 30.0
CACHED = "max_batch_size: 8 response_cache { enable: true }"
ROWS = np.ones((2, 4), np.float32)


@pytest.fixture(params=["cached", "without_a_cache"])
def has_cache(request):
    """Whether the server keeps replies at all."""
    return request.param == "cached"


@pytest.fixture
def server(transport, has_cache, tmp_path):
    """A server of a model that gives other numbers at each run."""
    onnx_models.save(onnx_models.dice(), tmp_path, "dice", config=CACHED)
    options = [] if has_cache else ["--response-cache-bytes", "0"]
    with ServerProcess(tmp_path, "--insecure", "--metrics-port", "0", *options) as server:
        yield server


def test_repeated_request_is_answered_by_the_first_reply(server, has_cache):
    """On ModelInfer and on a stream, each answer with its own id; statistics and metrics tell hits from runs."""
    with Target(server.address).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        requests = [build_request("dice", {"input": ROWS}, request_id=str(turn)) for turn in range(4)]
        replies = [stub.ModelInfer(one, timeout=TIMEOUT_S) for one in requests[:2]]
        streamed = list(stub.ModelStreamInfer(iter(requests[2:]), timeout=TIMEOUT_S))
        replies += [one.infer_response for one in streamed]
        statistics = stub.ModelStatistics(pb.ModelStatisticsRequest(name="dice"), timeout=TIMEOUT_S).model_stats[0]
    assert [reply.id for reply in replies] == ["0", "1", "2", "3"]
    assert len({reply.raw_output_contents[0] for reply in replies}) == (1 if has_cache else 4)
    counted = statistics.inference_stats
    hits, misses = (3, 1) if has_cache else (0, 0)
    assert (counted.cache_hit.count, counted.cache_miss.count) == (hits, misses)
    assert (counted.success.count, counted.queue.count, counted.compute_infer.count) == (4, 4, 4 - hits)
    assert statistics.inference_count == 2 * (4 - hits)
    # The two of the stream may have met in one batch.
    assert 0 < statistics.execution_count <= 4 - hits
    samples = read_samples(server.await_event("ready")["metrics"])
    labels = '{model="dice",version="1"}'
    assert samples.get(f"nv_cache_num_hits_per_model{labels}") == (3 if has_cache else None)
    assert samples.get("sluice_response_cache_entries") == (1 if has_cache else None)
