"""The search for the sustained rate: estimate the capacity, then verify a rate just below it.

It uses one interface, `LoadGenerator`, and is independent of HTTP and TorchServe.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from loadgen.formatting import format_percent, format_rps
from loadgen.measurement import BIN_S, LoadGenerator, Measurement
from loadgen.rate.bracket import Bracket
from loadgen.rate.estimate import Estimate, estimate_of, pooled, standard_error_of
from loadgen.rate.goal import Depth, Goal
from loadgen.rate.pace import Pace
from loadgen.rate.result import Probe, StopReason, SustainedRate
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS, Thresholds
from loadgen.rate.verdict import Verdict, format_errors, is_growth_by_chance, latency_excess
from loadgen.rate.windows import RateProgress, Windows
from loadgen.schedule import Poisson

#: Status codes by which a server reports that it has too much to do.
_REFUSALS = ("status 503", "status 429")
_CLEAR = {Verdict.PASS, Verdict.GENERATOR_LIMITED}


def _not_served(warmup: Measurement) -> str:
    return f"no request succeeded: {format_errors(warmup.errors) or 'no answer at all'}"


@dataclass
class RateSearch:
    """One search for the sustained rate of a load generator's target.

    Args:
        cycle_requests: requests that the server takes in one round (workers × batch size).
        users: of the closed loop, enough to fill every batch twice.
        incumbent_rps: the rate to beat, if any; with `goal.for_rps` the rate that is needed.
        known_share: the rate at which this configuration met the limits of the latency before, as
            a share of its estimate then. The same share of the new estimate is offered first.
            Without limits, it has no effect.
        comparison_rps: if given, one more window of Poisson arrivals at this rate is measured
            for its latency.
        depth: how thoroughly the rate is verified.
        latency_curve: whether latency at `Pace.curve_shares` of the sustained rate is measured.
        curve_from_rps: the rate at which the curve begins; see `Pace.curve_shares`.
        progress: receives each phase and its rate as it begins.
        announce: receives the expected seconds until the end, once the capacity is estimated.
    """

    goal: Goal
    generator: LoadGenerator
    cycle_requests: int = 1
    users: int = 8
    incumbent_rps: float | None = None
    known_share: float | None = None
    comparison_rps: float | None = None
    depth: Depth = Depth.FULL
    latency_curve: bool = False
    curve_from_rps: float | None = None
    progress: RateProgress = lambda phase, rate: None
    announce: Callable[[float], None] = lambda seconds: None
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    _saturated: list[Estimate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._windows = Windows(
            self.goal, self.generator, self.cycle_requests, self.progress, self.thresholds
        )
        self._pace = Pace(self.goal, self.cycle_requests, self.depth, self.thresholds)
        self._capacity = 0.0
        self._lower: float | None = None
        self._unlimited: float | None = None
        self._target: Probe | None = None

    @property
    def _probes(self) -> list[Probe]:
        return self._windows.probes

    async def warm_up(self) -> Measurement:
        """Run a closed loop, and return its window."""
        return await self._windows.closed_loop(self.users, self.incumbent_rps, self.depth)

    async def find(self) -> SustainedRate:
        """Run the search to its end.

        Raises:
            GeneratorLostError: a load generator process was lost twice in the same window.
        """
        warmup = await self._begin()
        capacity, best = self._capacity, self.incumbent_rps
        if not warmup.succeeded:
            return self._result(warmup, StopReason.NOT_SERVED, _not_served(warmup))
        if self.depth is Depth.ESTIMATE:
            await self._measure_target()
            return self._result(warmup, StopReason.ESTIMATED)
        if best is not None and self.thresholds.capacity_margin * capacity < best:
            other = (
                f"the incumbent's {format_rps(best)}"
                if self.goal.for_rps is None
                else f"the {format_rps(best)} that the goal needs"
            )
            why = f"its capacity of about {format_rps(capacity)} is too far below {other}"
            return self._result(warmup, StopReason.PRUNED_BY_CAPACITY, pruned=why)
        self.announce(self._expected_s())
        stop = await self._find_rate()
        if stop is StopReason.PRUNED_BY_RATE and best is not None:
            last = self._probes[-1]
            shown = "did not sustain" if last.verdict is Verdict.FAIL else "was not seen to sustain"
            why = f"it {shown} {format_rps(last.rate_rps)}"
            why += f", and the incumbent sustains {format_rps(best)}"
            return self._result(warmup, stop, pruned=why)
        await self._measure_target()
        return await self._with_latencies(self._result(warmup, stop))

    async def measure_at_rate(self, rate_rps: float, windows: int) -> tuple[Probe, ...]:
        """Offer one rate in `windows` windows, after a closed loop.

        Returns:
            The windows; only that of the closed loop if it got no answer.

        Raises:
            GeneratorLostError: a load generator process was lost twice in the same window.
        """
        warmup = await self._begin()
        if not warmup.succeeded:
            return (Probe(rate_rps, Verdict.FAIL, _not_served(warmup), warmup),)
        for _ in range(windows):
            if self.goal.lowers_rate:
                await self._offer_poisson("window", rate_rps, is_limited=True)
            else:
                await self._offer("window", rate_rps)
        return tuple(self._probes)

    async def _begin(self) -> Measurement:
        """Run the closed loop and estimate the capacity."""
        warmup = await self.warm_up()
        estimate = estimate_of(warmup)
        if estimate is not None:
            self._saturated.append(estimate)
        # A server so slow that nothing was answered in the steady part has at least this rate.
        least_rps = warmup.succeeded / max(warmup.span_s, BIN_S)
        self._capacity = estimate.rps if estimate else warmup.goodput_rps or least_rps
        return warmup

    def _expected_s(self) -> float:
        rate = self.thresholds.offered * self._capacity
        return self._pace.expected_s(
            rate, self.latency_curve, self.comparison_rps, self.curve_from_rps
        )

    # --- verification ----------------------------------------------------------------

    async def _find_rate(self) -> StopReason:
        known_rps = self._known_rps
        if self._is_screen and known_rps is not None:
            # The window that shows the latency shows failed requests as well.
            return await self._lower_to_limits(known_rps)
        stop = await self._verify()
        self._unlimited = self._lower
        if self._lower is not None and self.goal.lowers_rate:
            stop = await self._lower_to_limits(self._lower)
        return stop

    @property
    def _known_rps(self) -> float | None:
        """The rate that is expected to meet the limits of the latency; None if unknown."""
        if not self.goal.lowers_rate or self.known_share is None:
            return None
        return min(self.known_share * self._capacity, self.goal.max_rate_rps)

    async def _verify(self) -> StopReason:
        """Offer rates from just below the estimate downwards until one is certified."""
        limits, ceiling = self.thresholds, self.goal.max_rate_rps
        tries = limits.screen_tries if self._is_screen else limits.tries
        rate = min(limits.offered * self._capacity, ceiling)
        if (known_rps := self._known_rps) is not None:
            rate = min(rate, known_rps)
        for attempt in itertools.count(1):
            probe = await self._offer("verification", rate)
            if passed := probe.verdict is Verdict.PASS:
                jittered = await self._jitter(rate)
                if jittered is None:
                    self._lower = rate
                    return StopReason.MAX_RATE if rate >= ceiling else StopReason.VERIFIED
                probe = jittered
            if self._cannot_matter(probe):
                return StopReason.PRUNED_BY_RATE
            if self._needs_bracket(probe):
                width = limits.bracket_step if self._is_screen else self.goal.width
                return await self._bracket_below(rate, width)
            if attempt >= tries or self._is_too_short(probe):
                break
            if passed:
                # At 0.9 of the rate the server was not saturated: nothing is learned but this.
                rate *= 1 - limits.jitter_step
            else:
                rate = self._lowered(rate, probe, attempt)
        if self._may_pass_lower(probe):
            # The first that passes will do: the speed of this server varies.
            return await self._bracket_below(rate, 2 * limits.bracket_step)
        return StopReason.GIVEN_UP

    @property
    def _is_screen(self) -> bool:
        return self.depth is Depth.SCREEN

    def _lowered(self, rate: float, failed: Probe, attempt: int) -> float:
        """Return the next rate to offer after one that did not pass."""
        limits = self.thresholds
        if failed.verdict is Verdict.GENERATOR_LIMITED:
            return rate * (1 - limits.bracket_step * 2.0**attempt)
        if (saturated := self._saturation(failed.measurement)) is not None:
            self._saturated.append(saturated)
        target: float = limits.offered * self._estimate_rps()
        step = limits.screen_step if self._is_screen else limits.least_step
        return min(target, rate * (1 - attempt * step))

    def _saturation(self, window: Measurement) -> Estimate | None:
        """Return the capacity that a window shows that did not pass; None if it shows none."""
        overload, rate = window.overload, window.load.rate_rps
        if rate is None or not math.isfinite(overload.low):
            return None
        if overload.low > 0 and (found := estimate_of(window)) is not None:
            return found
        capacity = rate * (1 - max(overload.fraction, 0.0))
        error = rate * max(overload.high - overload.fraction, 0.0)
        return Estimate(capacity, max(capacity - error, 0.0), capacity + error, window.span_s)

    def _estimate_rps(self) -> float:
        return pooled(self._saturated).rps if self._saturated else self._capacity

    async def _jitter(self, rate: float) -> Probe | None:
        """Offer Poisson arrivals below a rate that passed; return the window if it failed.

        Their backlog grows and shrinks by chance. If no request failed, a window whose backlog
        grew by more than chance explains is repeated, and only a second one counts.
        """
        if self.depth is not Depth.FULL or self.goal.arrivals == "poisson":
            return None
        if self.goal.lowers_rate:
            return None  # The rate must be served with Poisson arrivals in any case.
        share = self.thresholds.jitter * rate
        for most in (self.thresholds.widest / 2, math.inf):
            probe = await self._windows.offer(
                "verification",
                share,
                self._pace.jitter_s(share),
                "poisson",
                self.thresholds.completions,
                math.inf,
            )
            if probe.verdict in _CLEAR or is_growth_by_chance(probe.measurement, most):
                return None
            if probe.measurement.failed:
                break
        self._windows.warn(
            f"the rate was lowered: {format_rps(rate)} passed with constant arrivals, and Poisson "
            f"arrivals at {format_rps(share)} did not: {probe.reason}"
        )
        return probe

    async def _lower_to_limits(self, rate: float) -> StopReason:
        """Lower a rate that passed until Poisson arrivals meet the limits of the latency."""
        served = [p for p in self._probes if p.rate_rps == rate and p.verdict is Verdict.PASS]
        excesses = [latency_excess(probe.measurement, self.goal) or 0.0 for probe in served]
        # What begins with a known rate needs few windows.
        started_s = None if self._known_rps is None else self._windows.spent_s
        self._lower = None
        # Poisson arrivals wait longer than constant ones.
        if max(excesses, default=0.0) <= 0 and await self._meets_limits(rate):
            self._lower = rate
            return StopReason.MAX_RATE if rate >= self.goal.max_rate_rps else StopReason.VERIFIED
        return await self._bracket_below(rate, self.goal.width, started_s, is_limited=True)

    async def _meets_limits(self, rate: float) -> bool:
        """Return whether a rate meets the limits, at full depth in two windows.

        The highest of several rates that passed once would pass half of the time.
        """
        for _ in range(2 if self.depth is Depth.FULL else 1):
            probe = await self._offer_poisson("bracketing", rate, is_limited=True)
            if probe.verdict is not Verdict.PASS:
                return False
        return True

    async def _measure_target(self) -> None:
        """Offer `goal.for_rps` with Poisson arrivals, if the server has the capacity for it.

        The window is no part of the search for the sustained rate.
        """
        rate = self.goal.for_rps
        if rate is not None and rate <= self._capacity:
            before = len(self._probes)
            self._target = await self._offer_poisson("latency", rate, is_limited=False)
            del self._probes[before:]

    async def _offer_poisson(self, phase: str, rate: float, is_limited: bool) -> Probe:
        """Offer a rate with Poisson arrivals, for long enough to show the latency."""
        seconds, least = self._pace.judged_s(rate), self._least_requests()
        return await self._windows.offer(
            phase, rate, seconds, "poisson", least, math.inf, is_limited
        )

    async def _bracket_below(
        self, rate: float, width: float, started_s: float | None = None, is_limited: bool = False
    ) -> StopReason:
        """Search between a rate that did not pass and a lower one that does.

        Args:
            width: relative distance of the two bounds.
            started_s: from when the time limit counts, on the clock of the windows; now if None.
            is_limited: whether the limits of the latency must be met.
        """
        limits = self.thresholds
        begun_s = self._windows.spent_s
        started_s = begun_s if started_s is None else started_s
        lowest = limits.lowest * self._capacity
        bracket = Bracket(rate, width, lowest, limits.bracket_step)
        if self._is_screen and is_limited:
            limit_s = limits.screen_windows * self._pace.judged_s(rate)
        else:
            shorter_or_longer = min if self._is_screen else max
            windows_s = limits.least_windows * self._pace.window_s(rate)
            limit_s = shorter_or_longer(self.goal.search_limit_s, windows_s)
        while True:
            following, passed = bracket.next_rps(), bracket.passed_rps
            spent_s = self._windows.spent_s
            # A lower rate is offered in any case.
            is_late = spent_s > begun_s and spent_s - started_s > limit_s
            if following is not None and not is_late:
                if is_limited:
                    has_passed = await self._meets_limits(following)
                else:
                    probe = await self._offer("bracketing", following)
                    has_passed = probe.verdict is Verdict.PASS
                    if self._cannot_matter(probe):
                        return StopReason.PRUNED_BY_RATE
                bracket.record(following, has_passed)
            elif passed is None:
                return StopReason.TIME_LIMIT if is_late else StopReason.GIVEN_UP
            elif await self._jitter(passed) is not None:
                bracket.record(passed, False)
            else:
                self._lower = passed
                return StopReason.TIME_LIMIT if is_late else StopReason.CONVERGED

    async def _offer(self, phase: str, rate: float) -> Probe:
        least = self._least_requests()
        return await self._windows.offer(
            phase,
            rate,
            self._pace.window_s(rate, least),
            self.goal.arrivals,
            least,
            math.inf if self.depth is Depth.SCREEN else self.thresholds.widest,
        )

    def _cannot_matter(self, probe: Probe) -> bool:
        """Return whether a rate below the incumbent's did not pass in a search that only ranks."""
        best = self.incumbent_rps
        if not self._is_screen or best is None or self.goal.for_rps is not None:
            return False
        if probe.verdict in _CLEAR or self._is_too_short(probe):
            return False
        return (probe.rate_rps or math.inf) < best

    def _needs_bracket(self, failed: Probe) -> bool:
        """Return whether a window failed although its server was not saturated."""
        window = failed.measurement
        if failed.verdict is not Verdict.FAIL or window.overload.low > self.goal.width / 2:
            return False
        return bool(window.errors) and all(cause in _REFUSALS for cause in window.errors)

    def _may_pass_lower(self, failed: Probe) -> bool:
        """Return whether a lower rate may pass after several that did not."""
        causes = set(failed.measurement.errors) - {*_REFUSALS, "timeout"}
        is_limited = failed.verdict is Verdict.GENERATOR_LIMITED
        return not (is_limited or causes or self._is_too_short(failed))

    def _is_too_short(self, probe: Probe) -> bool:
        """Return whether a window had too few requests to show that none fails."""
        too_few = probe.measurement.scheduled < self._least_requests()
        return probe.verdict is Verdict.UNDECIDED and too_few

    def _least_requests(self) -> float:
        """Return how many requests without a failure show that none fails.

        If some failed at other rates, three times as many as there were per failure: with fewer,
        a server that fails now and then would pass at a low rate by chance. Refusals and timeouts
        show an overload, which a lower rate ends.
        """
        failed = [
            probe.measurement
            for probe in self._probes
            if set(probe.measurement.errors) - {*_REFUSALS, "timeout"}
        ]
        failures = sum(measurement.failed for measurement in failed)
        per_failure = sum(measurement.scheduled for measurement in failed) / max(failures, 1)
        return max(self.thresholds.completions, 3 * per_failure)

    # --- result ----------------------------------------------------------------------

    def _result(
        self, warmup: Measurement, stop: StopReason, reason: str = "", pruned: str | None = None
    ) -> SustainedRate:
        upper = min(
            (
                p.rate_rps
                for p in self._probes
                if p.verdict is not Verdict.PASS and p.rate_rps > (self._lower or 0.0)
            ),
            default=None,
        )
        reason = reason or self._describe(stop)
        if self._lower is None and self._probes and pruned is None:
            reason = f"{self._reason_for_no_rate()}; {reason}"
        self._warn_of_drift()
        if pruned is None:
            self._warn_of_unsteadiness(warmup)
        return SustainedRate(
            lower_rps=self._lower,
            upper_rps=upper,
            capacity_rps=self._capacity,
            probes=tuple(self._probes),
            warmup=warmup,
            stop_reason=stop,
            reason=reason,
            width=self._width(),
            estimate=pooled(self._saturated) if self._saturated else None,
            pruned=pruned,
            warnings=tuple(self._windows.warnings),
            unlimited_rps=self._unlimited,
            limit_excess=self._limit_excess(),
            target=self._target,
        )

    async def _with_latencies(self, found: SustainedRate) -> SustainedRate:
        """Add the window at the comparison rate and the latency curve, if they were asked for."""
        comparison = None
        if (rate := self.comparison_rps) is not None:
            # Of the same length for every configuration.
            seconds = max(self.goal.window_s, self.thresholds.completions / rate)
            comparison = await self._windows.sample("latency", rate, seconds)
        curve = []
        if self.latency_curve and found.lower_rps is not None:
            for share in self._pace.curve_shares(found.lower_rps, self.curve_from_rps):
                curve.append((share, await self._latency_at(share * found.lower_rps)))
        return replace(found, comparison=comparison, curve=tuple(curve))

    async def _latency_at(self, rate: float) -> Measurement:
        """Return a window of Poisson arrivals at a rate; one that was measured already if any."""
        for probe in self._probes:
            window = probe.measurement
            is_poisson = isinstance(window.load.schedule, Poisson)
            if is_poisson and math.isclose(probe.rate_rps, rate) and not window.generator_limited:
                return window
        assert self._lower is not None
        return await self._windows.sample("latency", rate, self._pace.latency_s(rate, self._lower))

    def _width(self) -> float:
        """Return twice the overload that the windows at the sustained rate exclude."""
        highs = [
            probe.measurement.overload.high
            for probe in self._probes
            if probe.rate_rps == self._lower and probe.verdict is Verdict.PASS
        ]
        return max(self.goal.width, 2 * min(highs, default=0.0))

    def _describe(self, stop: StopReason) -> str:
        """Return why the search ended, with its figures."""
        if stop is StopReason.TIME_LIMIT:
            return f"the search reached its time limit after {self._windows.spent_s:.0f} s"
        limited = [p for p in self._probes if p.verdict is Verdict.GENERATOR_LIMITED]
        if limited and self._lower is not None:
            return (
                f"the load generator could not offer {format_rps(limited[-1].rate_rps)} on time; "
                "the server may sustain more"
            )
        return str(stop)

    def _reason_for_no_rate(self) -> str:
        # A window in which requests failed shows more than one that was too short.
        failed = [probe for probe in self._probes if probe.measurement.errors]
        last = min(failed or self._probes, key=lambda probe: probe.rate_rps)
        limited = all(probe.verdict is Verdict.GENERATOR_LIMITED for probe in self._probes)
        name = "generator limited" if limited else "no sustained rate"
        return f"{name}: at {last.rate_rps:.2f} rps {last.reason}"

    def _limit_excess(self) -> float:
        """Return how much the window that is closest to the limits exceeds them."""
        probes = [probe for probe in self._probes if probe.is_limited]
        probes += [self._target] if self._target else []
        excesses = [latency_excess(probe.measurement, self.goal) for probe in probes]
        return min((excess for excess in excesses if excess is not None), default=0.0)

    def _warn_of_unsteadiness(self, warmup: Measurement) -> None:
        """Warn if the closed loop hardly shows the mean throughput."""
        if (error := standard_error_of(warmup)) > self.thresholds.unsteady:
            self._windows.warn(
                f"the server was unsteady: its throughput in {warmup.span_s:.0f} s has a standard "
                f"error of {format_percent(error)}, and another measurement may differ by three "
                "times that; compare several measurements"
            )

    def _warn_of_drift(self) -> None:
        """Warn if the server sustained a rate at one time and not a lower one at another."""
        for earlier, later in itertools.combinations(self._probes, 2):
            passed, failed = earlier, later
            if later.verdict is Verdict.PASS:
                passed, failed = later, earlier
            is_poisson = isinstance(failed.measurement.load.schedule, Poisson)
            if (
                passed.verdict is Verdict.PASS
                and failed.verdict is Verdict.FAIL
                and not (is_poisson and self.goal.arrivals != "poisson")
                and passed.is_limited >= failed.is_limited
                and failed.rate_rps < passed.rate_rps * (1 - self.goal.width / 2)
            ):
                when = "later" if failed is later else "earlier"
                self._windows.warn(
                    f"drift: {format_rps(passed.rate_rps)} passed, and {when} "
                    f"{format_rps(failed.rate_rps)} did not: {failed.reason}"
                )
                return
