"""The error and the cost of the rate search: `make bench-measure`.

Each case runs a stub of known law in a separate process, and the rate search against it as
`servetune measure --url` does. The true rate comes from the simulation in `truth`, with windows
as long as the longest that was offered at the rate found.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES, COMPARED, FAULT_CASES, Case, whole_product
from benchmarks.others import Offer, bisection, ladder, ndr
from benchmarks.repeated import tables
from benchmarks.simulated import SearchResult, search_all
from benchmarks.stub import Stub, running_stub
from benchmarks.truth import noise_of, sustained_rps
from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.measurement import Load, Measurement, Until
from loadgen.payloads import Payload
from loadgen.rate.goal import Goal
from loadgen.rate.result import SustainedRate
from loadgen.rate.search import RateSearch
from loadgen.rate.verdict import Verdict
from loadgen.schedule import Closed, Constant, Poisson
from search.measure.endpoint import MAX_PROCESSES
from search.trial.host_info import describe_host

_PAYLOADS = (Payload(b'{"text": "hello"}', {"Content-Type": "application/json"}, contains="ok"),)
_CASE_LIMIT_S = 240.0
_TOO_HIGH, _OFF = 0.03, 0.10
_OTHERS = {"ladder": ladder, "bisection": bisection, "MLRsearch NDR": ndr}


@dataclass
class TimedFleet:
    """A fleet that records how long each window took with its drain."""

    fleet: Fleet
    #: Begin and end of each window on this process's clock, and whether it was a closed loop.
    spans: list[tuple[float, float, bool]] = field(default_factory=list)
    #: Windows in which the load generator was the limit.
    limited: int = 0

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """See `LoadGenerator.measure`."""
        begun = time.perf_counter()
        try:
            measured = await self.fleet.measure(load, until)
            self.limited += measured.generator_limited is not None
            return measured
        finally:
            closed = isinstance(load.schedule, Closed)
            self.spans.append((begun, time.perf_counter(), closed))

    async def add_capacity(self, limited: Measurement) -> str | None:
        """See `LoadGenerator.add_capacity`."""
        return await self.fleet.add_capacity(limited)

    def seconds(self, closed: bool) -> float:
        """Return the seconds of all closed loops, or of all windows at offered rates."""
        return sum(end - begun for begun, end, was_closed in self.spans if was_closed == closed)


@dataclass(frozen=True)
class CaseResult:
    """The result of a method in a case.

    Attributes:
        true_rps: the true rate; with faults, the one at the end.
        lower_rps, upper_rps: the bounds found; None for none.
        probe_s, warmup_s: seconds of windows at offered rates, and of closed loops.
        limited: windows in which the load generator was the limit.
        as_expected: for a case with faults, whether the result is the expected one.
        windows: rate, verdict, reason, begin and end of each probe, seconds since the first began.
    """

    case: str
    method: str
    true_rps: float
    lower_rps: float | None
    upper_rps: float | None
    probe_s: float
    warmup_s: float
    probes: int
    limited: int
    reason: str = ""
    warnings: tuple[str, ...] = ()
    as_expected: bool | None = None
    windows: tuple[dict[str, Any], ...] = ()

    @property
    def error(self) -> float:
        """Lower bound ÷ true rate − 1; −1 without a lower bound."""
        return (self.lower_rps or 0.0) / self.true_rps - 1

    @property
    def is_bad(self) -> bool:
        """Whether the rate is far off or too high, or a case with faults not as expected."""
        if self.as_expected is not None:
            return not self.as_expected
        return abs(self.error) > _OFF or self.error > _TOO_HIGH


async def run_servetune(case: Case) -> CaseResult:
    """Run the rate search with its defaults."""
    with running_stub(case.law, case.faults) as stub:
        fleet = Fleet(local_processes(_PAYLOADS), max_processes=MAX_PROCESSES)
        try:
            await fleet.set_target(stub.url)
            timed = TimedFleet(fleet)
            armed_at: list[float] = []

            def progress(phase: str, rate: float) -> None:
                if phase != "warm-up" and not armed_at:
                    armed_at.append(time.perf_counter())
                    if case.faults.wait_for_arm:
                        stub.arm()

            goal = Goal(arrivals=case.arrivals)
            search = RateSearch(goal, timed, case.cycle_requests, case.users, progress=progress)
            async with asyncio.timeout(_CASE_LIMIT_S):
                found = await search.find()
            return _case_result(case, stub, found, timed, armed_at)
        finally:
            fleet.close()


def _case_result(
    case: Case, stub: Stub, found: SustainedRate, timed: TimedFleet, armed_at: Sequence[float]
) -> CaseResult:
    zero = armed_at[0] if armed_at else 0.0
    offered = [(begun - zero, end - zero) for begun, end, closed in timed.spans if not closed]
    windows = tuple(
        {
            "rate_rps": probe.rate_rps,
            "verdict": probe.verdict.value,
            "reason": probe.reason,
            "begun_s": begun,
            "end_s": end,
        }
        for probe, (begun, end) in zip(found.probes, offered, strict=True)
    )
    noise = noise_of(case.law, stub.counts().batches) if not case.expects else None
    slowdown = 1 + case.faults.slower_per_s * (offered[-1][1] if offered else 0.0)
    # The true rate depends on the window: a longer one is exposed to more chance, and filling the
    # server weighs less in it.
    lasted_s = [p.measurement.span_s for p in found.probes if p.rate_rps == found.lower_rps]
    window = replace(case.window, least_s=max(lasted_s, default=case.window.least_s))
    true_rps = sustained_rps(case.final_law, window, noise) / slowdown
    return CaseResult(
        case=case.name,
        method="servetune",
        true_rps=true_rps,
        lower_rps=found.lower_rps,
        upper_rps=found.upper_rps,
        probe_s=timed.seconds(closed=False),
        warmup_s=timed.seconds(closed=True),
        probes=len(found.probes),
        limited=timed.limited,
        reason=found.reason,
        warnings=found.warnings,
        as_expected=_is_as_expected(case, found, windows, true_rps) if case.expects else None,
        windows=windows,
    )


def _is_as_expected(
    case: Case, found: SustainedRate, windows: Sequence[dict[str, Any]], true_rps: float
) -> bool:
    faults, lower = case.faults, found.lower_rps or 0.0
    within = lower <= (1 + _TOO_HIGH) * true_rps
    if faults.fail_every:
        return found.lower_rps is None and "status 500" in found.reason
    if faults.stall_s:
        # A window that ended during the stall contains it too.
        stalled = [w for w in windows if w["begun_s"] < faults.stall_at_s < w["end_s"]]
        return within and bool(stalled) and all(w["verdict"] != Verdict.PASS.value for w in stalled)
    if faults.slower_per_s:
        return within or any("drift" in warning for warning in found.warnings)
    return within


async def run_other_method(case: Case, method: str, true_rps: float) -> CaseResult:
    """Run another method, beginning with the estimate of a closed loop too."""
    with running_stub(case.law) as stub:
        fleet = Fleet(local_processes(_PAYLOADS), max_processes=MAX_PROCESSES)
        try:
            await fleet.set_target(stub.url)
            timed = TimedFleet(fleet)
            warmup = await timed.measure(Load(Closed(case.users), 5.0))
            lower_rps = await _OTHERS[method](_offer(timed, case), 1.25 * warmup.goodput_rps)
        finally:
            fleet.close()
    return CaseResult(
        case=case.name,
        method=method,
        true_rps=true_rps,
        lower_rps=lower_rps,
        upper_rps=None,
        probe_s=timed.seconds(closed=False),
        warmup_s=timed.seconds(closed=True),
        probes=len(timed.spans) - 1,
        limited=timed.limited,
    )


def _offer(timed: TimedFleet, case: Case) -> Offer:
    async def offer(rate_rps: float, duration_s: float) -> Measurement:
        number = len(timed.spans)
        poisson = case.arrivals == "poisson"
        schedule = Poisson(rate_rps, number) if poisson else Constant(rate_rps)
        return await timed.measure(Load(schedule, duration_s, cycle_requests=case.cycle_requests))

    return offer


@contextmanager
def _busy_process() -> Iterator[None]:
    """Run a process that keeps a core busy; it ends with this one."""
    code = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"
    process = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())])
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Part(StrEnum):
    """A part of the benchmark."""

    OURS = "ours"
    FAULTS = "faults"
    OTHERS = "others"
    REPEATED = "repeated"


def main(
    full: Annotated[
        bool, typer.Option(help="Run every law, batch size, queue and arrivals.")
    ] = False,
    busy: Annotated[bool, typer.Option(help="Keep a core busy with another process.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all results to this file.")
    ] = None,
    case: Annotated[str | None, typer.Option(help="Run only the case of this name.")] = None,
    only: Annotated[Part | None, typer.Option(help="Run only this part.")] = None,
    simulated: Annotated[
        int, typer.Option(help="Simulate this number of searches of each case instead.")
    ] = 0,
    runs: Annotated[
        int, typer.Option(min=2, help="Simulated searches of each server of the part repeated.")
    ] = 100,
) -> None:
    """Measure the error and the cost of the search for the sustained rate."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    cases = [c for c in (whole_product() if full else CASES) if case in (None, c.name)]
    faulty = [c for c in FAULT_CASES if case in (None, c.name)]
    if not cases and not faulty:
        known = ", ".join(c.name for c in (*CASES, *FAULT_CASES))
        raise typer.BadParameter(f"unknown case {case!r}; known cases are {known}")
    if simulated:
        if not cases:
            raise typer.BadParameter("--simulated does not support cases with faults")
        if busy or json_file or only:
            raise typer.BadParameter("--simulated can be combined only with --case and --full")
        found = search_all(cases, simulated)
        console.print(_spread_table(found))
        console.print(summary([r.error for r in found], [r.probe_s for r in found]))
        return
    if only is Part.REPEATED and (case or json_file or full or busy):
        raise typer.BadParameter("--only repeated can be combined only with --runs")
    if only in (None, Part.REPEATED) and case is None:
        for table in tables(runs):
            console.print(table)
    if only is Part.REPEATED:
        return
    host = describe_host()
    console.print(f"{host['cpu']}, {host['cores']} cores{', another process busy' if busy else ''}")
    with _busy_process() if busy else nullcontext():
        results = asyncio.run(_run(console, cases, faulty, only))
    ours = [r for r in results if r.method == "servetune" and r.as_expected is None]
    if ours:
        console.print(_table("Rate search and true rates", ours))
        console.print(summary([r.error for r in ours], [r.probe_s for r in ours]))
        console.print(
            f"The load generator was late in {sum(r.limited for r in ours)} of "
            f"{sum(r.probes for r in ours)} probes."
        )
    if with_faults := [r for r in results if r.as_expected is not None]:
        console.print(_fault_table(with_faults))
    if any(r.method != "servetune" for r in results):
        compared = [r for r in results if r.case in COMPARED]
        console.print(_table("Other methods", compared, methods=True))
    _print_bad(console, results)
    if json_file:
        data = {
            "host": host,
            "busy": busy,
            "outcomes": [{**asdict(r), "error": r.error} for r in results],
        }
        json_file.write_text(json.dumps(data, indent=1))


