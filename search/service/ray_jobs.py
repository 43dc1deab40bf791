"""Run jobs through Ray's Jobs API, on a given cluster or on one started on this host."""

from __future__ import annotations

import contextlib
import http.client
import json
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.job_submission import JobStatus, JobSubmissionClient

from search.cluster.node import free_ports
from search.errors import ServiceError
from search.service.job_queue import ProcessStatus
from search.service.jobs import Job, write_json
from search.service.local_cluster import CLUSTER_FILE
from serving.identity import is_alive, process_identity

_START_S, _STOP_S = 60.0, 30.0
_POLL_S = 0.3
#: Seconds within which a live Ray answers, even on a busy host.
_FIND_S = 15.0


class RayJobs:
    """A `JobRunner` on a Ray cluster.

    Args:
        address: URL of Ray's dashboard, `http://HOST:PORT`.

    Raises:
        ServiceError: no dashboard answers there.
    """

    def __init__(self, address: str):
        try:
            self._client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ServiceError(
                f"no Ray dashboard with the Jobs API answers at {address}: {error}"
            ) from None

    def submit(self, job: Job) -> None:
        """See `JobRunner.submit`."""
        self._client.submit_job(
            # Ray passes the entry point to a shell.
            entrypoint=shlex.join(
                [sys.executable, "-P", "-m", "search.service.worker", str(job.folder)]
            ),
            submission_id=job.submission_id,
            metadata={"servetune_job": job.id},
        )

    def status(self, job: Job) -> ProcessStatus:
        """See `JobRunner.status`."""
        try:
            status = self._client.get_job_status(job.submission_id)
        except RuntimeError as error:
            if "does not exist" in str(error):
                return ProcessStatus.UNKNOWN
            raise
        is_over = status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
        return ProcessStatus.OVER if is_over else ProcessStatus.RUNNING

    def kill(self, job: Job) -> None:
        """See `JobRunner.kill`."""
        self._client.stop_job(job.submission_id)


@dataclass(frozen=True)
class LocalCluster:
    """A Ray cluster on this host, which outlives the process that started it.

    Attributes:
        process: the identity of its process; see `search.service.local_cluster`.
        address: URL of its dashboard.
    """

    process: str
    address: str

    @classmethod
    def find(cls, root: Path) -> LocalCluster | None:
        """Return the cluster that an earlier service started; None if its file is damaged.

        If it does not answer, stop all of it and return None.
        """
        try:
            cluster = cls(**json.loads((root / CLUSTER_FILE).read_text()))
            is_alive(cluster.process)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None
        deadline = time.monotonic() + _FIND_S
        while is_alive(cluster.process) and time.monotonic() < deadline:
            if _answers(cluster.address):
                return cluster
            time.sleep(_POLL_S)
        cluster.stop()
        return None

    @classmethod
    def start(cls, root: Path) -> LocalCluster:
        """Start a cluster, and record it in `root`.

        Raises:
            ServiceError: it did not start in time.
        """
        port, dashboard_port = free_ports(2)
        log_path = root / "cluster.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "search.service.local_cluster"),
                    *(str(root), str(port), str(dashboard_port)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        cluster = cls(process_identity(process.pid), f"http://127.0.0.1:{dashboard_port}")
        write_json(root / CLUSTER_FILE, vars(cluster))
        deadline = time.monotonic() + _START_S
        while not _answers(cluster.address):
            if process.poll() is not None or time.monotonic() > deadline:
                cluster.stop()
                raise ServiceError(
                    f"Ray did not start within {_START_S:.0f} s; see the reason in {log_path}"
                )
            time.sleep(_POLL_S)
        return cluster

    def stop(self) -> None:
        """Stop the cluster and every process that it started."""
        if not is_alive(self.process):
            return
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(int(self.process.split()[0]))
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=_STOP_S)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # It requires its token.
    except (OSError, ValueError, http.client.HTTPException):
        return False
