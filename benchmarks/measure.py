"""How right the search for the sustained rate is, and what it costs: `make bench-measure`.

Each case runs a stub of known law in a separate process, and the search against it as
`servetune measure --url` does. The truth comes from the simulation in `truth`, of windows as long
as the longest that was offered at the rate found.
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
from benchmarks.simulated import Run, runs
from benchmarks.stub import Stub, running
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
class Timed:
    """A fleet that notes how long each window took, its drain included."""

    fleet: Fleet
    #: Begin and end of each window on this process's clock, and whether users were waiting.
    spans: list[tuple[float, float, bool]] = field(default_factory=list)
    #: Windows in which the load generator was late: no evidence.
    limited: int = 0

    async def measure(self, load: Load, until: Until | None = None) -> Measurement:
        """As the fleet does."""
        begun = time.perf_counter()
        try:
            measured = await self.fleet.measure(load, until)
            self.limited += measured.generator_limited is not None
            return measured
        finally:
            closed = isinstance(load.schedule, Closed)
            self.spans.append((begun, time.perf_counter(), closed))

    async def add_capacity(self, limited: Measurement) -> str | None:
        """As the fleet does."""
        return await self.fleet.add_capacity(limited)

    def seconds(self, closed: bool) -> float:
        """The time of all closed loops, or of all windows at an offered rate."""
        return sum(end - begun for begun, end, was_closed in self.spans if was_closed == closed)


@dataclass(frozen=True)
class Outcome:
    """What a method found in a case.

    Attributes:
        true_rps: the true rate; with faults, once they have done what they do.
        lower_rps, upper_rps: what was found; None where nothing was.
        probe_s, warmup_s: seconds of windows at offered rates, and of closed loops.
        limited: probes in which the load generator was late.
        held: for a case with faults, whether what it expects holds.
        windows: each probe: rate, verdict, reason, begin and end since bracketing began.
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
    held: bool | None = None
    windows: tuple[dict[str, Any], ...] = ()

    @property
    def error(self) -> float:
        """How far the lower bound is above the truth, as a share of it; −1 where none is."""
        return (self.lower_rps or 0.0) / self.true_rps - 1

    @property
    def is_bad(self) -> bool:
        """Whether it is far off, too high, or not what a fault case expects."""
        if self.held is not None:
            return not self.held
        return abs(self.error) > _OFF or self.error > _TOO_HIGH


async def run_ours(case: Case) -> Outcome:
    """The product's search with its own defaults."""
    with running(case.law, case.faults) as stub:
        fleet = Fleet(local_processes(_PAYLOADS), most=MAX_PROCESSES)
        try:
            await fleet.set_target(stub.url)
            timed = Timed(fleet)
            armed_at: list[float] = []

            def progress(phase: str, rate: float) -> None:
                if phase == "bracketing" and not armed_at:
                    armed_at.append(time.perf_counter())
                    if case.faults.wait_for_arm:
                        stub.arm()

            goal = Goal(arrivals=case.arrivals)
            search = RateSearch(goal, timed, case.cycle_requests, case.users, progress=progress)
            async with asyncio.timeout(_CASE_LIMIT_S):
                found = await search.find()
            return _outcome(case, stub, found, timed, armed_at)
        finally:
            fleet.close()


def _outcome(
    case: Case, stub: Stub, found: SustainedRate, timed: Timed, armed_at: Sequence[float]
) -> Outcome:
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
    noise = noise_of(case.law, stub.accounts().batches) if not case.expects else None
    law = case.law_at_last
    slower = 1 + case.faults.slower_per_s * (offered[-1][1] if offered else 0.0)
    # The truth depends on the window: a longer one meets more chance, and fills the server less.
    lasted_s = [p.measurement.span_s for p in found.probes if p.rate_rps == found.lower_rps]
    window = replace(case.window, least_s=max(lasted_s, default=case.window.least_s))
    true_rps = sustained_rps(law, window, noise) / slower
    return Outcome(
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
        held=_holds(case, found, windows, true_rps) if case.expects else None,
        windows=windows,
    )


