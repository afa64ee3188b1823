"""The server's settings: one table; read from a TOML file, SLUICE_… variables and flags, checked and frozen."""

import difflib
import itertools
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_type_hints

from service import setting_checks as checks
from service.lazy_settings import LazySettings
from service.limit_settings import LimitSettings
from service.policy_settings import PolicySettings, find_policy_fault
from service.setting_checks import about

ENVIRONMENT_PREFIX = "SLUICE_"
DEFAULT_ORIGIN = "default"
# Variables with the prefix that are no settings of the server: where its file is, and where `sluice up` keeps state.
FOREIGN_VARIABLES = frozenset({"SLUICE_CONFIG", "SLUICE_STATE_DIR"})


class SettingsError(ValueError):
    """A setting that cannot be used; the text names it, where it came from, and what was expected and given."""


@dataclass(frozen=True, kw_only=True)
class Settings(LimitSettings, LazySettings, PolicySettings):
    """Every setting of the server, with its type, default, meaning and check: the table that all else follows."""

    model_repository: Path = field(
        default=Path(".sluice/models"), metadata=about("Folder that holds the models.", checks.existing_directory)
    )
    model_control_mode: str = field(
        default="none",
        metadata=about(
            "When models are loaded: none, all at the start; poll, and whenever the repository changes; explicit, "
            "those of load_models, and what clients load and unload.",
            checks.one_of("none", "poll", "explicit"),
        ),
    )
    load_models: tuple[str, ...] = field(
        default=(),
        metadata=about("Name of a model to load at the start when control is explicit; * loads all.", kind="NAME"),
    )
    repository_poll_secs: float = field(
        default=15.0,
        metadata=about("Seconds between two looks at the repository with poll.", checks.between(0.1, 86400)),
    )
    host: str = field(
        default="127.0.0.1",
        metadata=about("Address to listen on, or unix:PATH, which has no port.", checks.listening_address),
    )
    grpc_port: int = field(
        default=8001, metadata=about("TCP port to listen on; 0 takes a free one.", checks.between(0, 65535))
    )
    metrics_port: int | None = field(
        default=None,
        metadata=about(
            "TCP port of the same host for /metrics, plain HTTP; 0 takes a free one; without, off. Triton's is 8002.",
            checks.between(0, 65535),
        ),
    )
    insecure: bool = field(default=False, metadata=about("Serve without TLS, to anybody who can reach the port."))
    tls_cert: Path | None = field(
        default=None, metadata=about("Certificate chain of the server, PEM.", checks.readable_file)
    )
    tls_key: Path | None = field(default=None, metadata=about("Private key of the server, PEM.", checks.readable_file))
    tls_client_ca: Path | None = field(
        default=None,
        metadata=about("Authorities that clients' certificates must come from, PEM.", checks.readable_file),
    )
    tls_client_crl: Path | None = field(
        default=None,
        metadata=about(
            "Lists of revoked certificates, PEM, one of each authority that clients come by; without it, nobody asks.",
            checks.readable_file,
        ),
    )
    max_message_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata=about("Largest message in either direction, in bytes.", checks.between(1024, 2**31 - 1)),
    )
    transport: str = field(
        default="native",
        metadata=about(
            "Who speaks gRPC: native, the compiled transport, or grpcio, the reference.",
            checks.one_of("native", "grpcio"),
        ),
    )
    io_threads: int = field(
        default=0,
        metadata=about(
            "Threads of the native transport that read and write; 0 chooses by processors.", checks.between(0, 256)
        ),
    )
    spin_us: int = field(
        default=0,
        metadata=about(
            "How long those threads look for more before they sleep, in microseconds; a processor is busy meanwhile.",
            checks.between(0, 1_000_000),
        ),
    )
    inline: str = field(
        default="auto",
        metadata=about(
            "Whether models run on those threads: auto for the quick ones, as measured, never, or always.",
            checks.one_of("auto", "never", "always"),
        ),
    )
    inline_limit_us: int = field(
        default=100,
        metadata=about(
            "What a quick model's largest batch takes at most, in microseconds, at the 99th percentile.",
            checks.between(0, 1_000_000),
        ),
    )
    drain_timeout_s: float = field(
        default=30.0,
        metadata=about(
            "How long requests may take to finish after SIGTERM, and the sequences of an unloaded version, in seconds.",
            checks.between(0, 3600),
        ),
    )
    workers: int = field(
        default=0,
        metadata=about("Threads that run batches; 0 takes two for each processor.", checks.between(0, 1024)),
    )
    intra_op_threads: int = field(
        default=0,
        metadata=about(
            "Threads that share the work of one operator, for all models together; 0 takes one for each processor.",
            checks.between(0, 1024),
        ),
    )
    inter_op_threads: int = field(
        default=1,
        metadata=about("Threads that run operators side by side, for all models together.", checks.between(1, 1024)),
    )
    max_queue_requests: int = field(
        default=4096,
        metadata=about(
            "Most requests that wait for one model version; the next gets RESOURCE_EXHAUSTED.",
            checks.between(1, 1_000_000),
        ),
    )
    max_pending_bytes: int = field(
        default=1024**3,
        metadata=about(
            "Most bytes of requests that wait or run in all; one beyond gets RESOURCE_EXHAUSTED.",
            checks.between(1024, 2**63 - 1),
        ),
    )
    response_cache_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata=about(
            "Replies that are kept for models with response_cache enabled, in bytes for all together; 0 keeps none.",
            checks.between(0, 2**62),
        ),
    )
    idempotency_bytes: int = field(
        default=0,
        metadata=about(
            "Answers that are kept for calls with an idempotency-key, in bytes for all together; 0 refuses such calls.",
            checks.between(0, 2**62),
        ),
    )
    idempotency_ttl_s: float = field(
        default=300.0,
        metadata=about("How long each of them is kept, in seconds.", checks.between(1, 86_400)),
    )
    default_max_batch_size: int = field(
        default=64,
        metadata=about(
            "Most rows of one run of a model that can be batched and does not say; 0 turns batching off.",
            checks.between(0, 65536),
        ),
    )
    log_level: str = field(
        default="info",
        metadata=about("Lowest level that is logged.", checks.one_of("debug", "info", "warning", "error")),
    )
    log_format: str = field(
        default="json", metadata=about("Form of the log on standard error.", checks.one_of("json", "text"))
    )

    trace_file: Path | None = field(
        default=None,
        metadata=about(
            "File that traces of requests are written to, once a client turns them on; without it, nobody can.",
            checks.writable_place,
        ),
    )

    # Setting name → where its value came from.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def has_tls(self) -> bool:
        """Whether the server speaks TLS and asks clients for certificates."""
        return not self.insecure


