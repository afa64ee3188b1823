"""Replaces files in one step, so that no reader (Envoy's watches among them) ever sees half of one."""

import os
from pathlib import Path

PUBLIC_MODE = 0o644
SECRET_MODE = 0o600


def replace_file(path: Path, content: bytes, mode: int = PUBLIC_MODE) -> None:
    """Put `content` at `path` by writing a temporary file in the same folder and renaming it.

    Parameters
    ----------
    mode : int
        Permissions from the file's first moment on: a secret is never readable by others in between.

    Notes
    -----
    Writers of one path must exclude each other: the temporary's name is fixed, so that a crash leaves at most one
    behind, which the next write clears.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # the umask may have taken bits that readers of a public file need
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)