def _holds(
    case: Case, found: SustainedRate, windows: Sequence[dict[str, Any]], true_rps: float
) -> bool:
    faults, lower = case.faults, found.lower_rps or 0.0
    within = lower <= (1 + _TOO_HIGH) * true_rps
    if faults.fail_every:
        return found.lower_rps is None and "status 500" in found.reason
    if faults.stall_s:
        begun = faults.stall_at_s
        # A window that ended in the stall saw it too.
        holding = [w for w in windows if w["begun_s"] < begun < w["end_s"]]
        return within and bool(holding) and all(w["verdict"] != Verdict.PASS.value for w in holding)
    if faults.slower_per_s:
        return within or any("drift" in warning for warning in found.warnings)
    return within


async def run_other(case: Case, method: str, true_rps: float) -> Outcome:
    """How others would find the rate, from the same closed loop's estimate."""
    with running(case.law) as stub:
        fleet = Fleet(local_processes(_PAYLOADS), most=MAX_PROCESSES)
        try:
            await fleet.set_target(stub.url)
            timed = Timed(fleet)
            warmup = await timed.measure(Load(Closed(case.users), 5.0))
            found = await _OTHERS[method](_offer(timed, case), 1.25 * warmup.goodput_rps)
        finally:
            fleet.close()
    return Outcome(
        case=case.name,
        method=method,
        true_rps=true_rps,
        lower_rps=found,
        upper_rps=None,
        probe_s=timed.seconds(closed=False),
        warmup_s=timed.seconds(closed=True),
        probes=len(timed.spans) - 1,
        limited=timed.limited,
    )


def _offer(timed: Timed, case: Case) -> Offer:
    async def offer(rate_rps: float, duration_s: float) -> Measurement:
        number = len(timed.spans)
        poisson = case.arrivals == "poisson"
        schedule = Poisson(rate_rps, number) if poisson else Constant(rate_rps)
        return await timed.measure(Load(schedule, duration_s, cycle_requests=case.cycle_requests))

    return offer


@contextmanager
def _busy_process() -> Iterator[None]:
    """Another process that wants a core all the time; it ends with this one."""
    code = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"
    process = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())])
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Only(StrEnum):
    """A part of the whole."""

    OURS = "ours"
    FAULTS = "faults"
    OTHERS = "others"


