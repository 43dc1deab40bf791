"""Measure exported files again, and judge by the history whether their rate has fallen."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.rate.goal import Depth
from loadgen.rate.result import StopReason, SustainedRate
from search.atomic_files import sync_folder
from search.errors import RunError
from search.export.drift import MAX_REPEATS, Drift, detect_drift
from search.export.exported_files import ExportedFiles
from search.export.loaded_server import (
    ExportedLoad,
    OnPhase,
    loaded_server,
    rate_search,
    read_exported,
)
from search.formats import RECHECK_VERSION, check_version
from search.measure.endpoint import MAX_PROCESSES
from search.study.run_folder import Run
from search.trial.host_lock import exclusive_host

HISTORY_FILE = "recheck.jsonl"


@dataclass(frozen=True)
class Recheck:
    """The state of an exported configuration.

    Attributes:
        expected_rps: the rate that the run expects of one measurement.
        history_rps: all measurements, oldest first; 0 for one without an answer.
        measured: the number of measurements that were added now.
        problem: why the last measurement has no answer; empty if it has one.
    """

    expected_rps: float
    history_rps: tuple[float, ...]
    measured: int
    drift: Drift
    problem: str = ""


async def recheck(
    folder: Path,
    run: Run | None,
    requests: Path | None,
    model_store: Path | None,
    url: str | None,
    history: Path | None,
    on_phase: OnPhase,
) -> Recheck:
    """Measure the closed loop of exported files, and append it to their history.

    While the history leaves it open whether the rate has fallen, the measurement is repeated, at
    most three times.

    Args:
        run: the run that the files come from; its requests are sent.
        requests: requests file; overrides that of the run.
        model_store: folder of the archive; overrides that of the run.
        url: a server that runs these files already; None to start one.
        history: file of the measurements; recheck.jsonl in the folder if None.

    Raises:
        RunError, ArchiveError, ConfigError, PayloadError: an input is missing or invalid.
        ServerError: the server does not start.
        GeneratorLostError: a load generator process was lost twice.
    """
    history = history or folder / HISTORY_FILE
    rates = read_history(history)
    earlier = len(rates)
    with tempfile.TemporaryDirectory(prefix="servetune-recheck-") as temporary:
        files, spec = read_exported(folder, run, model_store, Path(temporary))
        load = ExportedLoad.read(files, spec, requests)
        expected_rps = float(files.claim["expected_rps"])
        with exclusive_host():
            for _ in range(MAX_REPEATS):
                found = await _measure(files, load, url, on_phase, Path(temporary))
                is_served = found.stop_reason is not StopReason.NOT_SERVED
                rate_rps = found.capacity_rps if is_served else 0.0
                rates.append(rate_rps)
                _append(history, rate_rps)
                drift = detect_drift(expected_rps, rates)
                if not drift.is_uncertain:
                    break
    problem = "" if is_served else found.reason
    return Recheck(expected_rps, tuple(rates), len(rates) - earlier, drift, problem)


async def _measure(
    files: ExportedFiles, load: ExportedLoad, url: str | None, on_phase: OnPhase, scratch: Path
) -> SustainedRate:
    """Run a closed loop."""
    if url is None:
        async with loaded_server(files, load, scratch) as loaded:
            search = loaded.rate_search(load.goal, on_phase, Depth.ESTIMATE)
            return await loaded.server.guard(search.find())
    fleet = Fleet(local_processes(load.payloads), max_processes=MAX_PROCESSES)
    try:
        await fleet.set_target(url)
        capacity = int(files.claim["batch_capacity"])
        return await rate_search(fleet, capacity, load.goal, on_phase, Depth.ESTIMATE).find()
    finally:
        fleet.close()


def read_history(history: Path) -> list[float]:
    """Return the rates of a history; a line that a full disk cut off is left out.

    Raises:
        RunError: the file cannot be read, or has another format version.
    """
    if not history.exists():
        return []
    rates = []
    try:
        lines = history.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"history {history} cannot be read: {error}") from None
    for line in lines:
        try:
            record = json.loads(line)
            rate_rps = float(record["estimate_rps"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
        check_version(record, RECHECK_VERSION, history)
        if math.isfinite(rate_rps):
            rates.append(rate_rps)
    return rates


def _append(history: Path, rate_rps: float) -> None:
    """Append a line, after a line break if the line before it has none, and sync it to disk."""
    record = {"format_version": RECHECK_VERSION, "time_s": round(time.time(), 1)}
    record["estimate_rps"] = rate_rps
    try:
        with history.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            start = b"" if file.read(1) in (b"", b"\n") else b"\n"
            file.write(start + json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(history.parent)
    except OSError as error:
        raise RunError(f"history {history} cannot be written: {error.strerror}") from None
