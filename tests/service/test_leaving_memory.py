"""Models that leave memory: which go and when, and what of them goes on."""

import numpy as np
from lazy_rig import LONG_S, await_true, check_own_rows, make_rig
from lifecycle_rig import infer

from kernels.engine import Engine
from service.exposition import write_text
from service.model_metrics import describe_models
from service.repository import DORMANT, State
from service.statistics import describe_version, read_statistics
from service.version_loader import complete_config
from tests.inference_messages import build_request, build_turn, decode_reply
from tests.onnx_models import accumulator, identity, save, scaler, slow

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)
SUM_CONFIG = """max_batch_size: 4
sequence_batching {
  max_sequence_idle_microseconds: 600000000
  state {
    input_name: "state" output_name: "new_state" data_type: TYPE_INT64 dims: 2
    initial_state { name: "first" data_type: TYPE_INT64 dims: 2 zero_data: true }
  }
}"""


def describe(repository, name):
    """State and reason by version."""
    return {entry.version: (entry.state, entry.reason) for entry in repository.list_versions(name)}


def save_models(folder, *names):
    """Models that give their rows back."""
    for name in names:
        save(identity(), folder, name)


def add(engine, sequence, value, **options):
    """Add a number to a sequence's sums; the sums then."""
    request = build_turn("sum", {"input": np.array([[value, -value]], np.int64)}, sequence, **options)
    return decode_reply(engine.infer(request.SerializeToString()))["output"].tolist()


def scrape(engine, repository):
    """What /metrics tells of models, but for what rises and falls: {sample: value}."""
    text = write_text(describe_models(read_statistics(engine, repository))).decode()
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#"]
    return {name: float(value) for name, value in samples if "pending" not in name}


def test_least_recently_used_model_leaves_memory_for_another(tmp_path, engine, repository):
    """It is as it was before it was loaded, and the next request for it loads it again."""
    save_models(tmp_path, "a", "b", "c", "d")
    with make_rig(tmp_path, engine, repository, budget=3) as rig:
        for name in ("a", "b", "c", "a"):
            infer(engine, name, ROW)
        assert rig.in_memory == {"a", "b", "c"}
        infer(engine, "d", ROW)
        await_true(lambda: rig.in_memory == {"a", "c", "d"})
        assert describe(repository, "b") == {1: (State.READY, DORMANT)}
        assert infer(engine, "b", ROW).tolist() == ROW[0].tolist()
        await_true(lambda: rig.in_memory == {"a", "d", "b"})
        assert rig.budget.evictions == 2


def test_pinned_models_stay_in_memory(tmp_path, engine, repository):
    """However long ago they were used; and a budget that they fill lets every other model go after its turn."""
    save_models(tmp_path, "a", "b", "c", "d")
    with make_rig(tmp_path, engine, repository, budget=2, pinned=("a", "b")) as rig:
        for name in ("c", "d", "c"):
            infer(engine, name, ROW)
            assert rig.in_memory >= {"a", "b"}
            # A model whose answer has just gone out may still be running.
            await_true(lambda: len(rig.in_memory) <= 3)


def test_model_that_is_used_stays_in_memory(tmp_path, engine, repository):
    """Even if it has not been asked for longest; and its request is answered."""
    save(slow(2_000_000), tmp_path, "slow", config="max_batch_size: 1")
    save_models(tmp_path, "a", "b")
    with make_rig(tmp_path, engine, repository, budget=2) as rig:
        running = rig.ask("slow", ROW)
        await_true(lambda: engine.read_use().get("slow", (0, False))[1])
        for name in ("a", "b", "a"):
            infer(engine, name, ROW)
        assert not running.done()
        assert "slow" in rig.in_memory
        assert running.result(LONG_S).tolist() == ROW[0].tolist()


def test_model_larger_than_the_budget_is_served_alone(tmp_path, engine, repository, caplog):
    """The log says that the budget is exceeded."""
    save_models(tmp_path, "a", "b")
    with make_rig(tmp_path, engine, repository, budget=1, measure=lambda: 2 * len(engine.read_use())) as rig:
        for name in ("a", "b", "a"):
            assert infer(engine, name, ROW).tolist() == ROW[0].tolist()
        # Which of the two depends on whether the first was still running when the second came.
        await_true(lambda: len(rig.in_memory) == 1)
        rig.budget.make_room()
        assert len(rig.in_memory) == 1
    assert "memory budget exceeded" in caplog.text


def test_model_that_leaves_memory_loses_no_request(tmp_path, engine, repository):
    """Callers in numbers of more models than there is room for, all of which are answered with their own rows."""
    names = [f"model{number}" for number in range(12)]
    for name in names:
        save(identity(), tmp_path, name)
    with make_rig(tmp_path, engine, repository, budget=3) as rig:
        check_own_rows(rig, names)


