"""Run a search while its processes are killed at random: `python -m benchmarks.soak`.

Real runs of a light model, each with a search and a confirmation, whose winner is exported in every
format and measured again. At random intervals, one of the processes is killed, or the run is
interrupted; a run that ended early is resumed. Every second run is long, and no fault ends its
driver: only a long session shows whether anything grows. The benchmark reports lost results,
orphaned processes and files, and the growth of memory, files, ports, threads and processes with its
95 % interval.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from benchmarks.record import write_study
from benchmarks.resources import FIGURES, Sample, sample, slope
from search.export.common import ExportFormat
from search.study.reading import open_store
from search.study.run_folder import Run
from search.trial.request import TrialOrigin
from search.trial.result import TrialState

#: Processes to kill: a part of the command line, and the weight among the faults.
VICTIMS = {
    "JVM": ("org.pytorch.serve.ModelServer", 20),
    "TorchServe worker": ("model_service_worker", 20),
    "supervisor": ("supervisor.py", 10),
    "load generator": ("ray::_LoadActor", 20),
    "trial process": ("ray::ResourceTrainable", 10),
    "raylet": ("raylet/raylet", 5),
}
DRIVER, CTRL_C = "driver", "Ctrl-C"
#: Faults of the driver, with their weights.
SESSION_FAULTS = {DRIVER: 10, CTRL_C: 5}
#: Faults that end a session.
ENDING = (*SESSION_FAULTS, "raylet")
SECTIONS = {
    "name": "soak",
    "space": {
        "workers": {"low": 1, "high": 4},
        "batch_size": {"low": 1, "high": 64},
        "max_batch_delay_ms": {"low": 1, "high": 200},
    },
    "goal": {"window_s": 2, "window_limit_s": 6, "search_limit_s": 15},
    # Short runs: each part of a run must end between two faults that end a session.
    "search": {"trials": 6, "min_improvement_probability": 0},
    "confirm": {"rounds": 3, "finalists": 2, "time_limit_s": 60},
}
#: Number of trials of a long run.
LONG_TRIALS = 30
#: Range of the time between two faults, seconds.
FAULT_INTERVAL_S = (10.0, 60.0)
#: Time for the processes and files of a session to disappear after its end, seconds.
CLEANUP_LIMIT_S = 60.0
#: Time between two samples of the resources, seconds.
SAMPLE_INTERVAL_S = 5.0
#: A driver loads modules and fills caches in this time, seconds: no sample is taken.
WARM_UP_S = 120.0


class Soak:
    """Runs one after another, their faults and their effects.

    Args:
        spec: the specification of the runs.
        random_source: draws the faults and their times.

    Attributes:
        log: the output of all drivers.
        faults: number of faults by name.
        orphans: processes and files that were left after a session.
        exit_statuses: number of sessions by exit status.
        unexpected_ends: sessions that ended without a fault that ends one, or did not end in time.
        recorded: the line of each trial that was ever in trials.jsonl, by run and number.
        lost: runs and numbers of trials whose line was removed or changed.
        finished: the runs that ended with a confirmation.
        given_up: the runs whose reference was killed in each of its trials; they cannot continue.
        exports, rechecks: number of those by exit status.
        bad_exports: exports that failed, except those that are refused by rule.
        samples: by session, the resources after its first trial and its warm-up.
    """

    def __init__(self, spec: Path, random_source: random.Random):
        self._spec, self._random = spec, random_source
        self.log = spec.with_name("log.txt")
        self._known_files = self._temporary_files()
        self.faults: Counter[str] = Counter()
        self.orphans: list[str] = []
        self.exit_statuses: Counter[str] = Counter()
        self.unexpected_ends = 0
        self.recorded: dict[tuple[str, int], str] = {}
        self.lost: set[tuple[str, int]] = set()
        self.finished: list[Path] = []
        self.given_up: list[Path] = []
        self.exports: Counter[str] = Counter()
        self.bad_exports = 0
        self.rechecks: Counter[str] = Counter()
        self.samples: list[list[Sample]] = []
        self._started = 0

    @property
    def _is_long(self) -> bool:
        """Whether the current run is a long one."""
        return self._started % 2 == 0

    @property
    def runs(self) -> list[Path]:
        """The folders of all runs."""
        return sorted(self._spec.parent.glob("runs/soak-*"))

    @property
    def run(self) -> Path | None:
        """The folder of the run that has not finished; None if it is not created yet."""
        over = {*self.finished, *self.given_up}
        return next((run for run in self.runs if run not in over), None)

    def session(self, deadline_s: float) -> None:
        """Start or resume a run, and inject faults until it ends; use the result of a finished run.

        Args:
            deadline_s: interrupt the run at this time of `time.monotonic`.
        """
        if self.run:
            command: tuple[str, ...] = ("resume", str(self.run))
        else:
            self._started += 1
            command = ("tune", str(self._spec))
            command += ("--trials", str(LONG_TRIALS)) if self._is_long else ()
        status, is_ending = self._drive((*command, "--plain"), deadline_s)
        self.exit_statuses[str(status)] += 1
        if status != 0 and not is_ending:
            if self.run and _has_lost_its_reference(self.run):
                self.given_up.append(self.run)
            else:
                self.unexpected_ends += 1
        if status == 0 and self.run and not is_ending:
            run = self.run
            self._export(run)
            status, is_ending = self._drive(("recheck", str(run / "best")), deadline_s)
            self.rechecks[str(status)] += 1
            self.finished.append(run)

    def _export(self, run: Path) -> None:
        """Write the files of every format."""
        for export_format in ExportFormat:
            options = ("--format", export_format, "--image", "torchserve:soak")
            command = [sys.executable, "-m", "servetune", "export", str(run), *options]
            with self.log.open("ab") as log:
                done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
            self.exports[str(done.returncode)] += 1
            # KServe passes only the first request of a batch: batches are refused.
            refused = 2 if export_format is ExportFormat.KSERVE else 0
            self.bad_exports += done.returncode not in (0, refused)

    def _drive(self, command: Sequence[str], deadline_s: float) -> tuple[int, bool]:
        """Run a command under fire; return its exit status, and whether a fault had to end it."""
        with self.log.open("ab") as log:
            driver = subprocess.Popen(
                [sys.executable, "-m", "servetune", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        processes: dict[int, psutil.Process] = {}
        samples: list[Sample] = []
        trials_before, next_sample_s = len(self.recorded), time.monotonic() + WARM_UP_S
        next_fault_s = time.monotonic() + self._random.uniform(*FAULT_INTERVAL_S)
        is_ending = False
        while driver.poll() is None:
            time.sleep(0.5)
            with suppress(psutil.Error):
                children = psutil.Process(driver.pid).children(recursive=True)
                for process in (*children, *self._server_processes()):
                    processes.setdefault(process.pid, process)
                self._read_record()
                # A driver that is ending frees memory.
                is_warm = len(self.recorded) > trials_before and not is_ending
                if is_warm and (now_s := time.monotonic()) >= next_sample_s:
                    samples.append(sample(psutil.Process(driver.pid), now_s))
                    next_sample_s = now_s + SAMPLE_INTERVAL_S
            if time.monotonic() > deadline_s:
                is_ending = True
                driver.send_signal(signal.SIGINT)
                try:
                    driver.wait(CLEANUP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    self.unexpected_ends += 1
                    driver.kill()
            elif time.monotonic() > next_fault_s:
                is_ending |= self._inject_fault(driver, processes)
                next_fault_s = time.monotonic() + self._random.uniform(*FAULT_INTERVAL_S)
        self.samples.append(samples)
        self._read_record()
        self._collect_orphans(list(processes.values()))
        return driver.returncode, is_ending

    def _inject_fault(
        self, driver: subprocess.Popen[bytes], processes: dict[int, psutil.Process]
    ) -> bool:
        """Inject a random fault; return whether it ends the session."""
        weights = {name: weight for name, (_, weight) in VICTIMS.items()} | SESSION_FAULTS
        if self._is_long:
            weights = {name: weights[name] for name in weights if name not in ENDING}
        (name,) = self._random.choices(list(weights), list(weights.values()))
        if name in SESSION_FAULTS:
            driver.send_signal(signal.SIGKILL if name == DRIVER else signal.SIGINT)
        else:
            victims = [p for p in processes.values() if VICTIMS[name][0] in _command(p)]
            if not victims:  # Between two trials.
                return False
            with suppress(psutil.Error):
                self._random.choice(victims).kill()
        self.faults[name] += 1
        fault = name if name == CTRL_C else f"SIGKILL of {name}"
        print(f"{len(self.recorded)} trials; {fault}", flush=True)
        return name in ENDING

    def _server_processes(self) -> Iterator[psutil.Process]:
        """Yield the processes of this run's TorchServe; they are not children of the driver."""
        for process in psutil.process_iter():
            command = _command(process)
            if VICTIMS["JVM"][0] in command and f"{self.run}/" in command:
                yield process
                yield from process.children(recursive=True)
                if (parent := process.parent()) and VICTIMS["supervisor"][0] in _command(parent):
                    yield parent

    def _read_record(self) -> None:
        """Read trials.jsonl; a line that was removed or changed is lost."""
        now = {}
        for run in self.runs:
            path = run / "trials.jsonl"
            for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
                if line.endswith("\n"):
                    now[run.name, int(json.loads(line)["number"])] = line
        self.lost |= {key for key, line in self.recorded.items() if now.get(key) != line}
        self.recorded |= now

    def _temporary_files(self) -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("servetune[-.]*"))

    def _collect_orphans(self, processes: list[psutil.Process]) -> None:
        """Wait for the processes and temporary files of a session to disappear; note the rest."""
        deadline = time.monotonic() + CLEANUP_LIMIT_S
        while time.monotonic() < deadline and (
            _alive(processes) or self._temporary_files() - self._known_files
        ):
            time.sleep(0.5)
        for process in _alive(processes):
            self.orphans.append(f"process {process.pid}: {_command(process)[:100]}")
            with suppress(psutil.Error):
                process.kill()
        files = self._temporary_files() - self._known_files
        self.orphans += map(str, files)
        self._known_files |= files


