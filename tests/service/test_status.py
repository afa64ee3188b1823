"""The status map: whole, and silent about what nobody foresaw."""

import grpc
import pytest

from kernels import status
from service import status as service_status
from service.status import GRPC_CODES, UNFORESEEN, NotFoundError, ServiceError, describe_error


def test_map_covers_every_kernel_status_with_a_code_of_its_own():
    """A status that kernels gain must be mapped."""
    codes = {value for name, value in vars(status).items() if name.isupper() and isinstance(value, int)}
    assert set(GRPC_CODES) == codes
    assert len(set(GRPC_CODES.values())) == len(codes)


def test_describe_error_of_ours_gives_its_status_and_text():
    """The caller hears what to change."""
    assert describe_error(NotFoundError("unknown model 'a'")) == (grpc.StatusCode.NOT_FOUND, "unknown model 'a'")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("InvalidArgumentError", "INVALID_ARGUMENT"),
        ("NotFoundError", "NOT_FOUND"),
        ("UnavailableError", "UNAVAILABLE"),
        ("PermissionDeniedError", "PERMISSION_DENIED"),
        ("UnimplementedError", "UNIMPLEMENTED"),
    ],
)
def test_each_service_error_has_its_status(name, code):
    """An error's class says which status it is."""
    assert describe_error(getattr(service_status, name)("x"))[0] is grpc.StatusCode[code]


@pytest.mark.parametrize("error", [ValueError("secret path"), ServiceError("secret path"), OSError(2, "secret path")])
def test_describe_error_unforeseen_is_internal_and_shows_nothing(error, caplog):
    """The detail is in the log and nowhere else."""
    assert describe_error(error) == (grpc.StatusCode.INTERNAL, UNFORESEEN)
    assert "secret path" in caplog.text
