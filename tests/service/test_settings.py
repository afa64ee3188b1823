"""Settings: which source wins, where a value came from, and what a wrong one is told."""

import dataclasses
import tomllib

import pytest

from kernels.limits import Limits
from service.native_server import read_limits
from service.settings import TABLE, SettingsError, flag_name, format_settings, load_settings


@pytest.fixture
def insecure(tmp_path):
    """Flags of the smallest valid setup."""
    return {"model_repository": str(tmp_path), "insecure": True}


def write(path, text):
    """A file with this text."""
    path.write_text(text)
    return path


def test_load_settings_given_nothing_more_takes_defaults(insecure):
    """A default is the table's, and its origin says so."""
    settings = load_settings(flags=insecure)
    assert (settings.grpc_port, settings.max_message_bytes) == (8001, 64 * 1024 * 1024)
    assert settings.origins["grpc_port"] == "default"


def test_load_settings_from_all_sources_lets_the_later_win(insecure, tmp_path):
    """Flags win over variables, variables over the file, the file over defaults; each value knows its origin."""
    config = write(tmp_path / "s.toml", 'grpc_port = 1\nworkers = 1\nmax_queue_requests = 1\nlog_level = "error"\n')
    environment = {"SLUICE_GRPC_PORT": "2", "SLUICE_WORKERS": "2", "PATH": "/bin"}
    settings = load_settings(config, environment, insecure | {"grpc_port": "3"})
    assert (settings.grpc_port, settings.workers, settings.max_queue_requests) == (3, 2, 1)
    origins = [settings.origins[name] for name in ("grpc_port", "workers", "max_queue_requests", "log_format")]
    assert origins == ["--grpc-port", "SLUICE_WORKERS", str(config), "default"]


def test_load_settings_with_file_named_in_the_environment_reads_it(insecure, tmp_path):
    """SLUICE_CONFIG stands in for --config."""
    config = write(tmp_path / "s.toml", "workers = 7\n")
    assert load_settings(None, {"SLUICE_CONFIG": str(config)}, insecure).workers == 7


