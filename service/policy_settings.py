"""The settings that say who may call, and who may do what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service import setting_checks as checks
from service.setting_checks import about

# What reaches beyond a request, by names under which others than local peers can be allowed to.
CONTROLS = ("log_settings", "model_overrides", "shared_memory", "trace_settings")


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """A part of the table of settings."""

    allowed_clients: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "URI name in a client's certificate that may call; without one, every client may.", checks.uris, kind="URI"
        ),
    )
    policy: Path | None = field(
        default=None,
        metadata=about(
            "Deployment file whose section access says what callers may do, which is then checked for each call; "
            "without it, whoever may call may do everything.",
            checks.readable_file,
        ),
    )
    gateways: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "URI name in a client's certificate whose word on behalf of whom it calls is believed; without one, those "
            "of allowed_clients.",
            checks.uris,
            kind="URI",
        ),
    )
    remote_controls: tuple[str, ...] = field(
        default=(),
        metadata=about(
            f"What others than this machine's own peers may change too, of {', '.join(CONTROLS)}.",
            checks.some_of(*CONTROLS),
        ),
    )


def find_policy_fault(settings: PolicySettings, origins: Mapping[str, str], *, insecure: bool) -> str:
    """What of these settings does not fit together: a policy is about proven names, and what it says holds alone."""
    if settings.policy is None:
        if settings.gateways:
            return f"setting gateways from {origins['gateways']}: expected with policy, given without"
        return ""
    for name, is_given in (("insecure", insecure), ("remote_controls", settings.remote_controls)):
        if is_given:
            return f"setting policy from {origins['policy']}: expected without {name}, given with it"
    strangers = set(settings.gateways) - set(settings.allowed_clients)
    if settings.allowed_clients and strangers:
        given = ", ".join(sorted(strangers))
        return f"setting gateways from {origins['gateways']}: expected some of allowed_clients, given {given}"
    return ""
