"""Secrets that a host makes for itself, in files that only their owner may read."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from search.errors import CommandError

#: Where Ray itself looks for the token of a cluster, unless one of the variables tells it.
TOKEN_PATH = Path("~/.ray/auth_token")
_TOLD = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def token_is_configured() -> bool:
    """Whether the environment has Ray's token, or where it is."""
    return any(os.environ.get(name) for name in _TOLD)


def make_secret(path: Path) -> None:
    """Write one where there is none.

    Raises:
        OSError: the file cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))


def cluster_token(path: Path | None, make: bool) -> Path:
    """The file with a cluster's token; where it is to be made, only its owner may read it.

    Raises:
        CommandError: there is none, or it cannot be made.
    """
    path = (path or TOKEN_PATH).expanduser().resolve()
    try:
        if make:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_secret(path)
            if path.stat().st_uid == os.getuid():
                path.chmod(0o600)  # One that Ray made everybody may read.
    except OSError as error:
        raise CommandError(f"{path}, a cluster's token, cannot be made: {error}") from None
    if not path.is_file():
        raise CommandError(f"{path} is not there; copy the head's, or name it by --token-file")
    return path
