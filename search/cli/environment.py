"""Environment variables that Ray reads when it is imported, for the duration of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from search.cluster.ray_token import TOKEN_PATH, token_is_configured
from search.environment import environment

#: Log lines of Ray that repeat the cause of a failed trial or of the end of the run.
_REPEATED_LINES = "^(A worker died or was killed|Raylet is terminated|The node with node id)"


@contextlib.contextmanager
def ray_environment(ray_output: bool) -> Iterator[None]:
    """Make Ray send the cluster's token, if there is one, and hide what servetune reports itself.

    Args:
        ray_output: whether to keep all log lines of Ray.
    """
    variables = {}
    if token_is_configured() or TOKEN_PATH.expanduser().is_file():
        variables["RAY_AUTH_MODE"] = "token"
    if not ray_output:
        variables["RAY_DEDUP_LOGS_SKIP_REGEX"] = _REPEATED_LINES
    with environment(variables, override=False):
        yield