def main(
    full: Annotated[bool, typer.Option(help="Every law, batch size, queue and arrivals.")] = False,
    busy: Annotated[bool, typer.Option(help="Beside another busy process.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where everything is written.")
    ] = None,
    case: Annotated[str | None, typer.Option(help="One case by its name.")] = None,
    only: Annotated[Only | None, typer.Option(help="One part of the whole.")] = None,
    simulated: Annotated[
        int, typer.Option(help="Simulate this many runs of each case, without a clock.")
    ] = 0,
) -> None:
    """Measure how right the search for the sustained rate is, and what it costs."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    cases = [c for c in (whole_product() if full else CASES) if case in (None, c.name)]
    faulty = [c for c in FAULT_CASES if case in (None, c.name)]
    if not cases and not faulty:
        known = ", ".join(c.name for c in (*CASES, *FAULT_CASES))
        raise typer.BadParameter(f"no case {case!r}; known are {known}")
    if simulated:
        if not cases:
            raise typer.BadParameter("--simulated knows no faults")
        if busy or json_file or only:
            raise typer.BadParameter("--simulated goes with --case and --full alone")
        every = runs(cases, simulated)
        console.print(_spread_table(every))
        console.print(summary([run.error for run in every], [run.probe_s for run in every]))
        return
    host = describe_host()
    console.print(f"{host['cpu']}, {host['cores']} cores{', another process busy' if busy else ''}")
    with _busy_process() if busy else nullcontext():
        outcomes = asyncio.run(_run(console, cases, faulty, only))
    ours = [o for o in outcomes if o.method == "servetune" and o.held is None]
    if ours:
        console.print(_table("The search against the truth", ours))
        console.print(summary([o.error for o in ours], [o.probe_s for o in ours]))
        console.print(
            f"The load generator was late in {sum(o.limited for o in ours)} of "
            f"{sum(o.probes for o in ours)} probes."
        )
    if faults := [o for o in outcomes if o.held is not None]:
        console.print(_fault_table(faults))
    if any(o.method != "servetune" for o in outcomes):
        compared = [o for o in outcomes if o.case in COMPARED]
        console.print(_table("How others do it", compared, methods=True))
    _print_bad(console, outcomes)
    if json_file:
        data = {
            "host": host,
            "busy": busy,
            "outcomes": [{**asdict(o), "error": o.error} for o in outcomes],
        }
        json_file.write_text(json.dumps(data, indent=1))


async def _run(
    console: Console, cases: Sequence[Case], faulty: Sequence[Case], only: Only | None
) -> list[Outcome]:
    outcomes = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        lower = outcome.lower_rps or 0.0
        console.print(
            f"{outcome.method}, {outcome.case}: {lower:.1f} of {outcome.true_rps:.1f} rps, "
            f"{outcome.probe_s:.0f} s",
            style="dim",
        )

    if only in (None, Only.OURS):
        for case in cases:
            note(await run_ours(case))
    if only in (None, Only.FAULTS):
        for case in faulty:
            note(await run_ours(case))
    if only in (None, Only.OTHERS):
        for case in cases:
            if case.name in COMPARED:
                truth = sustained_rps(case.law, case.window)
                for method in _OTHERS:
                    note(await run_other(case, method, truth))
    return outcomes


def summary(errors: Sequence[float], seconds: Sequence[float]) -> str:
    """The figures that the targets are about, in words."""

    def share(within: float) -> str:
        return f"{sum(abs(error) <= within for error in errors)} of {len(errors)}"

    return (
        f"Median error {100 * median(abs(e) for e in errors):.1f} %; "
        f"within 5 %: {share(0.05)}; within 10 %: {share(0.10)}; more than 3 % above the truth: "
        f"{sum(error > _TOO_HIGH for error in errors)}; "
        f"worst {100 * max(errors):+.1f} and {100 * min(errors):+.1f} %. "
        f"Probe seconds: median {median(seconds):.0f}, most {max(seconds):.0f}."
    )


def _spread_table(every: Sequence[Run]) -> Table:
    table = Table("case", title="Many runs on no clock: error, %", title_justify="left")
    for name in ("least", "median", "most", "probe s, median", "probe s, most"):
        table.add_column(name, justify="right")
    for case in dict.fromkeys(run.case for run in every):
        errors = [100 * run.error for run in every if run.case == case]
        seconds = [run.probe_s for run in every if run.case == case]
        rates = (f"{error:+.1f}" for error in (min(errors), median(errors), max(errors)))
        table.add_row(case, *rates, f"{median(seconds):.0f}", f"{max(seconds):.0f}")
    return table


def _table(title: str, outcomes: Sequence[Outcome], methods: bool = False) -> Table:
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
    for o in sorted(outcomes, key=lambda o: COMPARED.index(o.case)) if methods else outcomes:
        table.add_row(
            o.case,
            *([o.method] if methods else []),
            f"{o.true_rps:.1f}",
            _rate(o.lower_rps),
            _rate(o.upper_rps),
            f"{100 * o.error:+.1f}",
            f"{o.probe_s:.0f}",
            f"{o.warmup_s:.0f}",
            str(o.probes),
            str(o.limited),
        )
    return table


def _fault_table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(
        *("case", "expected", "held", "true rps at last", "lower", "upper", "probe s"),
        "reason and warnings",
        title="Servers with faults",
        title_justify="left",
    )
    expects = {case.name: case.expects for case in FAULT_CASES}
    for o in outcomes:
        table.add_row(
            o.case,
            expects[o.case],
            "yes" if o.held else "NO",
            f"{o.true_rps:.1f}",
            _rate(o.lower_rps),
            _rate(o.upper_rps),
            f"{o.probe_s:.0f}",
            "; ".join((o.reason, *o.warnings)),
        )
    return table


def _print_bad(console: Console, outcomes: Sequence[Outcome]) -> None:
    for o in outcomes:
        if o.method == "servetune" and o.is_bad:
            console.print(f"\n{o.case}: {_rate(o.lower_rps)} of {o.true_rps:.1f} rps; {o.reason}")
            for warning in o.warnings:
                console.print(f"  warning: {warning}")
            for w in o.windows:
                console.print(
                    f"  {w['begun_s']:6.1f} to {w['end_s']:6.1f} s  {w['rate_rps']:8.1f} rps  "
                    f"{w['verdict']}: {w['reason']}"
                )


def _rate(rate_rps: float | None) -> str:
    return "–" if rate_rps is None else f"{rate_rps:.1f}"


if __name__ == "__main__":
    typer.run(main)