def test_settings_once_loaded_cannot_be_changed(insecure):
    """What was checked is what serves."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings(flags=insecure).workers = 2


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("grpc_port", "abc", "a whole number"),
        ("grpc_port", "65536", "a number from 0 to 65535"),
        ("grpc_port", "-1", "a number from 0 to 65535"),
        ("max_message_bytes", "64MB", "a whole number"),
        ("max_message_bytes", "0", "a number from 1024 to 2147483647"),
        ("drain_timeout_s", "nan", "a number from 0 to 3600"),
        ("drain_timeout_s", "soon", "a number"),
        ("insecure", "maybe", "true or false"),
        ("transport", "carrier pigeon", "one of native, grpcio"),
        ("io_threads", "257", "a number from 0 to 256"),
        ("max_streams", "0", "a number from 1 to 2147483647"),
        ("max_header_bytes", "1000000", "a number from 1024 to 131072"),
        ("send_timeout_s", "-1", "a number from 0 to 31536000"),
        ("idle_timeout_s", "nan", "a number from 0 to 31536000"),
        ("max_resets_per_s", "many", "a whole number"),
        ("log_level", "loud", "one of debug, info, warning, error"),
        ("host", " ", "a text that is not empty"),
        ("host", "unix:", "unix: and a path of at most 107 bytes"),
        ("host", "unix:/" + "x" * 107, "unix: and a path of at most 107 bytes"),
        ("model_repository", "/nowhere/at/all", "a folder that exists and can be read"),
        ("model_repository", "", "a path"),
        ("allowed_clients", "spiffe://a/b, gateway", "URIs such as spiffe://example.org/gateway"),
        ("policy", "/nowhere/at/all", "a file that exists and can be read"),
        ("gateways", "gateway", "URIs such as spiffe://example.org/gateway"),
        ("remote_controls", "everything", "some of log_settings, model_overrides, shared_memory, trace_settings"),
    ],
)
def test_load_settings_with_wrong_variable_names_setting_origin_expected_and_given(insecure, name, given, expected):
    """The text says what to change and where."""
    variable = f"SLUICE_{name.upper()}"
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {variable: given}, {key: value for key, value in insecure.items() if key != name})
    assert str(caught.value).startswith(f"setting {name} from {variable}: expected {expected}, given ")
    assert given.split(",")[0] in str(caught.value)


@pytest.mark.parametrize("line", ['grpc_port = "a"', "grpc_port = true", "grpc_port = 1.5", "host = 1", "insecure = 1"])
def test_load_settings_with_wrong_type_in_file_names_the_file(insecure, tmp_path, line):
    """TOML has types, and a value of another type is refused."""
    config = write(tmp_path / "s.toml", line)
    with pytest.raises(SettingsError, match=f"from {config}: expected "):
        load_settings(config, {}, insecure)


def test_load_settings_with_misspelt_key_refuses_it_and_suggests(insecure, tmp_path):
    """A misspelt name must not be ignored."""
    with pytest.raises(SettingsError, match=r"unknown setting grpcport in .*did you mean grpc_port\?"):
        load_settings(write(tmp_path / "s.toml", "grpcport = 1"), {}, insecure)
    with pytest.raises(SettingsError, match=r"unknown setting SLUICE_WORKER .*did you mean SLUICE_WORKERS\?"):
        load_settings(None, {"SLUICE_WORKER": "1"}, insecure)
    with pytest.raises(SettingsError, match=r"unknown setting SLUICE_QQQ in the environment$"):
        load_settings(None, {"SLUICE_QQQ": "1"}, insecure)


def test_load_settings_with_unreadable_file_says_why(insecure, tmp_path):
    """A file that is named must be there and be TOML."""
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_settings(tmp_path / "none.toml", {}, insecure)
    with pytest.raises(SettingsError, match=r"is not TOML: .*line 1, column"):
        load_settings(write(tmp_path / "s.toml", "grpc_port = @"), {}, insecure)
    (tmp_path / "latin.toml").write_bytes(b'host = "\xe9"')
    with pytest.raises(SettingsError, match="is not TOML: "):
        load_settings(tmp_path / "latin.toml", {}, insecure)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"lazy_loading": True, "model_control_mode": "explicit"},
            "setting lazy_loading from --lazy-loading: expected model_control_mode none or poll, given 'explicit'",
        ),
        (
            {"memory_budget_bytes": "1000000"},
            "setting memory_budget_bytes from --memory-budget-bytes: expected with lazy_loading, given without",
        ),
        (
            {"pinned_models": ["a"]},
            "setting pinned_models from --pinned-model: expected with lazy_loading, given without",
        ),
        (
            {"memory_budget_bytes": "-1", "lazy_loading": True},
            "setting memory_budget_bytes from --memory-budget-bytes: "
            f"expected a number from 0 to {2**63 - 1}, given -1",
        ),
    ],
)
def test_load_settings_of_lazy_loading_that_contradict_each_other_are_refused(insecure, given, expected):
    """The text says what does not fit with what."""
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {}, insecure | given)
    assert str(caught.value) == expected


def test_load_settings_without_transport_security_chosen_refuses(tmp_path):
    """Plain text has to be asked for, and half of TLS is none."""
    here = {"model_repository": str(tmp_path)}
    certificate = str(write(tmp_path / "a.pem", ""))
    with pytest.raises(SettingsError, match="tls_cert, tls_key, tls_client_ca, given none of them"):
        load_settings(flags=here)
    with pytest.raises(SettingsError, match=r"given tls_cert$"):
        load_settings(flags=here | {"tls_cert": certificate})
    with pytest.raises(SettingsError, match=r"insecure from --insecure: .* tls_key from SLUICE_TLS_KEY"):
        load_settings(None, {"SLUICE_TLS_KEY": certificate}, here | {"insecure": True})
    with pytest.raises(SettingsError, match="given with allowed_clients from --allowed-client"):
        load_settings(flags=here | {"insecure": True, "allowed_clients": ["spiffe://a/b"]})
    names = ("tls_cert", "tls_key", "tls_client_ca")
    assert load_settings(flags=here | dict.fromkeys(names, certificate)).has_tls


def test_load_settings_with_a_policy_wants_proven_names_and_nothing_beside_it(tmp_path):
    """Plain text proves none, and what local peers may do is the policy's to say."""
    file = str(write(tmp_path / "a.pem", ""))
    flags = {"model_repository": str(tmp_path), "policy": file}
    secure = flags | dict.fromkeys(("tls_cert", "tls_key", "tls_client_ca"), file)
    names = {"allowed_clients": ["spiffe://a/b", "spiffe://a/c"], "gateways": ["spiffe://a/c"]}
    assert load_settings(flags=secure | names).gateways == ("spiffe://a/c",)
    with pytest.raises(SettingsError, match="policy from --policy: expected without insecure"):
        load_settings(flags=flags | {"insecure": True})
    with pytest.raises(SettingsError, match="expected without remote_controls"):
        load_settings(flags=secure | {"remote_controls": ["shared_memory"]})
    with pytest.raises(
        SettingsError, match="gateways from --gateway: expected some of allowed_clients, given spiffe://a/d"
    ):
        load_settings(flags=secure | names | {"gateways": ["spiffe://a/d"]})
    with pytest.raises(SettingsError, match="gateways from --gateway: expected with policy"):
        load_settings(flags={key: value for key, value in (secure | names).items() if key != "policy"})


