"""Which of a model's versions serve, and the labels under which callers may ask for them."""

import re
from collections.abc import Collection, Iterable, Mapping

from service.config_text import FILE_NAME, ModelConfigError
from service.pb.model_config_pb2 import ModelVersionPolicy

LABELS_PARAMETER = "version_labels"
# Begins with a letter, so that no label can be taken for a number; kernels/dispatch.pyx tells them apart by that.
LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
MAX_VERSION = 10**18 - 1


def check_policy(policy: ModelVersionPolicy) -> None:
    """Refuse a policy that could choose nothing."""
    if policy.WhichOneof("policy_choice") != "specific":
        return
    if not policy.specific.versions:
        raise ModelConfigError(f"{FILE_NAME}: version_policy.specific.versions: expected version numbers, given none")
    for version in policy.specific.versions:
        if not 1 <= version <= MAX_VERSION:
            raise ModelConfigError(
                f"{FILE_NAME}: version_policy.specific.versions: expected numbers from 1 to {MAX_VERSION}, "
                f"given {version}"
            )


def choose_versions(policy: ModelVersionPolicy, found: Iterable[int]) -> tuple[int, ...]:
    """The versions to serve, ascending: all that were found where nothing is said.

    Those that the policy names are among them whether they were found or not, so that one that is missing is reported.
    """
    ascending = sorted(found)
    choice = policy.WhichOneof("policy_choice")
    if choice == "latest":
        return tuple(ascending[-(policy.latest.num_versions or 1) :])
    if choice == "specific":
        return tuple(sorted(set(policy.specific.versions)))
    return tuple(ascending)


def read_labels(text: str) -> dict[str, int]:
    """Labels and their versions from "stable=3, canary=4"; ModelConfigError for anything else."""
    labels: dict[str, int] = {}
    for part in text.split(","):
        label, _, version = (word.strip() for word in part.partition("="))
        if not LABEL.fullmatch(label) or not re.fullmatch(r"[1-9][0-9]{0,17}", version):
            raise _wrong_labels("expected NAME=VERSION, commas between, a name that begins with a letter", part.strip())
        if label in labels:
            raise _wrong_labels("expected each label once", f"{label} again")
        labels[label] = int(version)
    return labels


def check_labels(labels: Mapping[str, int], chosen: Collection[int]) -> None:
    """Refuse a label of a version that is not to serve."""
    for label, version in labels.items():
        if version not in chosen:
            served = ", ".join(map(str, chosen))
            raise _wrong_labels(f"expected versions that serve, which are {served}", f"{label}={version}")


def _wrong_labels(expected: str, given: str) -> ModelConfigError:
    return ModelConfigError(f"{FILE_NAME}: parameters[{LABELS_PARAMETER!r}]: {expected}; given {given!r}")
