"""What a server checks by its own policy: by the caller's certificate, or by the word of a gateway and nobody else."""

import asyncio
import base64
import json
import ssl

import grpc
import numpy as np
import onnx_models
import pytest
from inference_messages import build_request

from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.authorities import Authority
from tests.end_to_end.models import adder
from tests.end_to_end.server_process import ServerProcess
from tests.raw_http2 import RawConnection

TIMEOUT_S = 30.0
OK, DENIED = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED
ISSUER = "https://issuer.test"
POLICY = """\
access:
  tokens:
    login: {issuer: "https://issuer.test", audiences: [sluice], jwks: {keys: []}}
  roles:
    tester: {models: [adder, "sum*"], actions: [infer, metadata, statistics]}
    chooser: {models: [adder], actions: [infer, pin]}
    seer: {models: ["*"], actions: [metadata]}
    counter: {models: ["*"], actions: [statistics]}
    loader: {models: [adder], actions: [load]}
    changer: {models: [adder], actions: [load, load_override]}
    sharer: {models: ["*"], actions: [shared_memory]}
    tracer: {models: ["*"], actions: [trace_settings]}
    logger: {models: ["*"], actions: [log_settings]}
  grants:
  - {role: tester, token: {issuer: login, claims: {team: testing}}}
"""
OWNERS = ("tester", "chooser", "seer", "counter", "loader", "changer", "sharer", "tracer", "logger")


def name(owner):
    """Who has a role has a certificate of its name."""
    return f"spiffe://test/{owner}"


def write_policy(text=POLICY):
    """The policy with a grant of each role to its owner."""
    return text + "".join(f"  - {{role: {owner}, certificates: ['{name(owner)}']}}\n" for owner in OWNERS)


class PolicedServer:
    """A server that one authority's clients may call, and calls of it by any of them.

    Parameters
    ----------
    folder
        For its files, and the repository, which is its own.
    """

    def __init__(self, folder):
        self._authority = Authority("inside")
        self._pairs = {}
        self.policy = folder / "deployment.yaml"
        self.policy.write_text(write_policy())
        models = folder / "models"
        for version in (1, 2):
            onnx_models.save(adder(version), models, "adder", version, "max_batch_size: 8")
        onnx_models.save(onnx_models.identity(), models, "sums")
        onnx_models.save(onnx_models.identity(), models, "secret")
        own = self._authority.serve()
        files = {"tls-cert": own.chain, "tls-key": own.key, "tls-client-ca": self._authority.pem}
        options = []
        for flag, content in files.items():
            (folder / flag).write_bytes(content)
            options += [f"--{flag}", folder / flag]
        options += ["--policy", self.policy, "--gateway", name("gateway")]
        options += ["--model-control-mode", "explicit", "--load-model", "*"]
        self.process = ServerProcess(models, *options)

    def _pair(self, owner):
        if owner not in self._pairs:
            self._pairs[owner] = self._authority.issue(f"URI:{name(owner)}", common=owner)
        return self._pairs[owner]

    def connect(self, owner, module=grpc):
        """A channel on a connection of its own."""
        pair = self._pair(owner)
        credentials = grpc.ssl_channel_credentials(self._authority.pem, pair.key, pair.chain)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        return module.secure_channel(self.process.address, credentials, options)

    def connect_raw(self, owner, folder):
        """A connection of bare HTTP/2."""
        context = ssl.create_default_context(cadata=self._authority.pem.decode())
        pair = self._pair(owner)
        (folder / "pair.pem").write_bytes(pair.chain + pair.key)
        context.load_cert_chain(folder / "pair.pem")
        context.set_alpn_protocols(["h2"])
        return RawConnection(self.process.address, tls=context)

    def call(self, owner, method, request, metadata=()):
        """The code and the reply, or its text, of one call."""
        with self.connect(owner) as channel:
            try:
                reply = getattr(GRPCInferenceServiceStub(channel), method)(
                    request, timeout=TIMEOUT_S, metadata=metadata, wait_for_ready=True
                )
            except grpc.RpcError as error:
                return error.code(), error.details()
        return OK, reply

    def talk(self, owner, requests, metadata=()):
        """What is said of each message of a stream."""
        with self.connect(owner) as channel:
            stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(
                iter(requests), timeout=TIMEOUT_S, metadata=metadata, wait_for_ready=True
            )
            return [reply.error_message for reply in stream]


