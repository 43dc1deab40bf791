"""The search for the sustained rate: warm-up, capacity, incumbent probe, bracketing.

It uses one interface, `LoadGenerator`, and is independent of HTTP and TorchServe.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from loadgen.backlog import MIN_BLOCKS
from loadgen.errors import GeneratorLostError
from loadgen.measurement import BIN_S, Load, LoadGenerator, Measurement
from loadgen.rate.early_stop import EarlyStop, stable_rate
from loadgen.rate.goal import Goal
from loadgen.rate.mlrsearch import Measurer, OutOfTimeError, bracket
from loadgen.rate.result import Probe, StopReason, SustainedRate
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS, Thresholds
from loadgen.rate.verdict import Verdict, duration_s, format_errors, judge, least_window_s
from loadgen.schedule import Closed, Constant, Poisson

#: Status codes by which a server reports that it has too much to do.
_REFUSALS = ("status 503", "status 429")

#: Receives each phase and its rate as it begins.
RateProgress = Callable[[str, float], None]


@dataclass
class RateSearch:
    """One search for the sustained rate of a load generator's target.

    Args:
        cycle_requests: requests that the server takes in one round (workers × batch size).
        users: of the closed loop, enough to fill every batch twice.
        incumbent_rps: the rate to beat, if any.
        known_rps: what an earlier search found, if anything: this one starts there.
        comparison_rps: if given, one more window of Poisson arrivals at this rate is measured
            for its latency.
        progress: receives each phase and its rate as it begins.
    """

    goal: Goal
    generator: LoadGenerator
    cycle_requests: int = 1
    users: int = 8
    incumbent_rps: float | None = None
    known_rps: float | None = None
    comparison_rps: float | None = None
    progress: RateProgress = lambda phase, rate: None
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    _probes: list[Probe] = field(default_factory=list)
    _warnings: list[str] = field(default_factory=list)
    #: Indices of final windows that stayed undecided; rates that had passed and did not hold.
    _open: set[int] = field(default_factory=set)
    _revoked: set[float] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._width, self._windows = self.goal.width, self.goal.windows
        self._window_limit_s = self.goal.window_limit_s
        self._least_s = self.goal.window_s
        self._spent_s = 0.0
        self._capacity = math.inf
        self._comparison: Measurement | None = None

    @property
    def left_s(self) -> float:
        """Seconds left for bracketing; only its own windows count."""
        usual_s = self.goal.search_limit_s
        return (
            min(max(usual_s, self.thresholds.least_windows * self._least_s), 2 * usual_s)
            - self._spent_s
        )

    def is_late(self) -> bool:
        """Whether the time left is needed to show that the known rate holds."""
        return self.left_s < self.thresholds.last * self._least_s

    async def warm_up(self) -> Measurement:
        """Run a closed loop until its throughput is stable, or its time is over."""
        self.progress("warm-up", 0.0)
        load = self._load(Closed(self.users), self.goal.warmup_limit_s)
        return await self._measure(load, self._is_warm)

    async def find(self) -> SustainedRate:
        """Run the search to its end.

        Raises:
            GeneratorLostError: a load generator process was lost twice in the same window.
        """
        warmup = await self._begin()
        capacity = self._capacity
        if not warmup.succeeded:
            causes = format_errors(warmup.errors) or "no answer at all"
            return self._result(warmup, StopReason.NOT_SERVED, f"no request succeeded: {causes}")
        best = self.incumbent_rps
        passed = None
        # If the capacity is far above the rate to beat, bracketing finds it without a probe.
        margin = self.thresholds.capacity_margin
        if best is not None and capacity < best * margin**2:
            if margin * capacity < best:
                why = (
                    f"its capacity of about {capacity:.1f} rps is too far below the incumbent's "
                    f"{best:.1f} rps"
                )
                return self._result(warmup, StopReason.PRUNED_BY_CAPACITY, pruned=why)
            verdict = await self._probe("incumbent probe", best)
            if verdict is not Verdict.PASS and self._failed_marginally():
                verdict = await self._probe("incumbent probe", best)
            if verdict is Verdict.GENERATOR_LIMITED:
                reason = "generator limited at the incumbent's rate"
                return self._result(warmup, StopReason.GENERATOR_LIMITED, reason)
            if verdict is not Verdict.PASS:
                reason = self._probes[-1].reason
                why = f"it does not sustain the incumbent's {best:.1f} rps: {reason}"
                return self._result(warmup, StopReason.PRUNED_BY_INCUMBENT, pruned=why)
            passed = best
        if self.known_rps is not None:
            stop = await self._search_from(self.known_rps)
        else:
            stop = await self._bracket(max(capacity, passed or 0.0), passed)
        if self.comparison_rps is not None:
            self._comparison = await self._measure_comparison(self.comparison_rps)
        lower, upper = self._bounds()
        if best is not None and (lower or 0.0) < best and not self._is_limited(upper):
            why = f"it did not sustain the incumbent's {best:.1f} rps in every window"
            return self._result(warmup, stop, pruned=why)
        return self._result(warmup, stop)

    async def measure_at_rate(self, rate_rps: float, windows: int) -> tuple[Probe, ...]:
        """Offer one rate in `windows` windows, after a closed loop.

        Returns:
            The windows; none if the closed loop got no answer.

        Raises:
            GeneratorLostError: a load generator process was lost twice in the same window.
        """
        warmup = await self._begin()
        for _ in range(windows if warmup.succeeded else 0):
            self._spent_s = 0.0
            await self._probe("window", rate_rps)
        return tuple(self._probes)

    async def _begin(self) -> Measurement:
        """Run the closed loop; estimate the capacity and adapt the goal to it."""
        warmup = await self.warm_up()
        # A server so slow that nothing was answered in the steady part has at least this rate.
        least_rps = warmup.succeeded / max(warmup.span_s, BIN_S)
        self._capacity = stable_rate(warmup, self.thresholds) or warmup.goodput_rps or least_rps
        if warmup.succeeded:
            self._adapt_to_slow_server(warmup, self._capacity)
        return warmup

    def _adapt_to_slow_server(self, warmup: Measurement, capacity: float) -> None:
        """Adapt the goal to a server whose windows take long, so that the search stays short."""
        load = self._load(Constant(capacity), self.goal.window_limit_s)
        least_s = least_window_s(replace(warmup, load=load), self.goal, self.thresholds)
        if least_s > 2 * self.goal.window_s:
            self._windows = 1
        # Fewer rounds show no trend, fewer completions no success.
        needed_s = max(
            2 * MIN_BLOCKS * replace(warmup, load=load).cycle_s,
            2 * self.thresholds.completions / capacity,
        )
        needed_s = min(needed_s, self.goal.search_limit_s)
        self._window_limit_s = max(self.goal.window_limit_s, needed_s)
        self._least_s = min(least_s, self._window_limit_s)
        factor = min(max(least_s / self._window_limit_s, 1.0), self.thresholds.coarsest)
        self._width = min(factor * self.goal.width, 0.4)

    def _is_warm(self, so_far: Measurement) -> bool:
        """Return whether the closed loop has shown enough."""
        if stable_rate(so_far, self.thresholds) is not None:
            return True
        if (
            not so_far.succeeded
            and so_far.failed >= self.thresholds.completions
            and so_far.span_s > 3
        ):
            return True
        best = self.incumbent_rps
        # No warm-up makes a server several times faster after its first seconds.
        return best is not None and so_far.span_s > 6 and 4 * so_far.goodput_rps < best

    async def _bracket(self, estimate: float, passed: float | None) -> StopReason:
        """Bracket and bisect with MLRsearch, in a separate thread."""

        async def offer(rate_rps: float) -> float:
            verdict = await self._probe("bracketing", rate_rps)
            # The share that the server could not take shows MLRsearch where to go next. A window
            # that did not pass must not look as if almost nothing had been lost.
            return 0.0 if verdict is Verdict.PASS else self._lost_share()

        def is_out_of_time() -> bool:
            return bool(self._probes) and self.is_late()

        self._spent_s = 0.0
        ceiling = self.goal.max_rate_rps
        high = min(self.thresholds.first_above * estimate, ceiling)
        floor = low = passed or self.thresholds.lowest * high
        # MLRsearch rounds to whole widths, and never ends if the range is exactly one.
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
                return StopReason.TIME_LIMIT
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
        return self._stop_reason()

    def _stop_reason(self) -> StopReason:
        upper = self._bounds()[1]
        if upper is None:
            return StopReason.MAX_RATE
        if self._is_limited(upper):
            return StopReason.GENERATOR_LIMITED
        return StopReason.CONVERGED

    def _describe(self, stop: StopReason) -> str:
        """Return why the search ended, with its figures."""
        if stop is StopReason.TIME_LIMIT:
            return f"the search reached its time limit of {self._spent_s + self.left_s:.0f} s"
        upper = self._bounds()[1]
        if stop is StopReason.GENERATOR_LIMITED and upper is not None:
            return (
                f"the load generator could not offer {upper:.1f} rps on time; "
                "the server may sustain more"
            )
        return str(stop)

    async def _search_from(self, rate: float) -> StopReason:
        """Go from a rate in growing steps until one passed and one did not."""
        step, ceiling = self._width, self.goal.max_rate_rps
        while not self._probes or not self.is_late():
            await self._probe("bracketing", min(rate, ceiling))
            lower, upper = self._bounds()
            if upper is None and rate >= ceiling:
                return self._stop_reason()
            if lower and upper and upper * (1 - 1.01 * self._width) <= lower:
                if await self._holds():
                    return self._stop_reason()
                lower, upper = self._bounds()
            if lower and upper:
                rate = math.sqrt(lower * upper)
            else:
                rate = lower / (1 - step) if lower else (1 - step) * (upper or rate)
                step = min(2 * step, 0.5)
        await self._settle()
        return StopReason.TIME_LIMIT

    async def _measure_comparison(self, rate: float) -> Measurement:
        """Measure one window of fixed length, the same for every configuration."""
        self.progress("bracketing", rate)
        schedule = Poisson(rate, self.goal.seed)
        load = self._load(schedule, max(self.goal.window_s, self.thresholds.completions / rate))
        return await self._measure(load, lambda so_far: False)

    async def _settle(self) -> None:
        """When time is over, go down in growing steps to a rate that passes and holds.

        If one passed, but far below the upper bound, one rate just below the bound is tried.
        """
        step, is_near = min(2 * self._width, 0.5), False
        for _ in range(self.thresholds.last_tries):
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
                verdict = await self._probe("bracketing", below)
                if verdict is Verdict.FAIL:
                    step = min(2 * step, 0.5)
                elif verdict is Verdict.UNDECIDED:
                    self._width = max(
                        self._width, min(2 * self._width, self.thresholds.settled * self.goal.width)
                    )
        if self._bounds()[0] is None or not await self._holds():
            self._warn("time ran out before a last window confirmed the rate")

    async def _holds(self) -> bool:
        """Return whether the highest rate that passed still passes at the end of the search.

        Otherwise a server whose capacity fell would be certified at its old rate.
        """
        lower, upper = self._bounds()
        if lower is None or upper is None:
            return True
        last = self._probes[-1]
        if last.rate_rps == lower and last.verdict is Verdict.PASS:
            return True
        for _ in range(2):
            verdict = await self._probe("bracketing", lower)
            if verdict is Verdict.PASS:
                return True
            if verdict is not Verdict.FAIL:
                self._open.add(len(self._probes) - 1)
                if self._bounds()[0] != lower:
                    return False
                self._warn(f"the last windows did not show whether {lower:.1f} rps still holds")
                return True
        self._revoked.add(lower)
        return False

    async def _probe(self, phase: str, rate: float) -> Verdict:
        self.progress(phase, rate)
        goal = self.goal
        least_requests = self._least_requests()
        repeated = False
        while True:
            # Each window of a rate has separate arrivals.
            seed = goal.seed + len(self._probes)
            schedule = Poisson(rate, seed) if goal.arrivals == "poisson" else Constant(rate)
            allowed_s = max(self.left_s, self.thresholds.last * self._least_s)
            if (needed_s := least_requests / rate) <= self._window_limit_s:
                allowed_s = max(allowed_s, needed_s)
            limit_s = min(self._window_limit_s, allowed_s)
            max_s = max(limit_s, min(self.thresholds.longer * limit_s, self.left_s - goal.window_s))
            load = self._load(schedule, max_s)
            stop = EarlyStop(goal, self._width, least_requests, limit_s, self.thresholds)
            measurement = await self._measure(load, stop)
            self._spent_s += duration_s(measurement)
            verdict, reason = judge(
                measurement, goal, self._width, least_requests, thresholds=self.thresholds
            )
            unanswered = measurement.scheduled - measurement.succeeded
            if verdict is Verdict.PASS and unanswered:
                verdict, reason = Verdict.FAIL, f"{unanswered} requests got no correct answer"
            self._probes.append(Probe(rate, verdict, reason, measurement))
            if verdict is not Verdict.GENERATOR_LIMITED:
                return verdict
            if addition := await self.generator.add_capacity(measurement):
                self._warn(f"{reason}; measured again with {addition}")
            elif repeated:
                return verdict
            else:
                repeated = True  # The host may have been busy for a moment.

    async def _measure(self, load: Load, until: Callable[[Measurement], bool]) -> Measurement:
        try:
            return await self.generator.measure(load, until)
        except GeneratorLostError:
            return await self.generator.measure(load, until)

    def _load(self, schedule: Any, duration_s: float) -> Load:
        return Load(schedule, duration_s, self.goal.timeout_s, self.cycle_requests)

    def _is_limited(self, rate: float | None) -> bool:
        """Return whether the load generator was the limit in every window at this rate."""
        verdicts = [p.verdict for p in self._probes if p.rate_rps == rate]
        return bool(verdicts) and all(v is Verdict.GENERATOR_LIMITED for v in verdicts)

    def _least_requests(self) -> float:
        """Return how many requests without a failure show that none fails.

        If some failed at other rates, three times as many as there were per failure: with fewer,
        a server that fails now and then would pass at a low rate by chance. If it only refused
        requests, its queue was full: no more are needed than a window below the capacity holds.
        """
        failed = [
            probe.measurement
            for probe in self._probes
            # Failures of an overloaded server show in its backlog, and stop at lower rates.
            if probe.measurement.failed and not probe.measurement.overload.low > self._width / 2
        ]
        failures = sum(measurement.failed for measurement in failed)
        per_failure = sum(measurement.scheduled for measurement in failed) / max(failures, 1)
        needed = 3 * per_failure
        if all(cause in _REFUSALS for measurement in failed for cause in measurement.errors):
            needed = min(needed, self.thresholds.shown_at * self._capacity * self._window_limit_s)
        return max(self.thresholds.completions, needed)

    def _lost_share(self) -> float:
        """Estimate the share of the last window's requests that the server could not take."""
        last = self._probes[-1]
        growth = last.measurement.overload.fraction
        estimate = 1 - self._capacity / last.rate_rps
        # A window that ended early has filled the server, which looks like a greater overload.
        lost = min(growth, estimate) if growth == growth else estimate
        return min(max(lost, self._width / 2), 0.9)

    def _failed_marginally(self) -> bool:
        """Return whether the last window failed by so little that it may have been chance."""
        last = self._probes[-1].measurement
        return last.failed <= max(1, 0.01 * last.scheduled) and not last.overload.low > self._width

    def _bounds(self) -> tuple[float | None, float | None]:
        """Return the highest rate that passed by majority, below the lowest that did not."""
        votes: dict[float, int] = {}
        for index, probe in enumerate(self._probes):
            vote = 1 if probe.verdict is Verdict.PASS else -1
            if probe.verdict is not Verdict.GENERATOR_LIMITED and index not in self._open:
                votes[probe.rate_rps] = votes.get(probe.rate_rps, 0) + vote
        limited = {p.rate_rps for p in self._probes} - set(votes)
        failed = {rate for rate, vote in votes.items() if vote <= 0} | self._revoked
        lowest_failed = min(failed, default=math.inf)
        lower = max(
            (r for r, vote in votes.items() if vote > 0 and r < lowest_failed), default=None
        )
        # A window limited by the generator is no bound below a rate that passed.
        above = [rate for rate in failed | limited if lower is None or rate > lower]
        return lower, min(above, default=None)

    def _result(
        self, warmup: Measurement, stop: StopReason, reason: str = "", pruned: str | None = None
    ) -> SustainedRate:
        lower, upper = self._bounds()
        reason = reason or self._describe(stop)
        if lower is None and self._probes and pruned is None:
            reason = f"{self._reason_for_no_rate()}; {reason}"
        self._warn_of_drift()
        self._warn_of_failed_windows(lower)
        return SustainedRate(
            lower_rps=lower,
            upper_rps=upper,
            capacity_rps=self._capacity,
            probes=tuple(self._probes),
            warmup=warmup,
            stop_reason=stop,
            reason=reason,
            width=self._width,
            pruned=pruned,
            warnings=tuple(self._warnings),
            p99_excess=self._p99_excess(),
            comparison=self._comparison,
        )

    def _reason_for_no_rate(self) -> str:
        # A window in which requests failed shows more than one that was too short.
        failed = [probe for probe in self._probes if probe.measurement.errors]
        last = min(failed or self._probes, key=lambda probe: probe.rate_rps)
        limited = all(probe.verdict is Verdict.GENERATOR_LIMITED for probe in self._probes)
        name = "generator limited" if limited else "no sustained rate"
        return f"{name}: at {last.rate_rps:.2f} rps {last.reason}"

    def _p99_excess(self) -> float:
        if self.goal.p99_s is None:
            return 0.0
        p99s = [probe.measurement.latency.quantile(0.99) for probe in self._probes]
        return min((p99 for p99 in p99s if p99), default=self.goal.p99_s) / self.goal.p99_s - 1

    def _warn(self, sentence: str) -> None:
        if sentence not in self._warnings:
            self._warnings.append(sentence)

    def _warn_of_failed_windows(self, lower: float | None) -> None:
        windows = [probe for probe in self._probes if probe.rate_rps == lower]
        for window in windows:
            if window.verdict is Verdict.FAIL:
                share = f"one of {len(windows)} windows at {lower:.1f} rps"
                self._warn(f"{share} did not pass: {window.reason}")

    def _warn_of_drift(self) -> None:
        """Warn if the server sustained a rate at one time and not a lower one at another."""
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
                self._warnings.append(
                    f"drift: {passed.rate_rps:.1f} rps passed, and {when} "
                    f"{failed.rate_rps:.1f} rps did not: {failed.reason}"
                )
                return
