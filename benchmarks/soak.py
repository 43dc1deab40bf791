"""A search that is hurt again and again: `python -m benchmarks.soak`.

A real run of a light model; every so often one of its processes is killed, or the run is
interrupted. A run that ended is resumed. In the end: what was lost, what stayed behind, what grew.
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

from benchmarks.record import study_of
from search.study.reading import open_store
from search.study.run_folder import Run

#: What is hurt, by a word of its command line, and how often among a hundred faults.
VICTIMS = {
    "JVM": ("org.pytorch.serve.ModelServer", 20),
    "TorchServe worker": ("model_service_worker", 20),
    "supervisor": ("supervisor.py", 10),
    "load generator": ("ray::_LoadActor", 20),
    "trial's process": ("ray::ResourceTrainable", 10),
    "raylet": ("raylet/raylet", 5),
}
DRIVER, CTRL_C = "driver", "Ctrl-C"
ENDS = {DRIVER: 10, CTRL_C: 5}
SECTIONS = {
    "name": "soak",
    "space": {
        "workers": {"low": 1, "high": 4},
        "batch_size": {"low": 1, "high": 64},
        "max_batch_delay_ms": {"low": 1, "high": 200},
    },
    "goal": {"window_s": 2, "window_limit_s": 6, "search_limit_s": 15, "windows": 1},
    "search": {"trials": 100_000},
}
EVERY_S = (10.0, 60.0)
#: After a run's end so long is nothing called left behind.
GONE_S = 60.0
MIB = 1 << 20


class Soak:
    """One run, its faults and what came of them."""

    def __init__(self, spec: Path, chance: random.Random):
        self._spec, self._chance = spec, chance
        self.said = spec.with_name("said.txt")
        self._before = self._temporary()
        self.faults: Counter[str] = Counter()
        self.orphans: list[str] = []
        self.endings: Counter[str] = Counter()
        #: Sessions that ended though nothing was done to them that ends one.
        self.given_up = 0
        #: The numbers and the text of all trials that were ever seen in the record.
        self.seen: dict[int, str] = {}
        self.lost: set[int] = set()
        #: By session: (trials, resident MiB of the driver) after its first and its last trial.
        self.memory: list[tuple[tuple[int, float], tuple[int, float]]] = []

    @property
    def run(self) -> Path | None:
        """The run's folder, once there is one."""
        return next(self._spec.parent.glob("runs/soak-*"), None)

    def session(self, until: float) -> None:
        """Start or resume the run, and hurt it until it ends or time is over."""
        asked = ("resume", str(self.run)) if self.run else ("tune", str(self._spec))
        with self.said.open("ab") as said:
            driver = subprocess.Popen(
                [sys.executable, "-m", "servetune", *asked, "--plain"],
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ours: dict[int, psutil.Process] = {}
        first: tuple[int, float] | None = None
        last, begun = (0, 0.0), len(self.seen)
        next_fault, ends = time.monotonic() + self._chance.uniform(*EVERY_S), False
        while driver.poll() is None:
            time.sleep(0.5)
            with suppress(psutil.Error):
                children = psutil.Process(driver.pid).children(recursive=True)
                for process in (*children, *self._servers()):
                    ours.setdefault(process.pid, process)
                self._look()
                # One that ends frees what it held.
                if not ends and len(self.seen) > max(begun, last[0]):
                    last = len(self.seen), psutil.Process(driver.pid).memory_info().rss / MIB
                    first = first or last
            if time.monotonic() > until:
                ends = True
                driver.send_signal(signal.SIGINT)
                try:
                    driver.wait(GONE_S)
                except subprocess.TimeoutExpired:
                    self.given_up += 1
                    driver.kill()
            elif time.monotonic() > next_fault:
                ends |= self._hurt(driver, ours)
                next_fault = time.monotonic() + self._chance.uniform(*EVERY_S)
        self.endings[str(driver.returncode)] += 1
        self.given_up += not ends
        if first:
            self.memory.append((first, last))
        self._look()
        self._count_orphans(list(ours.values()))

    def _hurt(self, driver: subprocess.Popen[bytes], ours: dict[int, psutil.Process]) -> bool:
        """Do one of the faults; whether it ends the session."""
        weights = {name: weight for name, (_, weight) in VICTIMS.items()} | ENDS
        (name,) = self._chance.choices(list(weights), list(weights.values()))
        if name in ENDS:
            driver.send_signal(signal.SIGKILL if name == DRIVER else signal.SIGINT)
        else:
            victims = [p for p in ours.values() if VICTIMS[name][0] in _command(p)]
            if not victims:  # Between two trials.
                return False
            with suppress(psutil.Error):
                self._chance.choice(victims).kill()
        self.faults[name] += 1
        print(f"{len(self.seen)} trials; SIGKILL of {name}" if name != CTRL_C else name, flush=True)
        return name in (*ENDS, "raylet")

    def _servers(self) -> Iterator[psutil.Process]:
        """What serves this run: none of it is the driver's child."""
        for process in psutil.process_iter():
            if VICTIMS["JVM"][0] in (line := _command(process)) and f"{self.run}/" in line:
                yield process
                yield from process.children(recursive=True)
                if (parent := process.parent()) and VICTIMS["supervisor"][0] in _command(parent):
                    yield parent

    def _look(self) -> None:
        """Read the record: what was in it stays in it, as it was."""
        if self.run is None or not (self.run / "trials.jsonl").exists():
            return
        now = {}
        for line in (self.run / "trials.jsonl").read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                now[json.loads(line)["number"]] = line
        self.lost |= {number for number, line in self.seen.items() if now.get(number) != line}
        self.seen |= now

    def _temporary(self) -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("servetune[-.]*"))

    def _count_orphans(self, ours: list[psutil.Process]) -> None:
        """Whatever of a run's is there a while after it."""
        deadline = time.monotonic() + GONE_S
        while time.monotonic() < deadline and (_alive(ours) or self._temporary() - self._before):
            time.sleep(0.5)
        for process in _alive(ours):
            self.orphans.append(f"process {process.pid}: {_command(process)[:100]}")
            with suppress(psutil.Error):
                process.kill()
        left = self._temporary() - self._before
        self.orphans += map(str, left)
        self._before |= left


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    def lives(process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return [process for process in processes if lives(process)]


def main(
    minutes: Annotated[float, typer.Option(min=1, help="how long")] = 60,
    seed: Annotated[int, typer.Option(help="of the faults")] = 0,
) -> None:
    """Hurt a run for so long; exit status 1 where anything was lost or stayed behind."""
    console, until = Console(), time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = Path(temporary)
        soak = Soak(study_of("waits", folder, **SECTIONS), random.Random(seed))
        while time.monotonic() < until:
            soak.session(until)
        if not soak.seen:
            console.print(soak.said.read_text(), markup=False)
            raise typer.Exit(1)
        assert soak.run is not None
        run = Run.open(soak.run)
        # A driver that was killed between the study and the record repairs that when it is resumed.
        run.rebuild(open_store(run, run.spec()).results)
        recorded = {result.number for result in run.results()}
        stored = {result.number for result in open_store(run, run.spec()).results}
        lost = soak.lost | set(soak.seen) ^ recorded | recorded ^ stored
        files = sum(path.is_file() for path in run.folder.rglob("*"))
        size = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
        states = Counter(str(result.state) for result in run.results())
        tracebacks = soak.said.read_text().count("Traceback")
    trials = len(recorded)
    console.print(f"trials: {trials} ({_counts(states)})")
    console.print(f"faults: {soak.faults.total()} ({_counts(soak.faults)})")
    console.print(f"sessions: {soak.endings.total()}, by exit status: {_counts(soak.endings)}")
    console.print(f"lost results: {len(lost)} {sorted(lost) or ''}")
    console.print(f"orphans: {len(soak.orphans)}")
    for orphan in soak.orphans:
        console.print(f"  {orphan}", markup=False)
    console.print(f"sessions given up: {soak.given_up}, tracebacks shown: {tracebacks}")
    if soak.memory:
        (first, before), (last, after) = max(soak.memory, key=lambda ends: ends[1][0] - ends[0][0])
        text = f"{before:.0f} MiB after trial {first}, {after:.0f} after trial {last}"
        console.print(f"the driver's memory in its longest session: {text}")
    kib = size / trials / 1024
    console.print(f"the run's folder: {files / trials:.0f} files and {kib:.0f} KiB a trial")
    if lost or soak.orphans or tracebacks or soak.given_up:
        raise typer.Exit(1)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


if __name__ == "__main__":
    typer.run(main)