def test_metrics_tell_of_loads_and_evictions(tmp_path, engine, repository):
    """Each family with its one sample."""
    save_models(tmp_path, "a", "b")
    with make_rig(tmp_path, engine, repository, budget=1) as rig:
        for name in ("a", "b"):
            infer(engine, name, ROW)
        await_true(lambda: rig.budget.evictions == 1)
        await_true(lambda: "sluice_lazy_loads_total 2" in [line for one in rig.lazy.describe() for line in one.lines])
        assert [line for family in rig.lazy.describe() for line in family.lines] == [
            "sluice_models_in_memory 1",
            "sluice_model_memory_bytes 1",
            "sluice_model_memory_budget_bytes 1",
            "sluice_lazy_loads_total 2",
            "sluice_evictions_total 1",
        ]


def test_model_with_a_sequence_stays_in_memory_until_that_ends(tmp_path, engine, repository):
    """However long it has had no request."""
    save(accumulator(), tmp_path, "sum", config=SUM_CONFIG)
    save_models(tmp_path, "a", "b", "c")
    with make_rig(tmp_path, engine, repository, budget=1) as rig:
        assert add(engine, 7, 5, start=True) == [[5, -5]]
        for name in ("a", "b", "c"):
            infer(engine, name, ROW)
            assert "sum" in rig.in_memory
        assert add(engine, 7, 3) == [[8, -8]]
        infer(engine, "a", ROW)
        assert add(engine, 7, 1, end=True) == [[9, -9]]
        infer(engine, "b", ROW)
        await_true(lambda: rig.in_memory == {"b"})
        assert add(engine, 7, 2, start=True, end=True) == [[2, -2]]


def test_sequence_that_begins_as_its_model_leaves_memory_goes_on(tmp_path, engine, repository, monkeypatch):
    """Whoever needs the memory does not wait for its end; the next sequence has the model loaded anew."""
    monkeypatch.setattr("service.version_loader.LETTING_GO_S", 0.05)
    save(accumulator(), tmp_path, "sum", config=SUM_CONFIG)
    with make_rig(tmp_path, engine, repository) as rig:
        assert add(engine, 1, 5, start=True) == [[5, -5]]
        await_true(lambda: not rig.lifecycle.is_busy)
        # As the budget would, had it looked before the sequence began.
        assert rig.lifecycle.rest("sum")
        assert rig.in_memory == set()
        assert add(engine, 1, 1) == [[6, -6]]
        assert add(engine, 2, 7, start=True, end=True) == [[7, -7]]
        assert rig.in_memory == {"sum"}
        assert add(engine, 1, 1, end=True) == [[7, -7]]


def test_counters_do_not_fall_when_a_model_leaves_memory(tmp_path, engine, repository):
    """By rpc and by scrape: out of memory it tells what it counted, and goes on from there when it is back."""
    save_models(tmp_path, "a", "b")
    with make_rig(tmp_path, engine, repository, budget=1) as rig:
        assert scrape(engine, repository) == {}
        before = {}
        for turn in range(1, 6):
            for name in ("a", "b"):
                infer(engine, name, ROW)
                await_true(lambda name=name: rig.in_memory == {name})
                now = scrape(engine, repository)
                assert now.keys() >= before.keys()
                assert [sample for sample, value in before.items() if now[sample] < value] == []
                before = now
            [told] = map(describe_version, read_statistics(engine, repository, "a"))
            assert (told.inference_count, told.inference_stats.success.count) == (turn, turn)
            assert told.last_inference > 0
        assert rig.budget.evictions >= 9


def test_kept_replies_go_with_a_model_that_leaves_memory(tmp_path, repository):
    """What is in its file by the next load answers then, and never what was there before."""
    engine = Engine(workers=2, response_cache_bytes=1 << 20)
    config = "response_cache { enable: true }"
    message = build_request("scaler", {"input": np.ones(1, np.float32)}).SerializeToString()
    with make_rig(tmp_path, engine, repository) as rig:
        save_models(tmp_path, "a")
        for factor in (2.0, 3.0):
            save(scaler((factor,)), tmp_path, "scaler", config=config)
            rig.lifecycle.follow("scaler")
            for _ in range(2):
                assert decode_reply(engine.infer(message))["output"].tolist() == [factor]
            await_true(lambda: not rig.lifecycle.is_busy)
            assert engine.cache_usage()["entries"] == 1
            assert rig.lifecycle.rest("scaler")
            assert engine.cache_usage()["entries"] == 0
        assert engine.statistics("scaler", 1)["cache_hits"] == 2
    engine.close()


def test_log_says_once_which_model_the_budget_does_not_see(tmp_path, engine, repository, monkeypatch, caplog):
    """One with an instance on a GPU; the machine need not have one."""

    def complete(name, *arguments):
        config = complete_config(name, *arguments)
        if name == "on_gpu":
            config.proto.instance_group[0].gpus.append(0)
        return config

    monkeypatch.setattr("service.version_loader.complete_config", complete)
    save_models(tmp_path, "a", "on_gpu")
    with make_rig(tmp_path, engine, repository, budget=1) as rig:
        for name in ("a", "on_gpu", "a", "on_gpu"):
            infer(engine, name, ROW)
            await_true(lambda name=name: rig.in_memory == {name})
        await_true(lambda: not rig.lifecycle.is_busy)
    told = [record.model for record in caplog.records if "does not count" in record.message]
    assert told == ["on_gpu"]