@pytest.fixture(scope="module")
def server(transport, tmp_path_factory):
    """One for all tests that leave its policy as it is."""
    served = PolicedServer(tmp_path_factory.mktemp("policed"))
    with served.process:
        yield served


def ask(model, **options):
    """A request of one row."""
    datatype = np.int64 if model == "adder" else np.float32
    return build_request(model, {"input": np.ones((1, 4), datatype)}, **options)


def forwarded(owner):
    """How a gateway says whose certificate its client has shown."""
    return ("x-forwarded-client-cert", f"Hash={'0' * 64};URI={name(owner)}")


def token(**claims):
    """How it says what its client's token says."""
    claims = {"iss": ISSUER, "sub": "ada", **claims}
    return ("sluice-token", base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("="))


def test_client_with_a_certificate_does_what_its_role_allows(server):
    """And nothing else, whether what it asks for is there or not."""
    assert server.call("tester", "ModelInfer", ask("adder"))[0] is OK
    assert server.call("tester", "ModelInfer", ask("sums"))[0] is OK
    assert server.call("tester", "ModelInfer", ask("sum_of_none"))[0] is grpc.StatusCode.NOT_FOUND
    for model in ("secret", "nothing"):
        assert server.call("tester", "ModelInfer", ask(model)) == (
            DENIED,
            f"infer on model '{model}': allowed by no role of the caller",
        )
    for stranger in ("stranger", "gateway"):
        assert server.call(stranger, "ModelInfer", ask("adder"))[0] is DENIED


def test_version_is_for_whom_it_is_allowed_to_choose(server):
    """In the message, and by the gateway's header where no gateway has set it."""
    hint = [("sluice-model-version", "1")]
    assert server.call("chooser", "ModelInfer", ask("adder", version="1"))[1].model_version == "1"
    assert server.call("chooser", "ModelInfer", ask("adder"), hint)[1].model_version == "1"
    assert server.call("tester", "ModelInfer", ask("adder", version="1"))[0] is DENIED
    assert server.call("tester", "ModelInfer", ask("adder"), hint)[0] is DENIED
    code, reply = server.call("gateway", "ModelInfer", ask("adder"), [*hint, forwarded("tester")])
    assert (code, reply.model_version) == (OK, "1")
    assert server.call("gateway", "ModelInfer", ask("adder", version="1"), [forwarded("tester")])[0] is DENIED


@pytest.mark.parametrize(
    "headers", [[forwarded("tester")], [token(team="testing")], [forwarded("x"), token(team=["testing"])]]
)
def test_gateway_is_believed_for_whom_it_speaks(server, headers):
    """By certificate or token."""
    assert server.call("gateway", "ModelInfer", ask("adder"), headers)[0] is OK
    assert server.call("gateway", "ModelInfer", ask("secret"), headers)[0] is DENIED
    assert server.call("gateway", "ModelReady", pb.ModelReadyRequest(name="adder"), headers)[0] is OK
    assert server.call("gateway", "ModelReady", pb.ModelReadyRequest(name="secret"), headers)[0] is DENIED


@pytest.mark.parametrize(
    "headers", [[forwarded("tester")], [token(team="testing")], [forwarded("tester"), token(team="testing")]]
)
def test_nobody_but_a_gateway_is_believed(server, headers):
    """What a client says of itself means nothing, on either way."""
    for owner in ("stranger", "loader"):
        assert server.call(owner, "ModelInfer", ask("adder"), headers)[0] is DENIED
        assert server.call(owner, "ModelReady", pb.ModelReadyRequest(name="adder"), headers)[0] is DENIED


@pytest.mark.parametrize(
    "headers",
    [
        [forwarded("tester"), forwarded("tester")],
        [("x-forwarded-client-cert", forwarded("stranger")[1] + "," + forwarded("tester")[1])],
        [("x-forwarded-client-cert", forwarded("stranger")[1] + ";URI=" + name("tester"))],
        [forwarded("tester"), ("sluice-token", "nonsense.")],
        [forwarded("tester"), token(), token()],
        [token(team="testing", iss="https://another.test")],
        [token(team="other")],
        [],
    ],
)
def test_gateway_that_says_nothing_clear_is_denied(server, headers):
    """Two certificates, two tokens, what is no token, another issuer's."""
    assert server.call("gateway", "ModelInfer", ask("adder"), headers)[0] is DENIED
    assert server.call("gateway", "ModelReady", pb.ModelReadyRequest(name="adder"), headers)[0] is DENIED


