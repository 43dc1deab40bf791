"""Connect to the Ray cluster of a run, or start one on this host."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from loadgen.ray_process import LOADGEN_RESOURCE
from search.cluster.folders import RAY_PREFIX, remove_stale_folders, temporary_folder
from search.cluster.placement import SERVING_RESOURCE
from search.cluster.ray_token import cluster_token_file, token_is_configured
from search.environment import RAY_NICENESS, environment
from search.errors import ClusterError, RunError, first_line
from serving.leftovers import remove_leftovers

OBJECT_STORE_BYTES = 80 << 20
_CLEANUP_S, _CONNECT_TIMEOUT_S = 30, 5.0
_RAY_VARIABLES = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": str(_CLEANUP_S),
    "RAY_USAGE_STATS_ENABLED": "0",
    # Tune's newer output prints a box even with verbose=0.
    "RAY_AIR_NEW_OUTPUT": "0",
    **RAY_NICENESS,
}


@contextlib.contextmanager
def ray_cluster(
    address: str | None = None,
    processes: int = 1,
    ray_output: bool = False,
    message_if_killed: str = "",
) -> Iterator[Path]:
    """Connect to the Ray cluster at an address, or start one on this host.

    Yields a temporary folder that is removed afterwards.

    Args:
        address: None starts a cluster.
        processes: load generator processes that a started cluster has room for.
        ray_output: let Ray print its log.
        message_if_killed: printed on standard error if this process is killed.

    Raises:
        RunError: nothing answers at the address, or this host is not part of that cluster.
        ClusterError: Ray failed inside the context.
        CommandError: Ray's token cannot be created.
    """
    if address is not None:
        _check_address(address)
    elif not token_is_configured() and os.environ.get("RAY_AUTH_MODE") != "disabled":
        # Ray would create the file with permissions for every user.
        cluster_token_file(None, create=True)
    remove_leftovers()
    remove_stale_folders()
    with (
        environment(_RAY_VARIABLES),
        temporary_folder(RAY_PREFIX, message_if_killed) as folder,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(ray.shutdown)
        local_options: dict[str, Any] = {
            "include_dashboard": False,
            "num_cpus": 2,
            "resources": {SERVING_RESOURCE: 1, LOADGEN_RESOURCE: processes},
            "object_store_memory": OBJECT_STORE_BYTES,
            # Every user may read Ray's folder; only this user may enter the one around it.
            "_temp_dir": str(folder / "ray"),
        }
        try:
            # Ray puts the working directory first on its workers' module search path; the user's
            # may contain a folder `serving`.
            with contextlib.chdir(folder):
                ray.init(
                    address=address or "local",
                    log_to_driver=ray_output,
                    logging_level=logging.INFO if ray_output else logging.ERROR,
                    **({} if address else local_options),
                )
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            if address is None:
                raise
            raise RunError(
                f"cluster.address: this host is not part of the Ray cluster at {address}, or does "
                f"not have its token ({first_line(error)}); join it with servetune up --join"
            ) from None
        try:
            yield folder
        except RayError as error:
            raise ClusterError(f"Ray failed: {first_line(error)}") from error


def _check_address(address: str) -> None:
    """Refuse an address at which nothing answers; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # "auto", or another form that Ray resolves.
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"cluster.address: nothing answers at {address} ({error}); "
            "start a cluster there with servetune up --head"
        ) from None