async def _run(
    console: Console, cases: Sequence[Case], faulty: Sequence[Case], only: Part | None
) -> list[CaseResult]:
    results = []

    def add(result: CaseResult) -> None:
        results.append(result)
        lower = result.lower_rps or 0.0
        console.print(
            f"{result.method}, {result.case}: {lower:.1f} of {result.true_rps:.1f} rps, "
            f"{result.probe_s:.0f} s",
            style="dim",
        )

    if only in (None, Part.OURS):
        for case in cases:
            add(await run_servetune(case))
    if only in (None, Part.FAULTS):
        for case in faulty:
            add(await run_servetune(case))
    if only in (None, Part.OTHERS):
        for case in cases:
            if case.name in COMPARED:
                true_rps = sustained_rps(case.law, case.window)
                for method in _OTHERS:
                    add(await run_other_method(case, method, true_rps))
    return results


def summary(errors: Sequence[float], seconds: Sequence[float]) -> str:
    """Return the errors and the cost in a sentence."""

    def share(within: float) -> str:
        return f"{sum(abs(error) <= within for error in errors)} of {len(errors)}"

    return (
        f"Median error {100 * median(abs(e) for e in errors):.1f} %; "
        f"within 5 %: {share(0.05)}; within 10 %: {share(0.10)}; more than 3 % above the truth: "
        f"{sum(error > _TOO_HIGH for error in errors)}; "
        f"worst {100 * max(errors):+.1f} and {100 * min(errors):+.1f} %. "
        f"Probe seconds: median {median(seconds):.0f}, most {max(seconds):.0f}."
    )


