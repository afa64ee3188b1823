"""service.gateway_apply: a running Envoy goes from one deployment to another without failing a call, or stays."""

import dataclasses
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import yaml
from gateway_rig import MAX_MESSAGE_BYTES, PREFIX, Backend, infer, open_channel, run_load, start_rig
from typer.testing import CliRunner

from service.admin import AdminError
from service.cli import app
from service.deployment import Endpoint, Version, runtime_key
from service.deployment_file import format_deployment
from service.drift import find_drift
from service.envoy_check import GatewayError, find_envoy
from service.gateway_apply import LOCK, GatewayChange
from service.instance import InstanceError, lock_instance
from service.model_routing import CallKey, Routing, Shadow
from service.pb import open_inference_pb2 as pb
from service.traffic import Traffic
from tests.free_ports import HOST, find_free_port

TIMEOUT_S = 60.0
# Than Envoy was once told to let connections of a changed listener live.
LONGER_S = 3.5
SERVED = ("digits/1", "digits/2", "digits/3", "letters/1")


@pytest.fixture
def rig(tmp_path):
    """A gateway that splits `digits` 90 to 10, and a third server, which serves everything."""
    with start_rig(tmp_path) as rig:
        rig.third = Backend("c", rig.certificates, SERVED)
        yield rig
        rig.third.stop()


def change(rig, **options):
    """What changes the rig's gateway."""
    return GatewayChange(rig.state_folder, find_envoy(), **options)


def declare(rig, digits, **models):
    """The rig's deployment with other models: {version: (weight, server's name)}."""
    servers = {"a": rig.backends[1].endpoint, "b": rig.backends[2].endpoint, "c": rig.third.endpoint}
    made = {
        model: {number: Version(weight, (servers[name],)) for number, (weight, name) in versions.items()}
        for model, versions in {"digits": digits, **models}.items()
    }
    return dataclasses.replace(rig.deployment, models=made)


@contextmanager
def run_calls(rig):
    """Calls of `digits` by clients that send again what no server has seen, as gRPC's do by default."""
    with rig.connect() as channel, run_load(lambda: infer(channel)) as load:
        load.wait_for_more(20)
        yield load


def read_files(rig):
    """Every file of the gateway's configuration."""
    folder = rig.state_folder / "envoy"
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_versions_come_and_go_under_load_and_no_call_fails(rig):
    """After each change only the versions that are declared answer."""
    steps = [
        ({1: (1, "a"), 2: (0, "b"), 3: (1, "c")}, {"a:1", "c:3"}),
        ({3: (1, "c")}, {"c:3"}),
        ({1: (1, "a")}, {"a:1"}),
        ({1: (1, "c"), 2: (1, "b")}, {"c:1", "b:2"}),
        ({2: (5, "b"), 3: (0, "c")}, {"b:2"}),
    ]
    with run_calls(rig) as load:
        for digits, answers in steps:
            assert change(rig).apply(declare(rig, digits))
            load.wait_for_more(20)
            assert set(load.wait_for_more(60)) == answers
        assert load.failures == []
    assert find_drift(rig.state_folder) == []
    assert {path.name for path in (rig.state_folder / "envoy/endpoints").iterdir()} == {
        "digits@2.yaml",
        "digits@3.yaml",
        "service.yaml",
    }


def test_what_calls_have_besides_weights_comes_and_goes_under_load(rig):
    """Shadows, callers that stay and sequences: no call fails of clients that send again what has not been looked at.

    What is read out of messages stands in the listener, and one that changes sends its clients away.
    """
    split = declare(rig, {1: (90, "a"), 2: (10, "b"), 3: (0, "c")})
    whole = declare(rig, {1: (100, "a"), 2: (0, "b"), 3: (0, "c")})
    steps = [
        (split, Routing(shadow=Shadow(3, 100))),
        (whole, Routing(affinity=CallKey(header="sluice-sequence"), shadow=Shadow(2, 100))),
        (split, Routing(sticky=CallKey(header="x-user"))),
        (split, Routing(affinity=CallKey(message="sequence_id"))),
        (whole, Routing()),
    ]
    with (
        open_channel(rig.deployment.gateway, rig.certificates, is_retrying=True) as channel,
        run_load(lambda: infer(channel)) as load,
    ):
        for wanted, routing in steps:
            assert change(rig).apply(dataclasses.replace(wanted, routing={"digits": routing}))
            load.wait_for_more(20)
            rig.third.calls.clear()
            assert set(load.wait_for_more(60)) <= {"a:1", "b:2"}
            if routing.shadow == Shadow(3, 100):
                assert rig.third.calls
        assert load.failures == []
    assert find_drift(rig.state_folder) == []
    assert not (rig.state_folder / "envoy/endpoints/digits@shadow.yaml").exists()