_LIMITS = {row.name for row in fields(LimitSettings)}
# What is chosen comes before what is allowed.
TABLE = {row.name: row for row in sorted(fields(Settings), key=lambda row: row.name in _LIMITS) if row.metadata}
TYPES = {name: get_type_hints(Settings)[name] for name in TABLE}


def load_settings(
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Settings from a TOML file, then environment variables, then flags; the later wins.

    Parameters
    ----------
    config
        The file; without one, that of SLUICE_CONFIG, if it is set.
    environment
        Variables by name, such as os.environ.
    flags
        Values by setting name; one that is None, or an empty list, was not given.

    Raises
    ------
    SettingsError
        A name that is no setting, a value of the wrong type or out of range, or TLS settings that do not fit together.
    """
    environment = environment or {}
    if config is None and environment.get("SLUICE_CONFIG"):
        config = Path(environment["SLUICE_CONFIG"])
    values: dict[str, object] = {}
    origins = dict.fromkeys(TABLE, DEFAULT_ORIGIN)
    for name, given, origin in _read_sources(config, environment, flags or {}):
        values[name] = _convert(name, given, origin)
        origins[name] = origin
    settings = Settings(**values, origins=origins)
    _check_values(settings)
    _check_control(settings)
    _check_lazy(settings)
    _check_transport(settings)
    _check_policy(settings)
    _check_limits(settings)
    return settings


def _read_sources(
    config: Path | None, environment: Mapping[str, str], flags: Mapping[str, object]
) -> Iterable[tuple[str, object, str]]:
    """(name, value as given, origin) from every source, the one that wins last."""
    if config is not None:
        names = {name: name for name in TABLE}
        for name, value in _read_file(config).items():
            _check_name(name, names, f"in {config}")
            yield name, value, str(config)
    variables = {ENVIRONMENT_PREFIX + name.upper(): name for name in TABLE}
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in FOREIGN_VARIABLES:
            _check_name(variable, variables, "in the environment")
            yield variables[variable], environment[variable], variable
    for name, value in flags.items():
        if value is not None and value != () and value != []:
            yield name, value, flag_name(name)


def _read_file(config: Path) -> dict[str, object]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {config}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {config}: is not TOML: {error}") from None


def _check_name(given: str, known: Mapping[str, str], where: str) -> None:
    """Refuse a name that is not a key of `known`, whose values are the settings' own names."""
    if given in known:
        return
    spelling = {name: spelled for spelled, name in known.items()}
    close = difflib.get_close_matches(given.removeprefix(ENVIRONMENT_PREFIX).lower(), spelling, n=1)
    advice = f"; did you mean {spelling[close[0]]}?" if close else ""
    raise SettingsError(f"unknown setting {given} {where}{advice}")


def flag_name(name: str) -> str:
    """The command-line flag of a setting: without the unit; singular, and repeated, where several values are taken."""
    if TYPES[name] == tuple[str, ...]:
        word = name.removesuffix("s")
    else:
        word = name if name.endswith("_per_s") else name.removesuffix("_s")
    return "--" + word.replace("_", "-")


def _convert(name: str, given: object, origin: str) -> object:
    """The value in the setting's own type; text, from a variable or a flag, is read as that type."""
    converter, expected = checks.CONVERTERS[TYPES[name]]
    try:
        return converter(given)
    except (ValueError, TypeError):
        raise SettingsError(f"setting {name} from {origin}: expected {expected}, given {given!r}") from None


def _check_values(settings: Settings) -> None:
    for name, row in TABLE.items():
        value, check = getattr(settings, name), row.metadata["check"]
        if check is not None and value is not None and (expected := check(value)):
            given = str(value) if isinstance(value, Path) else value
            raise SettingsError(f"setting {name} from {settings.origins[name]}: expected {expected}, given {given!r}")


def _check_control(settings: Settings) -> None:
    """Only who controls loading says what is loaded at the start."""
    if settings.load_models and settings.model_control_mode != "explicit":
        raise SettingsError(
            f"setting load_models from {settings.origins['load_models']}: expected model_control_mode explicit, given "
            f"{settings.model_control_mode!r}"
        )


def _check_lazy(settings: Settings) -> None:
    """Either requests say what is in memory or clients do, and a bound is of meaning to the former alone."""
    origins = settings.origins
    if settings.lazy_loading and settings.model_control_mode == "explicit":
        raise SettingsError(
            f"setting lazy_loading from {origins['lazy_loading']}: expected model_control_mode none or poll, given "
            "'explicit'"
        )
    for name in ("memory_budget_bytes", "pinned_models"):
        if getattr(settings, name) and not settings.lazy_loading:
            raise SettingsError(f"setting {name} from {origins[name]}: expected with lazy_loading, given without")


def _check_transport(settings: Settings) -> None:
    """Either plain text, on purpose, or all of TLS; never half of it."""
    names = ("tls_cert", "tls_key", "tls_client_ca")
    given = [name for name in names if getattr(settings, name) is not None]
    extra = given + [name for name in ("tls_client_crl", "allowed_clients") if getattr(settings, name)]
    if settings.insecure and extra:
        origins = settings.origins
        raise SettingsError(
            f"setting insecure from {origins['insecure']}: expected alone, given with "
            + " and ".join(f"{name} from {origins[name]}" for name in extra)
        )
    if not settings.insecure and len(given) < len(names):
        raise SettingsError(
            f"expected either insecure or all of {', '.join(names)}, given {', '.join(given) or 'none of them'}"
        )
    if settings.tls_client_crl is not None and settings.transport != "native":
        raise SettingsError(
            f"setting tls_client_crl from {settings.origins['tls_client_crl']}: expected with the native transport, "
            "given with grpcio, which would let revoked certificates in"
        )


def _check_policy(settings: Settings) -> None:
    if fault := find_policy_fault(settings, settings.origins, insecure=settings.insecure):
        raise SettingsError(fault)


def _check_limits(settings: Settings) -> None:
    """A message that is allowed fits what its connection may hold, and that what all may."""
    names = ("max_message_bytes", "max_connection_bytes", "max_buffered_bytes")
    for smaller, larger in itertools.pairwise(names):
        least, given = getattr(settings, smaller), getattr(settings, larger)
        if settings.transport == "native" and given < least:
            raise SettingsError(
                f"setting {larger} from {settings.origins[larger]}: expected at least {smaller}, {least} from "
                f"{settings.origins[smaller]}, given {given}"
            )


def format_settings(settings: Settings) -> str:
    """The settings as a TOML file that gives the same again, each line with its origin."""
    rows = [(_format_line(name, getattr(settings, name)), settings.origins[name]) for name in TABLE]
    width = max(len(line) for line, _ in rows)
    return "".join(f"{line:<{width}}  # {origin}\n" for line, origin in rows)


def _format_line(name: str, value: object) -> str:
    if value is None:
        return f"# {name} is not set"
    # A JSON string, number, boolean or list of strings is also a TOML one.
    plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    return f"{name} = {json.dumps(plain, ensure_ascii=False)}"
