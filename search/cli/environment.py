"""Environment variables that Ray reads as it is imported, for the duration of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from search.cluster.ray_token import TOKEN_PATH, token_is_configured
from search.environment import environment

#: Lines of Ray that repeat what a trial's cause, or the end of the run, says.
_SKIPPED_LINES = "^(A worker died or was killed|Raylet is terminated|The node with node id)"


@contextlib.contextmanager
def ray_environment(ray_output: bool) -> Iterator[None]:
    """Send the cluster's token if there is one; leave out lines that servetune reports itself."""
    variables = {}
    if token_is_configured() or TOKEN_PATH.expanduser().is_file():
        variables["RAY_AUTH_MODE"] = "token"
    if not ray_output:
        variables["RAY_DEDUP_LOGS_SKIP_REGEX"] = _SKIPPED_LINES
    with environment(variables, override=False):
        yield