def test_stream_through_the_gateway_is_of_one_model(server):
    """Its second message gets nobody further; the third, of the first's model, is answered."""
    said = server.talk("gateway", [ask("adder"), ask("sums"), ask("adder"), ask("secret")], [forwarded("tester")])
    assert [bool(text) for text in said] == [False, True, False, True]
    assert "one model" in said[1]
    assert said[3] == "infer on model 'secret': allowed by no role of the caller"


def test_direct_stream_is_checked_message_by_message(server):
    """Each is answered for itself."""
    said = server.talk("tester", [ask("adder"), ask("sums"), ask("secret"), ask("adder")])
    assert [bool(text) for text in said] == [False, False, True, False]


def test_second_model_name_of_a_message_is_the_one_that_is_checked(server, tmp_path):
    """In bare HTTP/2, as no stub would write it."""
    allowed, forbidden = ask("sums").SerializeToString(), pb.ModelInferRequest(model_name="secret").SerializeToString()
    with server.connect_raw("tester", tmp_path) as raw:
        assert raw.await_reply(raw.send_call(allowed)).status == OK.value[0]
        reply = raw.await_reply(raw.send_call(allowed + forbidden))
        assert reply.status == DENIED.value[0]
        back = pb.ModelInferRequest(model_name="sums").SerializeToString()
        assert raw.await_reply(raw.send_call(allowed + forbidden + back)).status == OK.value[0]


def test_asyncio_clients_of_one_gateway_connection_each_get_their_own(server):
    """Many callers, in any order, on one connection."""

    async def call_all():
        async with server.connect("gateway", grpc.aio) as channel:
            stub = GRPCInferenceServiceStub(channel)

            async def call(place):
                owner = "tester" if place % 3 else f"stranger-{place}"
                try:
                    await stub.ModelInfer(ask("sums"), timeout=TIMEOUT_S, metadata=[forwarded(owner)])
                except grpc.aio.AioRpcError as error:
                    return error.code()
                return OK

            return await asyncio.gather(*map(call, range(200)))

    assert asyncio.run(call_all()) == [OK if place % 3 else DENIED for place in range(200)]


SETTING = pb.LogSettingsRequest.SettingValue(bool_param=True)
OVERRIDE = {"config": pb.ModelRepositoryParameter(string_param="{}")}
CALLS = {
    "metadata": ("ModelMetadata", pb.ModelMetadataRequest(name="adder"), {"tester", "seer"}),
    "readiness": ("ModelReady", pb.ModelReadyRequest(name="adder"), {"tester", "seer"}),
    "configuration": ("ModelConfig", pb.ModelConfigRequest(name="adder"), {"tester", "seer"}),
    "of the server": ("ServerMetadata", pb.ServerMetadataRequest(), {"seer"}),
    "index": ("RepositoryIndex", pb.RepositoryIndexRequest(), {"tester", "seer"}),
    "statistics": ("ModelStatistics", pb.ModelStatisticsRequest(name="adder"), {"tester", "counter"}),
    "of all": ("ModelStatistics", pb.ModelStatisticsRequest(), {"tester", "counter"}),
    "load": ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="adder"), {"loader", "changer"}),
    "override": (
        "RepositoryModelLoad",
        pb.RepositoryModelLoadRequest(model_name="adder", parameters=OVERRIDE),
        {"changer"},
    ),
    "unload": ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="nothing"), set()),
    "memory": ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(), {"sharer"}),
    "more of it": ("SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterRequest(), {"sharer"}),
    "less of it": ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(), {"sharer"}),
    "of GPUs": ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest(), {"sharer"}),
    "traces": ("TraceSetting", pb.TraceSettingRequest(), {"tracer"}),
    "traces of one": ("TraceSetting", pb.TraceSettingRequest(model_name="adder"), {"tracer"}),
    "log": ("LogSettings", pb.LogSettingsRequest(), {"logger"}),
    "log changed": ("LogSettings", pb.LogSettingsRequest(settings={"log_info": SETTING}), {"logger"}),
    "life": ("ServerLive", pb.ServerLiveRequest(), {*OWNERS, "stranger"}),
    "readiness of all": ("ServerReady", pb.ServerReadyRequest(), {*OWNERS, "stranger"}),
}


