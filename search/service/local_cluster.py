"""The Ray cluster of a service on this host: `python -m search.service.local_cluster FOLDER …`.

It outlives the service that started it, so that jobs continue without it. It ends when the
service is gone and its last job has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from search.cluster.node import NodeOptions, RunningNode, free_ports
from search.cluster.ray_token import cluster_token_file
from search.service.jobs import JobStore
from search.spec.sections import MAX_LOAD_PROCESSES
from serving.identity import process_identity

#: The file that names the cluster, in the service's folder.
CLUSTER_FILE = "cluster.json"
#: The file that the service locks while it runs.
LOCK_FILE = "lock"
#: The cluster ends when it has not been needed for this time, seconds: a service may restart.
UNNEEDED_LIMIT_S = 15.0
_POLL_S = 1.0


def main(root: Path, port: int, dashboard_port: int) -> None:
    """Run the cluster until it is stopped or no longer needed."""
    (client_port,) = free_ports(1)
    options = NodeOptions(
        join=None,
        address="127.0.0.1",
        serves=True,
        loadgen=MAX_LOAD_PROCESSES,
        port=port,
        token=cluster_token_file(None, create=True),
        ports={"dashboard-port": dashboard_port, "ray-client-server-port": client_port},
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), RunningNode(options) as node:
        print(node.start_message(), flush=True)
        needed_s = time.monotonic()
        while not node.has_ended(_POLL_S):
            if is_replaced(root):
                print("the service started another cluster", flush=True)
                return
            if is_needed(root):
                needed_s = time.monotonic()
            elif time.monotonic() - needed_s > UNNEEDED_LIMIT_S and retire(root):
                print("the service and its jobs have ended", flush=True)
                return
        print(f"Ray ended:\n{node.log_tail()}", flush=True)


def is_replaced(root: Path) -> bool:
    """Return whether the service uses another cluster than this process's, and no job runs.

    It starts another one if the file that names this one is damaged.
    """
    try:
        named = str(json.loads((root / CLUSTER_FILE).read_text())["process"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
    is_other = named != process_identity(os.getpid())
    return is_other and not any(job.is_active() for job in JobStore(root).all())


def is_needed(root: Path) -> bool:
    """Return whether a service uses this folder, or one of its jobs runs."""
    with _without_service(root) as is_alone:
        return not is_alone or any(job.is_active() for job in JobStore(root).all())


def retire(root: Path) -> bool:
    """Make the next service start another cluster; return False if this one is needed again."""
    with _without_service(root) as is_alone:
        if not is_alone or any(job.is_active() for job in JobStore(root).all()):
            return False
        (root / CLUSTER_FILE).unlink(missing_ok=True)
        return True


@contextlib.contextmanager
def _without_service(root: Path) -> Iterator[bool]:
    """Yield whether no service runs; none starts in the context."""
    try:
        lock = (root / LOCK_FILE).open("w")
    except OSError:
        yield True  # The folder was removed.
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
