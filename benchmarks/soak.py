"""Run a search while its processes are killed at random: `python -m benchmarks.soak`.

A real run of a light model. At random intervals, one of its processes is killed, or the run is
interrupted; a run that ended is resumed. The benchmark reports lost results, orphaned processes and
files, and the growth of memory and files.
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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from benchmarks.record import write_study
from search.study.reading import open_store
from search.study.run_folder import Run

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
#: Faults that end a session, with their weights.
SESSION_FAULTS = {DRIVER: 10, CTRL_C: 5}
SECTIONS = {
    "name": "soak",
    "space": {
        "workers": {"low": 1, "high": 4},
        "batch_size": {"low": 1, "high": 64},
        "max_batch_delay_ms": {"low": 1, "high": 200},
    },
    "goal": {"window_s": 2, "window_limit_s": 6, "search_limit_s": 15},
    "search": {"trials": 100_000, "min_improvement_probability": 0},
    "confirm": {"rounds": 0},
}
#: Range of the time between two faults, seconds.
FAULT_INTERVAL_S = (10.0, 60.0)
#: Time for the processes and files of a session to disappear after its end, seconds.
CLEANUP_LIMIT_S = 60.0
MIB = 1 << 20


class Soak:
    """A run, its faults and their effects.

    Args:
        spec: the specification of the run.
        random_source: draws the faults and their times.

    Attributes:
        log: the output of all drivers.
        faults: number of faults by name.
        orphans: processes and files that were left after a session.
        exit_statuses: number of sessions by exit status.
        unexpected_ends: sessions that ended without a fault that ends one, or did not end in time.
        recorded: the line of each trial that was ever in trials.jsonl, by number.
        lost: numbers of trials whose line was removed or changed.
        memory: by session: (trials, resident MiB of the driver) after its first and last trial.
    """

    def __init__(self, spec: Path, random_source: random.Random):
        self._spec, self._random = spec, random_source
        self.log = spec.with_name("log.txt")
        self._known_files = self._temporary_files()
        self.faults: Counter[str] = Counter()
        self.orphans: list[str] = []
        self.exit_statuses: Counter[str] = Counter()
        self.unexpected_ends = 0
        self.recorded: dict[int, str] = {}
        self.lost: set[int] = set()
        self.memory: list[tuple[tuple[int, float], tuple[int, float]]] = []

    @property
    def run(self) -> Path | None:
        """The run's folder; None if it is not created yet."""
        return next(self._spec.parent.glob("runs/soak-*"), None)

    def session(self, deadline_s: float) -> None:
        """Start or resume the run, and inject faults until it ends.

        Args:
            deadline_s: interrupt the run at this time of `time.monotonic`.
        """
        command = ("resume", str(self.run)) if self.run else ("tune", str(self._spec))
        with self.log.open("ab") as log:
            driver = subprocess.Popen(
                [sys.executable, "-m", "servetune", *command, "--plain"],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        processes: dict[int, psutil.Process] = {}
        first: tuple[int, float] | None = None
        last, trials_before = (0, 0.0), len(self.recorded)
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
                if not is_ending and len(self.recorded) > max(trials_before, last[0]):
                    memory_mib = psutil.Process(driver.pid).memory_info().rss / MIB
                    last = len(self.recorded), memory_mib
                    first = first or last
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
        self.exit_statuses[str(driver.returncode)] += 1
        self.unexpected_ends += not is_ending
        if first:
            self.memory.append((first, last))
        self._read_record()
        self._collect_orphans(list(processes.values()))

    def _inject_fault(
        self, driver: subprocess.Popen[bytes], processes: dict[int, psutil.Process]
    ) -> bool:
        """Inject a random fault; return whether it ends the session."""
        weights = {name: weight for name, (_, weight) in VICTIMS.items()} | SESSION_FAULTS
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
        return name in (*SESSION_FAULTS, "raylet")

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
        if self.run is None or not (self.run / "trials.jsonl").exists():
            return
        now = {}
        for line in (self.run / "trials.jsonl").read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                now[json.loads(line)["number"]] = line
        self.lost |= {number for number, line in self.recorded.items() if now.get(number) != line}
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
    minutes: Annotated[float, typer.Option(min=1, help="Duration of the test.")] = 60,
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
        assert soak.run is not None
        run = Run.open(soak.run)
        # A driver may have been killed between the study and trials.jsonl; resume rebuilds it.
        run.rebuild(open_store(run, run.spec()).results)
        recorded = {result.number for result in run.results()}
        stored = {result.number for result in open_store(run, run.spec()).results}
        lost = soak.lost | set(soak.recorded) ^ recorded | recorded ^ stored
        sizes = [path.stat().st_size for path in run.folder.rglob("*") if path.is_file()]
        states = Counter(str(result.state) for result in run.results())
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
    if soak.memory:
        (first, before), (last, after) = max(soak.memory, key=lambda ends: ends[1][0] - ends[0][0])
        text = f"{before:.0f} MiB after trial {first}, {after:.0f} MiB after trial {last}"
        console.print(f"memory of the driver in its longest session: {text}")
    kib = sum(sizes) / trials / 1024
    console.print(f"files of a trial: {len(sizes) / trials:.0f}, {kib:.0f} KiB")
    if lost or soak.orphans or tracebacks or soak.unexpected_ends:
        raise typer.Exit(1)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


if __name__ == "__main__":
    typer.run(main)