@pytest.mark.parametrize("what", CALLS)
def test_each_method_is_for_those_who_may_do_its_action(server, what):
    """Of all owners of one role each; by a gateway's word it is the same."""
    method, request, allowed = CALLS[what]
    with server.connect("gateway") as channel:
        through_gateway = getattr(GRPCInferenceServiceStub(channel), method)
        for owner in (*OWNERS, "stranger"):
            try:
                through_gateway(request, timeout=TIMEOUT_S, metadata=[forwarded(owner)], wait_for_ready=True)
                code = OK
            except grpc.RpcError as error:
                code = error.code()
            assert (code is not DENIED) == (owner in allowed), (owner, code)
    some = min(allowed) if allowed else None
    assert server.call("chooser", method, request)[0] is (OK if "chooser" in allowed else DENIED)
    assert some is None or server.call(some, method, request)[0] is not DENIED


def test_ensemble_is_brought_only_by_who_may_infer_its_steps(server):
    """Its own name grants its steps, so whoever may give one any steps would get to any model."""
    chain = json.dumps(
        {
            "platform": "ensemble",
            "input": [{"name": "input", "data_type": "TYPE_FP32", "dims": [-1, 4]}],
            "output": [{"name": "output", "data_type": "TYPE_FP32", "dims": [-1, 4]}],
            "ensemble_scheduling": {
                "step": [
                    {
                        "model_name": "secret",
                        "model_version": -1,
                        "input_map": {"input": "input"},
                        "output_map": {"output": "output"},
                    }
                ]
            },
        }
    )
    load = pb.RepositoryModelLoadRequest(
        model_name="adder", parameters={"config": pb.ModelRepositoryParameter(string_param=chain)}
    )
    for owner, headers in (("changer", []), ("gateway", [forwarded("changer")])):
        code, text = server.call(owner, "RepositoryModelLoad", load, headers)
        assert code is DENIED
        assert text.startswith("infer on model 'secret': allowed by no role of the caller")


def test_lists_tell_of_what_their_caller_may_see(server):
    """Those who may see all of them, some, and none by a gateway's word."""
    index, counts = pb.RepositoryIndexRequest(), pb.ModelStatisticsRequest()
    assert {one.name for one in server.call("seer", "RepositoryIndex", index)[1].models} == {"adder", "sums", "secret"}
    assert {one.name for one in server.call("tester", "RepositoryIndex", index)[1].models} == {"adder", "sums"}
    assert {one.name for one in server.call("tester", "ModelStatistics", counts)[1].model_stats} == {"adder", "sums"}
    assert "secret" in {one.name for one in server.call("counter", "ModelStatistics", counts)[1].model_stats}


def test_policy_that_changes_holds_for_open_streams_and_a_broken_one_for_nothing(transport, tmp_path):
    """As certificates do, a file that cannot be used leaves what is in force, and the log says why."""
    server = PolicedServer(tmp_path)
    with server.process, server.connect("tester") as channel:
        assert server.call("tester", "ModelInfer", ask("sums"))[0] is OK
        server.policy.write_text("access: [")
        server.process.await_event("policy could not be read again")
        assert server.call("tester", "ModelInfer", ask("sums"))[0] is OK

        def send():
            yield ask("sums")
            # The second message is asked for when the first was answered.
            server.policy.write_text(write_policy(POLICY.replace('"sum*"', "none")))
            server.process.await_event("policy reloaded")
            yield ask("sums")
            yield ask("adder")

        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(send(), timeout=TIMEOUT_S, wait_for_ready=True)
        assert [bool(reply.error_message) for reply in stream] == [False, True, False]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("models: {}\n", "expected a section 'access'"),
        ("access: {roles: {}, grants: [{role: nobody}]}\n", "nobody"),
        ("access: [\n", "deployment.yaml"),
    ],
)
def test_server_does_not_start_on_a_policy_that_it_cannot_use(transport, tmp_path, content, said):
    """The text says where and why."""
    server = None
    (tmp_path / "deployment.yaml").write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "write_policy", lambda: content)
        server = PolicedServer(tmp_path)
    assert server.process.wait() == 1
    assert said in server.process.log