def _has_lost_its_reference(run: Path) -> bool:
    """Return whether a run ended because its reference failed; it is measured at most twice."""
    results = Run.open(run).results()
    references = [r for r in results if r.origin is TrialOrigin.DEFAULT]
    return bool(references) and references[-1].state is TrialState.FAILED


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    def is_alive(process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return [process for process in processes if is_alive(process)]


def main(
    minutes: Annotated[float, typer.Option(min=1, help="Duration of the test.")] = 120,
    seed: Annotated[int, typer.Option(help="Seed of the faults.")] = 0,
) -> None:
    """Inject faults into a run; exit with status 1 if anything is lost or left behind."""
    console, deadline_s = Console(), time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        soak = Soak(write_study("waits", Path(temporary), **SECTIONS), random.Random(seed))
        while time.monotonic() < deadline_s:
            soak.session(deadline_s)
        if not soak.recorded:
            console.print(soak.log.read_text(), markup=False)
            raise typer.Exit(1)
        recorded: set[tuple[str, int]] = set()
        stored: set[tuple[str, int]] = set()
        sizes: list[int] = []
        states: Counter[str] = Counter()
        folders = soak.runs
        for run in map(Run.open, folders):
            # A driver may have been killed between the study and trials.jsonl; resume rebuilds it.
            run.rebuild(open_store(run, run.spec()).results)
            recorded |= {(run.name, result.number) for result in run.results()}
            results = open_store(run, run.spec()).results
            stored |= {(run.name, result.number) for result in results}
            sizes += [path.stat().st_size for path in run.folder.rglob("*") if path.is_file()]
            states.update(str(result.state) for result in results)
        lost = soak.lost | set(soak.recorded) ^ recorded | recorded ^ stored
        tracebacks = soak.log.read_text().count("Traceback")
    trials = len(recorded)
    console.print(f"trials: {trials} ({_counts(states)})")
    console.print(f"faults: {soak.faults.total()} ({_counts(soak.faults)})")
    sessions = soak.exit_statuses.total()
    console.print(f"sessions: {sessions}, by exit status: {_counts(soak.exit_statuses)}")
    console.print(f"lost results: {len(lost)} {sorted(lost) or ''}")
    console.print(f"orphans: {len(soak.orphans)}")
    for orphan in soak.orphans:
        console.print(f"  {orphan}", markup=False)
    console.print(f"unexpected ends of sessions: {soak.unexpected_ends}")
    console.print(f"tracebacks: {tracebacks}")
    console.print(f"runs with a confirmation: {len(soak.finished)} of {len(folders)}")
    console.print(f"runs whose reference was killed in each trial: {len(soak.given_up)}")
    console.print(f"exports by exit status: {_counts(soak.exports)}")
    console.print(f"rechecks by exit status: {_counts(soak.rechecks)}")
    growing = False
    for figure in FIGURES:
        found = slope(soak.samples, figure)
        values = [getattr(each, figure) for samples in soak.samples for each in samples]
        if found is None:
            seen = f"{min(values):.0f} to {max(values):.0f}" if values else "not sampled"
            console.print(f"{figure}: {seen}; too few sessions for a slope")
            continue
        growing |= found.low > 0
        console.print(
            f"{figure}: {min(values):.0f} to {max(values):.0f}, growth per hour "
            f"{found.per_hour:.2f} (95 %: {found.low:.2f} to {found.high:.2f}, "
            f"{found.sessions} sessions)"
        )
    kib = sum(sizes) / trials / 1024
    console.print(f"files of a trial: {len(sizes) / trials:.0f}, {kib:.0f} KiB")
    if not soak.finished:
        console.print("no run finished: nothing was exported or rechecked; use more --minutes")
    is_bad = (
        lost or soak.orphans or tracebacks or soak.unexpected_ends or soak.bad_exports or growing
    )
    if is_bad or not soak.finished:
        raise typer.Exit(1)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


if __name__ == "__main__":
    typer.run(main)
