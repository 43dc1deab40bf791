"""Windows of a rate search: each is offered, judged and recorded, and repeated if it is void."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from loadgen.errors import GeneratorLostError
from loadgen.measurement import Load, LoadGenerator, Measurement, Until
from loadgen.rate.early_stop import ClosedLoopEnd, EarlyStop
from loadgen.rate.goal import Depth, Goal
from loadgen.rate.result import Probe
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS, Thresholds
from loadgen.rate.verdict import Verdict, duration_s, judge
from loadgen.schedule import Closed, Constant, Poisson, Schedule

#: Receives each phase and its rate as it begins.
RateProgress = Callable[[str, float], None]


async def measure_again_if_lost(generator: LoadGenerator, load: Load, until: Until) -> Measurement:
    """Measure a window, and once more if a load generator process was lost.

    Raises:
        GeneratorLostError: a process was lost both times.
    """
    try:
        return await generator.measure(load, until)
    except GeneratorLostError:
        return await generator.measure(load, until)


@dataclass
class Windows:
    """Offers loads to one server, and keeps every window at an offered rate.

    Attributes:
        probes: the windows so far, in order.
        warnings: what makes their figures less certain, one sentence each.
        spent_s: seconds of windows at offered rates, with their drains.
    """

    goal: Goal
    generator: LoadGenerator
    cycle_requests: int
    progress: RateProgress
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    probes: list[Probe] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    spent_s: float = 0.0

    async def closed_loop(
        self, users: int, hopeless_rps: float | None = None, depth: Depth = Depth.FULL
    ) -> Measurement:
        """Run a closed loop until its throughput is known; see `ClosedLoopEnd`."""
        self.progress("warm-up", 0.0)
        limit_s = self.thresholds.closed_times * self.goal.warmup_limit_s
        end = ClosedLoopEnd(self.goal, hopeless_rps, depth, self.thresholds)
        return await measure_again_if_lost(self.generator, self._load(Closed(users), limit_s), end)

    async def offer(
        self,
        phase: str,
        rate_rps: float,
        seconds: float,
        arrivals: str,
        least_requests: float,
        widest: float,
        is_limited: bool = False,
    ) -> Probe:
        """Offer a rate, and return its window with its verdict; see `judge`.

        Args:
            is_limited: whether the goal's limits of the latency must be met.

        A window in which the load generator was the limit is repeated, with a stronger generator
        if there is one.
        """
        self.progress(phase, rate_rps)
        repeated = False
        goal = self.goal if is_limited else self.goal.without_limits()
        while True:
            stop = EarlyStop(goal, seconds, self.thresholds)
            load = self._load(self._schedule(rate_rps, arrivals), seconds)
            measured = await measure_again_if_lost(self.generator, load, stop)
            self.spent_s += duration_s(measured)
            verdict, reason = judge(
                measured,
                goal,
                least_requests,
                widest,
                thresholds=self.thresholds,
            )
            probe = Probe(rate_rps, verdict, reason, measured, is_limited)
            self.probes.append(probe)
            if verdict is not Verdict.GENERATOR_LIMITED:
                return probe
            if addition := await self.generator.add_capacity(measured):
                self.warn(f"{reason}; measured again with {addition}")
            elif repeated:
                return probe
            else:
                repeated = True  # The host may have been busy for a moment.

    async def sample(self, phase: str, rate_rps: float, duration_s: float) -> Measurement:
        """Measure a window of Poisson arrivals for its latency, without a verdict."""
        self.progress(phase, rate_rps)
        load = self._load(Poisson(rate_rps, self.goal.seed), duration_s)
        return await measure_again_if_lost(self.generator, load, lambda so_far: False)

    def warn(self, sentence: str) -> None:
        """Add a warning, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def _schedule(self, rate_rps: float, arrivals: str) -> Constant | Poisson:
        if arrivals != "poisson":
            return Constant(rate_rps)
        # Each window has separate arrivals.
        return Poisson(rate_rps, self.goal.seed + len(self.probes))

    def _load(self, schedule: Schedule, duration_s: float) -> Load:
        return Load(schedule, duration_s, self.goal.timeout_s, self.cycle_requests)