def test_load_settings_with_lists_of_revoked_certificates_wants_tls_of_our_own(tmp_path):
    """grpcio's server would not look at them, and plain text has no certificates."""
    certificate = str(write(tmp_path / "a.pem", ""))
    names = ("tls_cert", "tls_key", "tls_client_ca", "tls_client_crl")
    flags = {"model_repository": str(tmp_path)} | dict.fromkeys(names, certificate)
    assert load_settings(flags=flags | {"transport": "native"}).tls_client_crl == tmp_path / "a.pem"
    with pytest.raises(SettingsError, match=r"tls_client_crl from --tls-client-crl: expected with the native"):
        load_settings(flags=flags | {"transport": "grpcio"})
    plain = {"model_repository": str(tmp_path), "insecure": True, "tls_client_crl": certificate}
    with pytest.raises(SettingsError, match="given with tls_client_crl"):
        load_settings(flags=plain)


def test_load_settings_with_limits_that_do_not_fit_together_refuses(insecure):
    """A message that is allowed has to fit; grpcio's transport has no such limits."""
    given = insecure | {"transport": "native", "max_message_bytes": "1000000", "max_connection_bytes": "10000"}
    expected = "max_connection_bytes from --max-connection-bytes: expected at least max_message_bytes, 1000000 from"
    with pytest.raises(SettingsError, match=expected):
        load_settings(flags=given)
    with pytest.raises(SettingsError, match="max_buffered_bytes from default: expected at least max_connection_bytes"):
        load_settings(flags=insecure | {"transport": "native", "max_connection_bytes": str(2**31)})
    assert load_settings(flags=given | {"transport": "grpcio"}).max_message_bytes == 1000000


def test_table_has_every_limit_of_the_native_transport_with_its_default(insecure):
    """By the same name, and it reaches the transport."""
    assert read_limits(load_settings(flags=insecure)) == Limits()
    given = {limit.name: limit.type(getattr(Limits(), limit.name) + 16) for limit in dataclasses.fields(Limits)}
    assert read_limits(load_settings(flags=insecure | given)) == Limits(**given)


def test_load_settings_with_several_clients_reads_lists_and_commas(tmp_path):
    """A list is a list in TOML, repeated as a flag and separated by commas in a variable."""
    certificate = str(write(tmp_path / "a.pem", ""))
    flags = {"model_repository": str(tmp_path)} | dict.fromkeys(("tls_cert", "tls_key", "tls_client_ca"), certificate)
    wanted = ("spiffe://a/b", "spiffe://a/c")
    config = write(tmp_path / "s.toml", 'allowed_clients = ["spiffe://a/b", "spiffe://a/c"]')
    assert load_settings(config, {}, flags).allowed_clients == wanted
    assert load_settings(None, {"SLUICE_ALLOWED_CLIENTS": ", ".join(wanted)}, flags).allowed_clients == wanted
    assert load_settings(None, {}, flags | {"allowed_clients": list(wanted)}).allowed_clients == wanted


def test_format_settings_as_a_file_gives_the_same_settings(insecure, tmp_path):
    """The outcome can be kept as the next start's file."""
    settings = load_settings(None, {"SLUICE_HOST": "::1"}, insecure)
    text = format_settings(settings)
    assert tomllib.loads(text)["host"] == "::1"
    assert load_settings(write(tmp_path / "s.toml", text)) == settings
    assert [line.partition("#")[2].strip() for line in text.splitlines() if line.startswith("host")] == ["SLUICE_HOST"]


def test_table_has_help_for_every_setting_and_flags_without_units():
    """What the options of a command are made from."""
    assert all(row.metadata["help"].endswith(".") for row in TABLE.values())
    assert flag_name("drain_timeout_s") == "--drain-timeout"
    assert flag_name("max_resets_per_s") == "--max-resets-per-s"
    assert flag_name("allowed_clients") == "--allowed-client"
    assert flag_name("max_message_bytes") == "--max-message-bytes"
