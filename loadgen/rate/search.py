"""The search for the sustained rate: warm-up, capacity, incumbent probe, bracketing.

It sees one method, `measure`, and knows nothing of HTTP or TorchServe.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from loadgen.backlog import MIN_BLOCKS
from loadgen.measurement import BIN_S, Generator, GeneratorLost, Load, Measurement
from loadgen.rate.early_stop import Looks, stable_rate
from loadgen.rate.goal import Goal
from loadgen.rate.mlrsearch import Measurer, OutOfTimeError, bracket
from loadgen.rate.result import Probe, SustainedRate
from loadgen.rate.verdict import COMPLETIONS, LIMITED, Verdict, duration_s, judge, least_window_s
from loadgen.schedule import Closed, Constant, Poisson

#: The closed loop underestimates: a configuration this far below may still win.
CAPACITY_MARGIN = 1.3
#: The narrowing begins this far above the estimate, with a rate that should fail.
FIRST_ABOVE = 1.25
#: Nothing is looked for below this share of the estimate.
LOWEST = 0.05
COARSEST = 4.0
#: Where time is over and windows stay undecided, the width grows to so many times the goal's.
SETTLED = 2.0
#: A window that looks sustained at its limit, though not surely, goes on for so many times it.
LONGER = 2.0
CLOSE_ENOUGH = "the bounds are close enough"
#: A server whose windows take long is given time for so many.
LEAST_WINDOWS = 5
#: The share of the capacity at which a window must be able to show that none fails.
SHOWN_AT = 0.6
#: By these a server says itself that it has too much to do.
REFUSALS = ("status 503", "status 429")
#: The last windows may take so many times their least duration.
LAST = 2.0
#: Windows that are still opened where time is over and no rate is known to hold.
LAST_TRIES = 6


def _causes(measurement: Measurement) -> str:
    """Why requests failed."""
    causes = ", ".join(f"{n} × {cause}" for cause, n in measurement.errors.items())
    return causes or "no answer at all"


Progress = Callable[[str, float], None]


@dataclass
class Search:
    """One search for the sustained rate of what a generator is aimed at.

    Args:
        goal: what is looked for.
        generator: what offers load.
        cycle_requests: requests that the server takes in one round (workers × batch size).
        users: of the closed loop, enough to fill every batch twice.
        incumbent_rps: the rate to beat, if any.
        known_rps: what an earlier search found, if any: this one walks from there, and every
            window counts.
        common_rps: if given, one more window of Poisson arrivals at this rate, for its latency.
        progress: is told each phase and its rate as it begins.
    """

    goal: Goal
    generator: Generator
    cycle_requests: int = 1
    users: int = 8
    incumbent_rps: float | None = None
    known_rps: float | None = None
    common_rps: float | None = None
    progress: Progress = lambda phase, rate: None
    _probes: list[Probe] = field(default_factory=list)
    _doubts: list[str] = field(default_factory=list)
    #: Last windows that stayed undecided, by index, and rates that had passed and did not hold.
    _open: set[int] = field(default_factory=set)
    _revoked: set[float] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._width, self._windows = self.goal.width, self.goal.windows
        self._window_limit_s = self.goal.window_limit_s
        self._least_s = self.goal.window_s
        self._spent_s = 0.0
        self._capacity = math.inf
        self._common: Measurement | None = None

    @property
    def left_s(self) -> float:
        """What is left of the narrowing's time, by the time of its own windows."""
        usual_s = self.goal.search_limit_s
        return min(max(usual_s, LEAST_WINDOWS * self._least_s), 2 * usual_s) - self._spent_s

    def is_late(self) -> bool:
        """Whether the time left is that of the last window, which shows that the rate holds."""
        return self.left_s < LAST * self._least_s

    async def warm_up(self) -> Measurement:
        """A closed loop until its throughput is stable, or the time is over."""
        self.progress("warm-up", 0.0)
        load = self._load(Closed(self.users), self.goal.warmup_limit_s)
        return await self._measure(load, self._warm)

    async def find(self) -> SustainedRate:
        """Run the search to its end.

        Raises:
            GeneratorLost: a load process was lost twice in the same window.
        """
        warmup = await self._begin()
        capacity = self._capacity
        if not warmup.succeeded:
            return self._result(capacity, warmup, f"no request succeeded: {_causes(warmup)}")
        best = self.incumbent_rps
        passed = None
        # Where the capacity is far above the rate to beat, narrowing finds it without a probe.
        if best is not None and capacity < best * CAPACITY_MARGIN**2:
            if CAPACITY_MARGIN * capacity < best:
                why = f"its capacity of about {capacity:.1f} rps is below the best's {best:.1f}"
                return self._result(capacity, warmup, "pruned by capacity", why)
            verdict = await self._probe("incumbent probe", best)
            if verdict is not Verdict.PASS and self._marginal():
                verdict = await self._probe("incumbent probe", best)
            if verdict is Verdict.GENERATOR:
                return self._result(capacity, warmup, f"{LIMITED} at the incumbent's rate")
            if verdict is not Verdict.PASS:
                why = f"it does not sustain the best's {best:.1f} rps: {self._probes[-1].reason}"
                return self._result(capacity, warmup, "pruned at the incumbent's rate", why)
            passed = best
        if self.known_rps is not None:
            reason = await self._walk(self.known_rps)
        else:
            reason = await self._narrow(max(capacity, passed or 0.0), passed)
        if self.common_rps is not None:
            self._common = await self._compare(self.common_rps)
        lower, upper = self._bounds()
        if best is not None and (lower or 0.0) < best and not self._is_limited(upper):
            why = f"it was not seen to sustain the best's {best:.1f} rps in every window"
            return self._result(capacity, warmup, reason, why)
        return self._result(capacity, warmup, reason)

    async def hold(self, rate_rps: float, windows: int) -> tuple[Probe, ...]:
        """Offer one rate in so many windows, after a closed loop.

        Returns:
            The windows; none where the closed loop got no answer.

        Raises:
            GeneratorLost: a load process was lost twice in the same window.
        """
        warmup = await self._begin()
        for _ in range(windows if warmup.succeeded else 0):
            self._spent_s = 0.0
            await self._probe("narrowing", rate_rps)
        return tuple(self._probes)

    async def _begin(self) -> Measurement:
        """The closed loop, and what it says of the server's pace."""
        warmup = await self.warm_up()
        # A server so slow that nothing came in the steady part has at least this much.
        least_rps = warmup.succeeded / max(warmup.span_s, BIN_S)
        self._capacity = stable_rate(warmup) or warmup.goodput_rps or least_rps
        if warmup.succeeded:
            self._coarsen(warmup, self._capacity)
        return warmup

    def _coarsen(self, warmup: Measurement, capacity: float) -> None:
        """Adapt the goal to a server whose windows take long, so that the search stays short."""
        load = self._load(Constant(capacity), self.goal.window_limit_s)
        least_s = least_window_s(replace(warmup, load=load), self.goal)
        if least_s > 2 * self.goal.window_s:
            self._windows = 1
        # Fewer rounds than these show no trend at all, fewer completions no success.
        needed_s = max(
            2 * MIN_BLOCKS * replace(warmup, load=load).cycle_s, 2 * COMPLETIONS / capacity
        )
        needed_s = min(needed_s, self.goal.search_limit_s)
        self._window_limit_s = max(self.goal.window_limit_s, needed_s)
        self._least_s = min(least_s, self._window_limit_s)
        factor = min(max(least_s / self._window_limit_s, 1.0), COARSEST)
        self._width = min(factor * self.goal.width, 0.4)

    def _warm(self, so_far: Measurement) -> bool:
        """Whether the closed loop has told enough."""
        if stable_rate(so_far) is not None:
            return True
        if not so_far.succeeded and so_far.failed >= COMPLETIONS and so_far.span_s > 3:
            return True
        best = self.incumbent_rps
        # No warm-up makes a server several times faster after its first seconds.
        return best is not None and so_far.span_s > 6 and 4 * so_far.goodput_rps < best

    async def _narrow(self, estimate: float, passed: float | None) -> str:
        """Bracket and bisect with MLRsearch, in a separate thread; return why it ended."""

        async def offer(rate_rps: float) -> float:
            verdict = await self._probe("narrowing", rate_rps)
            # What the server could not take tells MLRsearch where to look next; a window that
            # did not pass must not look as if all but nothing had been lost.
            return 0.0 if verdict is Verdict.PASS else self._lost()

        def is_out_of_time() -> bool:
            return bool(self._probes) and self.is_late()

        self._spent_s = 0.0
        ceiling = self.goal.max_rate_rps
        high = min(FIRST_ABOVE * estimate, ceiling)
        floor = low = passed or LOWEST * high
        # MLRsearch rounds to whole widths, and never ends where the range is exactly one.
        least = 1.01 / (1 - self._width)
        high = max(high, min(least * low, ceiling))
        while high >= least * low:
            measurer = Measurer(offer, is_out_of_time, asyncio.get_running_loop())
            try:
                await asyncio.to_thread(
                    bracket,
                    measurer,
                    low,
                    high,
                    self._width,
                    self._windows,
                    self.goal.window_s,
                    10 * self.goal.search_limit_s,
                )
            except OutOfTimeError:
                await self._settle()
                return f"the search's {self._spent_s + self.left_s:.0f} s were over"
            finally:
                measurer.close()
            holds = await self._holds()
            lower, upper = self._bounds()
            if upper is None and high < ceiling:
                low, high = high, min(2 * high, ceiling)
            elif upper is not None and not (holds and (lower or low == floor)):
                # What had passed did not pass again: look below it.
                low, high = lower or floor, upper
            else:
                break
        else:
            while not await self._holds():
                pass  # Each time a rate is lost, until one holds or none is left.
        return self._why_ended()

    def _why_ended(self) -> str:
        upper = self._bounds()[1]
        if upper is None:
            return "the greatest rate passed"
        if self._is_limited(upper):
            return (
                f"the load process could not offer {upper:.1f} rps on time; the server may do more"
            )
        return CLOSE_ENOUGH

    async def _walk(self, rate: float) -> str:
        """Go from a rate in growing steps until one passed and one did not; say why it ended."""
        step, ceiling = self._width, self.goal.max_rate_rps
        while not self._probes or not self.is_late():
            await self._probe("narrowing", min(rate, ceiling))
            lower, upper = self._bounds()
            if upper is None and rate >= ceiling:
                return self._why_ended()
            if lower and upper and upper * (1 - 1.01 * self._width) <= lower:
                if await self._holds():
                    return self._why_ended()
                lower, upper = self._bounds()
            if lower and upper:
                rate = math.sqrt(lower * upper)
            else:
                rate = lower / (1 - step) if lower else (1 - step) * (upper or rate)
                step = min(2 * step, 0.5)
        await self._settle()
        return f"the search's {self._spent_s + self.left_s:.0f} s were over"

    async def _compare(self, rate: float) -> Measurement:
        """A window of one length for all, whatever comes of it."""
        self.progress("narrowing", rate)
        schedule = Poisson(rate, self.goal.seed)
        load = self._load(schedule, max(self.goal.window_s, COMPLETIONS / rate))
        return await self._measure(load, lambda so_far: False)

    async def _settle(self) -> None:
        """Where time is over: go down, in growing steps, to a rate that passes and holds.

        Where one passed, but far below the upper bound, one rate not far below that is tried.
        """
        step, is_near = min(2 * self._width, 0.5), False
        for _ in range(LAST_TRIES):
            lower, upper = self._bounds()
            if upper is None or upper <= (self.incumbent_rps or 0.0):
                return
            below = (1 - step) * upper
            if lower is not None and (is_near or lower >= below * (1 - self._width)):
                if await self._holds():
                    return
                is_near = False
            elif self._least_requests() > below * self._window_limit_s:
                break  # No window at a rate so low could show that none fails.
            else:
                is_near = lower is not None
                verdict = await self._probe("narrowing", below)
                if verdict is Verdict.FAIL:
                    step = min(2 * step, 0.5)
                elif verdict is Verdict.UNDECIDED:
                    self._width = max(self._width, min(2 * self._width, SETTLED * self.goal.width))
        if self._bounds()[0] is None or not await self._holds():
            self._doubt("no rate was seen to hold at the end before the time was over")

    async def _holds(self) -> bool:
        """Whether the highest rate that passed still passes, at the end of the search.

        A server whose capacity fell after that would be certified at its old rate.
        """
        lower, upper = self._bounds()
        if lower is None or upper is None:
            return True
        last = self._probes[-1]
        if last.rate_rps == lower and last.verdict is Verdict.PASS:
            return True
        for _ in range(2):
            verdict = await self._probe("narrowing", lower)
            if verdict is Verdict.PASS:
                return True
            if verdict is not Verdict.FAIL:
                self._open.add(len(self._probes) - 1)
                if self._bounds()[0] != lower:
                    return False
                self._doubt(f"whether {lower:.1f} rps still held at the end stayed open")
                return True
        self._revoked.add(lower)
        return False

    async def _probe(self, phase: str, rate: float) -> Verdict:
        self.progress(phase, rate)
        goal = self.goal
        least_requests = self._least_requests()
        repeated = False
        while True:
            # Windows of one rate must not repeat each other's luck.
            seed = goal.seed + len(self._probes)
            schedule = Poisson(rate, seed) if goal.arrivals == "poisson" else Constant(rate)
            wanted_s = max(self.left_s, LAST * self._least_s)
            if (needed_s := least_requests / rate) <= self._window_limit_s:
                wanted_s = max(wanted_s, needed_s)
            limit_s = min(self._window_limit_s, wanted_s)
            most_s = max(limit_s, min(LONGER * limit_s, self.left_s - goal.window_s))
            load = self._load(schedule, most_s)
            looks = Looks(goal, self._width, least_requests, limit_s)
            measurement = await self._measure(load, looks)
            self._spent_s += duration_s(measurement)
            verdict, reason = judge(measurement, goal, self._width, least_requests)
            unanswered = measurement.scheduled - measurement.succeeded
            if verdict is Verdict.PASS and unanswered:
                verdict, reason = Verdict.FAIL, f"{unanswered} requests got no good answer"
            self._probes.append(Probe(rate, verdict, reason, measurement))
            if verdict is not Verdict.GENERATOR:
                return verdict
            if done := await self.generator.relieve(measurement):
                self._doubt(f"{reason}; measured again with {done}")
            elif repeated:
                return verdict
            else:
                repeated = True  # The host may have been busy for a moment.

    async def _measure(self, load: Load, until: Callable[[Measurement], bool]) -> Measurement:
        try:
            return await self.generator.measure(load, until)
        except GeneratorLost:
            return await self.generator.measure(load, until)

    def _load(self, schedule: Any, duration_s: float) -> Load:
        return Load(schedule, duration_s, self.goal.timeout_s, self.cycle_requests)

    def _is_limited(self, rate: float | None) -> bool:
        """Whether every window at this rate says nothing of the server."""
        verdicts = [p.verdict for p in self._probes if p.rate_rps == rate]
        return bool(verdicts) and all(v is Verdict.GENERATOR for v in verdicts)

    def _least_requests(self) -> float:
        """How many requests without a failure are needed to believe that none fails.

        Where some failed at other rates, three times as many as there were for each failure:
        with fewer, a server that fails now and then would pass at a low rate by chance. Where it
        only refused, its queue was full: no more than a window can show below the capacity.
        """
        failed = [
            probe.measurement
            for probe in self._probes
            # Those of an overloaded server are told by its backlog, and end below it.
            if probe.measurement.failed and not probe.measurement.overload.low > self._width / 2
        ]
        failures = sum(measurement.failed for measurement in failed)
        each = sum(measurement.scheduled for measurement in failed) / max(failures, 1)
        wanted = 3 * each
        if all(cause in REFUSALS for measurement in failed for cause in measurement.errors):
            wanted = min(wanted, SHOWN_AT * self._capacity * self._window_limit_s)
        return max(COMPLETIONS, wanted)

    def _lost(self) -> float:
        """The share of the last window's requests that the server could not take, as a guess."""
        last = self._probes[-1]
        growth = last.measurement.overload.fraction
        guess = 1 - self._capacity / last.rate_rps
        # A window that ended early has filled the server, which looks like a greater overload.
        lost = min(growth, guess) if growth == growth else guess
        return min(max(lost, self._width / 2), 0.9)

    def _marginal(self) -> bool:
        """Whether the last window failed by so little that it may have been chance."""
        last = self._probes[-1].measurement
        return last.failed <= max(1, 0.01 * last.scheduled) and not last.overload.low > self._width

    def _bounds(self) -> tuple[float | None, float | None]:
        """The highest rate that passed by majority, below the lowest that did not."""
        votes: dict[float, int] = {}
        for index, probe in enumerate(self._probes):
            vote = 1 if probe.verdict is Verdict.PASS else -1
            if probe.verdict is not Verdict.GENERATOR and index not in self._open:
                votes[probe.rate_rps] = votes.get(probe.rate_rps, 0) + vote
        limited = {p.rate_rps for p in self._probes} - set(votes)
        failed = {rate for rate, vote in votes.items() if vote <= 0} | self._revoked
        least = min(failed, default=math.inf)
        lower = max((r for r, vote in votes.items() if vote > 0 and r < least), default=None)
        # What said nothing of the server is no bound below what passed.
        above = [rate for rate in failed | limited if lower is None or rate > lower]
        return lower, min(above, default=None)

    def _result(
        self, capacity: float, warmup: Measurement, reason: str, pruned: str | None = None
    ) -> SustainedRate:
        lower, upper = self._bounds()
        if lower is None and self._probes and pruned is None:
            reason = f"{self._why_none()}; {reason}"
        self._doubt_drift()
        self._doubt_outvoted(lower)
        return SustainedRate(
            lower,
            upper,
            capacity,
            tuple(self._probes),
            warmup,
            reason,
            self._width,
            pruned,
            tuple(self._doubts),
            self._p99_excess(),
            self._common,
        )

    def _why_none(self) -> str:
        # A window in which requests failed says more than one that was too short to tell.
        failed = [probe for probe in self._probes if probe.measurement.errors]
        last = min(failed or self._probes, key=lambda probe: probe.rate_rps)
        limited = all(probe.verdict is Verdict.GENERATOR for probe in self._probes)
        name = LIMITED if limited else "no sustained rate"
        return f"{name}: at {last.rate_rps:.2f} rps {last.reason}"

    def _p99_excess(self) -> float:
        if self.goal.p99_s is None:
            return 0.0
        seen = [probe.measurement.latency.quantile(0.99) for probe in self._probes]
        return min((p99 for p99 in seen if p99), default=self.goal.p99_s) / self.goal.p99_s - 1

    def _doubt(self, sentence: str) -> None:
        if sentence not in self._doubts:
            self._doubts.append(sentence)

    def _doubt_outvoted(self, lower: float | None) -> None:
        there = [probe for probe in self._probes if probe.rate_rps == lower]
        for failed in there:
            if failed.verdict is Verdict.FAIL:
                self._doubt(
                    f"one of {len(there)} windows at {lower:.1f} rps did not pass: {failed.reason}"
                )

    def _doubt_drift(self) -> None:
        """Say so where the server took a rate at one time and not at another."""
        for earlier, later in itertools.combinations(self._probes, 2):
            passed, failed = earlier, later
            if later.verdict is Verdict.PASS:
                passed, failed = later, earlier
            if (
                passed.verdict is Verdict.PASS
                and failed.verdict is Verdict.FAIL
                and failed.rate_rps < passed.rate_rps * (1 - self._width / 2)
            ):
                when = "later" if failed is later else "earlier"
                self._doubts.append(
                    f"drift: {passed.rate_rps:.1f} rps passed, and {when} "
                    f"{failed.rate_rps:.1f} rps did not: {failed.reason}"
                )
                return
