"""The Ray cluster of a run."""

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
from search.cluster.ray_token import cluster_token, token_is_configured
from search.environment import environment
from search.errors import ClusterError, RunError, first_line
from serving.leftovers import sweep

OBJECT_STORE_BYTES = 80 << 20
CLEANUP_S = 30
_ANSWER_S, _CONNECT_S = 60.0, 5.0


_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": str(CLEANUP_S),
    "RAY_USAGE_STATS_ENABLED": "0",
    # Tune's newer output prints a box even with verbose=0.
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextlib.contextmanager
def ray_cluster(
    address: str | None = None, processes: int = 1, ray_output: bool = False, ended: str = ""
) -> Iterator[Path]:
    """The Ray cluster at an address, or one on this host alone.

    Yields a folder for what is needed meanwhile, which is gone when this ends.

    Args:
        processes: of load, that there is room for on this host alone.
        ended: what is said on standard error where this process is killed meanwhile.

    Raises:
        RunError: nothing answers at the address, or it is not this host's cluster.
        ClusterError: Ray failed meanwhile.
        CommandError: Ray's token cannot be made.
    """
    if address is not None:
        _check_that_one_answers(address)
    elif not token_is_configured() and os.environ.get("RAY_AUTH_MODE") != "disabled":
        cluster_token(None, make=True)  # Ray's own would be everybody's to read.
    sweep()
    remove_stale_folders()
    with (
        environment(_ENVIRONMENT),
        temporary_folder(RAY_PREFIX, ended) as folder,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(ray.shutdown)
        local: dict[str, Any] = {
            "include_dashboard": False,
            "num_cpus": 2,
            "resources": {SERVING_RESOURCE: 1, LOADGEN_RESOURCE: processes},
            "object_store_memory": OBJECT_STORE_BYTES,
            # Ray opens its own folder to everybody; the one around it is this user's alone.
            "_temp_dir": str(folder / "ray"),
        }
        try:
            # Ray puts the working directory first on its workers' module search path: the user's
            # may hold a folder `serving`.
            with contextlib.chdir(folder):
                ray.init(
                    address=address or "local",
                    log_to_driver=ray_output,
                    logging_level=logging.INFO if ray_output else logging.ERROR,
                    **({} if address else local),
                )
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            if address is None:
                raise
            raise RunError(
                f"cluster.address: this host is not part of a Ray cluster at {address}, or has not "
                f"its token ({first_line(str(error))}); servetune up --join makes it one"
            ) from None
        try:
            yield folder
        except RayError as error:
            raise ClusterError(f"Ray failed: {first_line(str(error))}") from error


def _check_that_one_answers(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # "auto", and what Ray knows how to find.
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"cluster.address: nothing answers at {address} ({error}); servetune up --head starts "
            "a cluster there"
        ) from None