def test_models_come_and_go_while_another_is_called(rig):
    """A new one is served once `apply` returns; one that goes is NOT_FOUND."""
    with run_calls(rig) as load, rig.connect() as channel:
        change(rig).apply(declare(rig, {1: (1, "a")}, letters={1: (1, "c")}))
        assert infer(channel, "letters") == "c:1"
        change(rig).apply(declare(rig, {1: (1, "a")}))
        with pytest.raises(Exception, match="no such model here; there are digits"):
            infer(channel, "letters")
        assert load.failures == []


def test_listener_moves_to_another_port(rig):
    """Calls at the new port are answered."""
    moved = dataclasses.replace(declare(rig, {1: (1, "a")}), gateway=Endpoint(HOST, find_free_port()))
    change(rig).apply(moved)
    rig.deployment = moved
    with rig.connect() as channel:
        assert infer(channel) == "a:1"


def test_call_that_takes_long_outlives_a_change_of_the_listener(rig):
    """Its connection takes no more calls, and is cut after the time to drain at the earliest."""
    is_late = threading.Event()

    def send():
        yield request
        is_late.wait(TIMEOUT_S)
        yield request

    request = pb.ModelInferRequest(model_name="digits", model_version="1").SerializeToString()

    with rig.connect() as channel:
        answers = channel.stream_stream(f"{PREFIX}ModelStreamInfer")(send(), timeout=TIMEOUT_S)
        assert next(answers) == b"a:1"
        assert change(rig).apply(dataclasses.replace(rig.deployment, max_message_bytes=2 * MAX_MESSAGE_BYTES))
        time.sleep(LONGER_S)
        is_late.set()
        assert list(answers) == [b"a:1"]


def test_what_envoy_does_not_take_is_taken_back(rig):
    """A port that is taken: found out only when everything else has been changed."""
    before = read_files(rig)
    with socket.socket() as owner, run_calls(rig) as load:
        owner.bind((HOST, 0))
        owner.listen()
        wanted = declare(rig, {2: (1, "b"), 3: (1, "c")})
        with pytest.raises(GatewayError, match=r"has not taken envoy/listeners\.yaml(.|\n)*in force before is again"):
            change(rig, take_timeout_s=5.0).apply(
                dataclasses.replace(wanted, gateway=Endpoint(HOST, owner.getsockname()[1]))
            )
        load.wait_for_more(20)
        assert set(load.wait_for_more(200)) == {"a:1", "b:2"}
        assert load.failures == []
    assert read_files(rig) == before


def test_change_that_is_broken_off_while_calls_finish_is_taken_back(rig):
    """As by Ctrl-C: the files in place are those of what is noted as applied, and Envoy goes by them."""
    before = read_files(rig)

    def tell(stage):
        if stage == "end of the old":
            raise KeyboardInterrupt

    with run_calls(rig) as load:
        with pytest.raises(KeyboardInterrupt):
            change(rig, tell=tell).apply(declare(rig, {2: (1, "b"), 3: (1, "c")}))
        assert read_files(rig) == before
        load.wait_for_more(20)
        assert set(load.wait_for_more(200)) == {"a:1", "b:2"}
        assert load.failures == []
    assert find_drift(rig.state_folder) == []


def test_change_whose_gateway_dies_is_taken_back(rig):
    """It starts again with what was in force."""
    before = read_files(rig)

    def tell(stage):
        if stage == "end of the old":
            rig.child.kill()

    with pytest.raises(AdminError):
        change(rig, tell=tell).apply(declare(rig, {3: (1, "c")}))
    assert read_files(rig) == before
    rig.stop()
    rig.start_envoy()
    with rig.connect() as channel:
        assert infer(channel) in {"a:1", "b:2"}
    assert find_drift(rig.state_folder) == []


def test_version_without_a_healthy_server_gets_no_traffic(rig):
    """It is refused by name, and nothing is changed; without a weight it may wait for its servers."""
    before = read_files(rig)
    with pytest.raises(GatewayError, match="model 'digits' version 3: none of its servers is healthy"):
        change(rig).apply(declare(rig, {1: (1, "a"), 3: (1, "b")}))
    assert read_files(rig) == before
    assert change(rig).apply(declare(rig, {1: (1, "a"), 3: (0, "b")}))


def test_weights_of_the_admin_that_would_leave_nobody_are_refused(rig):
    """The version that an operator shifted everything to cannot go under it."""
    Traffic(rig.deployment, rig.operator).shift("digits", {1: 0, 2: 100})
    with pytest.raises(GatewayError, match="weights that the admin was given shadow the deployment's"):
        change(rig).apply(declare(rig, {1: (1, "a")}))
    with rig.connect() as channel:
        assert infer(channel) == "b:2"


def test_what_envoy_refuses_is_not_put_in_place(rig):
    """Its check comes first."""
    before = read_files(rig)
    with pytest.raises(GatewayError, match="Envoy refuses the configuration"):
        change(rig).apply(dataclasses.replace(rig.deployment, certificates=rig.state_folder / "nowhere"))
    assert read_files(rig) == before


