"""Ray's Jobs API: on the cluster that the service is given, or on one that it starts here."""

from __future__ import annotations

import contextlib
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
from search.service.job_queue import Status
from search.service.jobs import Job, write_json
from serving.identity import identity, is_alive

_START_S, _STOP_S = 60.0, 30.0
_POLL_S = 0.3
#: A Ray that lives answers within this, also on a busy host.
_FIND_S = 15.0
#: More load processes than any specification may ask for.
_LOADGENS = 64


class Cluster:
    """Where jobs run.

    Args:
        address: of Ray's dashboard, `http://HOST:PORT`.

    Raises:
        ServiceError: nothing answers there.
    """

    def __init__(self, address: str):
        try:
            self._client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ServiceError(
                f"no Ray dashboard with the Jobs API answers at {address}: {error}"
            ) from None

    def submit(self, job: Job) -> None:
        """Start a job's process."""
        self._client.submit_job(
            # Ray gives it to a shell.
            entrypoint=shlex.join(
                [sys.executable, "-P", "-m", "search.service.worker", str(job.folder)]
            ),
            submission_id=job.submission_id,
            metadata={"servetune_job": job.id},
        )

    def status(self, job: Job) -> Status:
        """What Ray knows of the job's present attempt."""
        try:
            status = self._client.get_job_status(job.submission_id)
        except RuntimeError as error:
            if "does not exist" in str(error):
                return Status.UNKNOWN
            raise
        is_over = status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
        return Status.OVER if is_over else Status.RUNNING

    def kill(self, job: Job) -> None:
        """End a job's process at once."""
        self._client.stop_job(job.submission_id)


@dataclass(frozen=True)
class LocalCluster:
    """A cluster of this host alone, which outlives whoever started it.

    Attributes:
        holder: the identity of the `servetune up` that holds it together.
        address: of its dashboard.
    """

    holder: str
    address: str

    @classmethod
    def find(cls, root: Path) -> LocalCluster | None:
        """The one that an earlier service left; None where it is gone, and then all of it is."""
        try:
            found = cls(**json.loads((root / "cluster.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        deadline = time.monotonic() + _FIND_S
        while is_alive(found.holder) and time.monotonic() < deadline:
            if _answers(found.address):
                return found
            time.sleep(_POLL_S)
        found.stop()
        return None

    @classmethod
    def start(cls, root: Path) -> LocalCluster:
        """Start one, and remember it in `root`.

        Raises:
            ServiceError: it did not come up.
        """
        port, dashboard = free_ports(2)
        log = (root / "cluster.log").open("wb")
        with log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "servetune", "up", "--head", "--any-ports"),
                    *("--role", "serving", "--role", "loadgen", "--processes", str(_LOADGENS)),
                    *("--address", "127.0.0.1", "--port", str(port)),
                    *("--dashboard-port", str(dashboard)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        found = cls(identity(process.pid), f"http://127.0.0.1:{dashboard}")
        write_json(root / "cluster.json", vars(found))
        deadline = time.monotonic() + _START_S
        while not _answers(found.address):
            if process.poll() is not None or time.monotonic() > deadline:
                found.stop()
                raise ServiceError(
                    f"Ray did not start within {_START_S:.0f} s; {root / 'cluster.log'} says why"
                )
            time.sleep(_POLL_S)
        return found

    def stop(self) -> None:
        """End it, and all that it started."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(int(self.holder.split()[0]))
            if is_alive(self.holder):
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=_STOP_S)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # It asks for its token.
    except OSError:
        return False
