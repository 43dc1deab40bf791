"""Report on a host, lock it and receive the archive on it, for the duration of a run."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import time
import zlib
from typing import Any

import numpy as np

from search.cluster.folders import HOST_PREFIX, remove_stale_folders, temporary_folder
from search.errors import RunError
from search.trial.host_info import describe_host, describe_versions
from search.trial.host_lock import exclusive_host
from serving.errors import ServerError
from serving.installation import find_installation
from serving.limits import available_cores

_SLICE_S, _SLICES = 0.2, 6


class HostActor:
    """An actor on a host of the cluster for the duration of a run."""

    def __init__(self) -> None:
        self._resources = contextlib.ExitStack()
        atexit.register(self.close)

    def report(self, serves: bool, python: str | None, java: str | None) -> dict[str, Any]:
        """Return the fields of this host's `HostReport`, except the node.

        Args:
            serves: whether TorchServe must be installed here.
        """
        report: dict[str, Any] = {"host": describe_host()}
        if serves:
            try:
                report["versions"] = describe_versions(find_installation(python, java))
            except ServerError as error:
                report["problems"] = (str(error),)
        return report

    def lock_host(self) -> str | None:
        """Keep other measurements out of this host; return why that failed, or None."""
        try:
            self._resources.enter_context(exclusive_host())
        except RunError as error:
            return str(error)
        return None

    def speed(self) -> float:
        """See `measure_speed`."""
        return measure_speed()

    def begin_upload(self, name: str) -> None:
        """Make a temporary folder for an archive of this name."""
        remove_stale_folders()
        self._archive = self._resources.enter_context(temporary_folder(HOST_PREFIX)) / name

    def write_chunk(self, chunk: bytes) -> None:
        """Append to the archive."""
        with self._archive.open("ab") as file:
            file.write(chunk)

    def finish_upload(self, sha256: str) -> str:
        """Check the archive; return its folder.

        Raises:
            RunError: the archive's SHA-256 is not the expected one.
        """
        with self._archive.open("rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
        if received != sha256:
            raise RunError(
                f"the archive {self._archive.name} did not arrive whole: "
                f"its SHA-256 is {received}, expected {sha256}"
            )
        return str(self._archive.parent)

    def close(self) -> None:
        """Unlock the host and remove the archive."""
        self._resources.close()


def measure_speed() -> float:
    """Return units of work per second: one core's best of several slices, times the cores.

    A unit is a matrix product and a checksum, similar to inference and its front end.
    """
    matrix = np.random.default_rng(0).random((96, 96), dtype=np.float32)
    data = bytes(range(256)) * 256
    best = 0.0
    for _ in range(_SLICES):
        units, started_s = 0, time.perf_counter()
        while (elapsed_s := time.perf_counter() - started_s) < _SLICE_S:
            zlib.crc32(data)
            np.einsum("ij,jk->ik", matrix, matrix)
            units += 1
        best = max(best, units / elapsed_s)
    return best * available_cores()