def test_two_changes_at_a_time_are_refused(rig):
    """The second hears who makes the first."""
    with lock_instance(rig.state_folder / LOCK), pytest.raises(InstanceError, match="in use by another sluice"):
        change(rig).apply(rig.deployment)


def test_calls_under_way_to_what_goes_are_waited_for(rig):
    """A stream that is open when its version goes ends by itself."""
    stages = []
    with rig.connect() as channel:
        request = b"\n\x06digits\x12\x011"
        answers, go_on = [], [request]

        def ask():
            yield request
            while go_on:
                yield request

        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(ask(), timeout=60)

        def tell(stage):
            stages.append(stage)
            answers.append(next(call))
            if stage == "end of the old":
                go_on.clear()

        change(rig, tell=tell).apply(declare(rig, {2: (1, "b")}))
        answers += list(call)
    assert stages[-1] == "end of the old"
    assert set(answers) == {b"a:1"}


def test_without_a_gateway_files_are_put_in_place(rig):
    """For its next start."""
    rig.stop()
    assert change(rig).apply(declare(rig, {3: (1, "c")})) is False
    rig.start_envoy()
    with rig.connect() as channel:
        assert infer(channel) == "c:3"


def test_drift_names_what_was_changed_by_hand_or_by_the_admin(rig):
    """A file, and weights; both are gone when they are set right."""
    assert find_drift(rig.state_folder) == []
    Traffic(rig.deployment, rig.operator).shift("digits", {1: 7})
    [first, _] = find_drift(rig.state_folder)
    assert first == "models.digits.versions.1.weight: 7, which the admin was given and holds until Envoy ends"
    keys = "&".join(f"{runtime_key('digits', number)}=" for number in (1, 2))
    rig.admin.request("POST", f"/runtime_modify?{keys}")
    file = rig.state_folder / "envoy/routes.yaml"
    rendered = file.read_bytes()
    file.write_bytes(rendered + b"# by hand\n")
    assert find_drift(rig.state_folder) == ["envoy/routes.yaml: not what was rendered"]
    file.write_bytes(rendered)
    assert find_drift(rig.state_folder) == []


def test_weights_set_for_good_are_no_drift_and_a_difference(rig):
    """Until the file is applied again, which says what it takes back."""
    file = rig.state_folder / "deployment.yaml"
    file.write_text(format_deployment(rig.deployment))
    Traffic(rig.deployment, rig.operator).shift_for_good("digits", {1: 50, 2: 50}, rig.state_folder)
    assert find_drift(rig.state_folder) == []
    result = CliRunner().invoke(app, ["gateway", "diff", str(file), "--state-dir", str(rig.state_folder)])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "models.digits.versions.1.weight: 50 -> 90",
        "models.digits.versions.2.weight: 50 -> 10",
    ]
    result = CliRunner().invoke(app, ["gateway", "apply", str(file), "--state-dir", str(rig.state_folder)])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "in force")
    assert Traffic(rig.deployment, rig.operator).read_weights("digits") == {1: 90, 2: 10}
    result = CliRunner().invoke(app, ["gateway", "diff", str(file), "--state-dir", str(rig.state_folder)])
    assert (result.exit_code, result.output) == (0, "")


def test_command_line_says_what_is_wrong_and_changes_nothing(rig):
    """A file that cannot be: its line, exit code 2."""
    before = read_files(rig)
    file = rig.state_folder / "deployment.yaml"
    file.write_text(format_deployment(rig.deployment).replace("weight: 90", "weight: -90"))
    for command in ("validate", "diff", "apply"):
        options = [] if command == "validate" else ["--state-dir", str(rig.state_folder)]
        result = CliRunner().invoke(app, ["gateway", command, str(file), *options])
        assert result.exit_code == 2
        assert "weight: expected a whole number from 0 to 1000000, given -90" in result.output
    assert read_files(rig) == before


def test_rendered_files_are_those_that_are_applied(rig):
    """To look at, or for another Envoy."""
    file = rig.state_folder / "deployment.yaml"
    file.write_text(format_deployment(rig.deployment))
    output = rig.state_folder / "rendered"
    assert CliRunner().invoke(app, ["gateway", "render", str(file), "--output", str(output)]).exit_code == 0
    rendered = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    applied = {path.relative_to(rig.state_folder): content for path, content in read_files(rig).items()}
    assert rendered == {path: content for path, content in applied.items() if path.name != "deployment.yaml"}
    result = CliRunner().invoke(app, ["gateway", "validate", str(file)])
    assert (result.exit_code, result.output) == (0, f"{file}: valid; models: 1, versions: 2\n")


def test_schema_is_printed_as_json():
    """For editors."""
    result = CliRunner().invoke(app, ["gateway", "schema"])
    assert json.loads(result.output)["required"] == ["models"]
    assert yaml.safe_load(result.output) == json.loads(result.output)