def _spread_table(results: Sequence[SearchResult]) -> Table:
    table = Table("case", title="Simulated searches: error, %", title_justify="left")
    for name in ("least", "median", "most", "probe s, median", "probe s, most"):
        table.add_column(name, justify="right")
    for case in dict.fromkeys(r.case for r in results):
        errors = [100 * r.error for r in results if r.case == case]
        seconds = [r.probe_s for r in results if r.case == case]
        rates = (f"{error:+.1f}" for error in (min(errors), median(errors), max(errors)))
        table.add_row(case, *rates, f"{median(seconds):.0f}", f"{max(seconds):.0f}")
    return table


def _table(title: str, results: Sequence[CaseResult], methods: bool = False) -> Table:
    table = Table("case", *(["method"] if methods else []), title=title, title_justify="left")
    for name in (
        "true rps",
        "lower",
        "upper",
        "error %",
        "probe s",
        "warm-up s",
        "probes",
        "limited",
    ):
        table.add_column(name, justify="right")
    for r in sorted(results, key=lambda r: COMPARED.index(r.case)) if methods else results:
        table.add_row(
            r.case,
            *([r.method] if methods else []),
            f"{r.true_rps:.1f}",
            _rate(r.lower_rps),
            _rate(r.upper_rps),
            f"{100 * r.error:+.1f}",
            f"{r.probe_s:.0f}",
            f"{r.warmup_s:.0f}",
            str(r.probes),
            str(r.limited),
        )
    return table


