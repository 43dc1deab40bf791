"""An actor on a host for as long as a run lasts."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
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

_SLICE_S, _SLICES = 0.2, 6


class Host:
    """An actor that sits on a host for as long as a run lasts."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        atexit.register(self.close)

    def look(self, serves: bool, python: str | None, java: str | None) -> dict[str, Any]:
        """What this host is, and why it cannot serve where it is to: `Look`'s fields."""
        told: dict[str, Any] = {"host": describe_host()}
        if serves:
            try:
                told["versions"] = describe_versions(find_installation(python, java))
            except ServerError as error:
                told["lacks"] = (str(error),)
        return told

    def lock_host(self) -> str | None:
        """Keep other measurements out of this host; why that is impossible."""
        try:
            self._held.enter_context(exclusive_host())
        except RunError as error:
            return str(error)
        return None

    def speed(self) -> float:
        """Units of work a second that all cores together can do; see `measure_speed`."""
        return measure_speed()

    def begin_upload(self, name: str) -> None:
        """Make room for an archive, in a folder of this host's own."""
        remove_stale_folders()
        self._archive = self._held.enter_context(temporary_folder(HOST_PREFIX)) / name

    def write_chunk(self, part: bytes) -> None:
        """Write its next part."""
        with self._archive.open("ab") as file:
            file.write(part)

    def finish_upload(self, sha256: str) -> str:
        """The folder, where all of the archive is there.

        Raises:
            RunError: what arrived is not what was sent.
        """
        with self._archive.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise RunError(f"the archive {self._archive.name} did not arrive whole")
        return str(self._archive.parent)

    def close(self) -> None:
        """Let others in, and leave nothing."""
        self._held.close()


def measure_speed() -> float:
    """Units of work a second: one core's best of several short slices, times the cores.

    A unit is what inference and its front end are made of: a product of matrices, and bytes
    that are gone over.
    """
    matrix = np.random.default_rng(0).random((96, 96), dtype=np.float32)
    text = bytes(range(256)) * 256
    best = 0.0
    for _ in range(_SLICES):
        units, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < _SLICE_S:
            zlib.crc32(text)
            np.einsum("ij,jk->ik", matrix, matrix)
            units += 1
        best = max(best, units / spent)
    return best * len(os.sched_getaffinity(0))
