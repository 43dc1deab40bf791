"""The token of a Ray cluster, and other secrets in files that only their owner may read."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from search.errors import CommandError

#: Where Ray looks for the token if no environment variable names it.
TOKEN_PATH = Path("~/.ray/auth_token")
_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def token_is_configured() -> bool:
    """Return whether an environment variable contains Ray's token or names its file."""
    return any(os.environ.get(name) for name in _TOKEN_VARIABLES)


def create_secret_file(path: Path) -> None:
    """Write a random secret into a file, unless the file exists.

    Raises:
        OSError: the file cannot be created.
    """
    if path.exists():
        return
    # A process that is killed in between must not leave an empty file.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()


def cluster_token_file(path: Path | None, create: bool) -> Path:
    """Return the absolute path of the file with a cluster's token.

    Args:
        path: None for `TOKEN_PATH`.
        create: create the file if it is missing, and let only its owner read it.

    Raises:
        CommandError: the file is missing or cannot be created.
    """
    path = (path or TOKEN_PATH).expanduser().resolve()
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            create_secret_file(path)
            if path.stat().st_uid == os.getuid():
                path.chmod(0o600)  # Ray creates files that every user may read.
    except OSError as error:
        raise CommandError(f"the cluster token {path} cannot be created: {error}") from None
    if not path.is_file():
        raise CommandError(
            f"there is no cluster token at {path}; copy the head's, "
            "or name another file with --token-file"
        )
    return path