def _fault_table(results: Sequence[CaseResult]) -> Table:
    table = Table(
        *("case", "expected", "as expected", "true rps at the end", "lower", "upper", "probe s"),
        "reason and warnings",
        title="Servers with faults",
        title_justify="left",
    )
    expects = {case.name: case.expects for case in FAULT_CASES}
    for r in results:
        table.add_row(
            r.case,
            expects[r.case],
            "yes" if r.as_expected else "NO",
            f"{r.true_rps:.1f}",
            _rate(r.lower_rps),
            _rate(r.upper_rps),
            f"{r.probe_s:.0f}",
            "; ".join((r.reason, *r.warnings)),
        )
    return table


def _print_bad(console: Console, results: Sequence[CaseResult]) -> None:
    for r in results:
        if r.method == "servetune" and r.is_bad:
            console.print(f"\n{r.case}: {_rate(r.lower_rps)} of {r.true_rps:.1f} rps; {r.reason}")
            for warning in r.warnings:
                console.print(f"  warning: {warning}")
            for w in r.windows:
                console.print(
                    f"  {w['begun_s']:6.1f} to {w['end_s']:6.1f} s  {w['rate_rps']:8.1f} rps  "
                    f"{w['verdict']}: {w['reason']}"
                )


def _rate(rate_rps: float | None) -> str:
    return "–" if rate_rps is None else f"{rate_rps:.1f}"


if __name__ == "__main__":
    typer.run(main)
