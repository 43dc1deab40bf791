"""Find the users of a closed loop that saturate a server about which nothing is known.

Too few users do not fill the batches of a server, and the closed loop then underestimates it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from loadgen.backlog import MIN_BLOCKS
from loadgen.formatting import format_percent
from loadgen.measurement import BIN_S, BUSY_CPU, Counts, Load, LoadGenerator, Measurement
from loadgen.rate.goal import Goal
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS, Thresholds
from loadgen.rate.verdict import format_errors
from loadgen.rate.windows import measure_again_if_lost
from loadgen.schedule import Closed

#: Users of the second step. The first step has one user, and shows how long a request takes.
SECOND_USERS = 8
MAX_USERS = 8192
#: A step lasts this long, and until each user has been answered twice; once is enough after the
#: second time, seconds.
STEP_S, LONG_STEP_S = 2.0, 15.0
#: Doubling the users must add this share to the throughput; otherwise the step is flat.
GROWTH = 0.1
#: A single step may be slow by chance, so that this number of flat steps ends the ramp.
FLAT_STEPS = 2
#: The fewest users that saturate the server reach this share of the highest throughput.
SATURATED = 0.9
#: Latency in a closed loop is users ÷ throughput. Flat steps stop at this share of the timeout.
TIMEOUT_SHARE = 0.5
#: A closed loop shows a stable throughput after this number of rounds at the latest.
WARMUP_ROUNDS = 8

#: Receives the users of each step as it begins, and the latency of one user, seconds; 0 at first.
RampProgress = Callable[[int, float], None]


@dataclass(frozen=True)
class Step:
    """One step of the ramp: its users, its throughput, the median latency in seconds."""

    users: int
    throughput_rps: float
    latency_s: float


@dataclass(frozen=True)
class Saturation:
    """What the ramp found.

    Attributes:
        users: twice the fewest that saturate the server, so that they fill every batch twice.
        throughput_rps: the highest of any step; 0 if nothing succeeded.
        latency_s: median latency with one user, seconds; 0 if nothing succeeded.
        steps: those without an overload, in order.
        warnings: why the server may take more than was found, one sentence each.
    """

    users: int
    throughput_rps: float
    latency_s: float
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()


async def find_saturating_users(
    generator: LoadGenerator,
    goal: Goal,
    batch_size: int = 1,
    max_users: int = MAX_USERS,
    progress: RampProgress = lambda users, latency_s: None,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
) -> Saturation:
    """Double the users of a closed loop while the throughput grows.

    The ramp also ends if the server is overloaded, if latency comes near the timeout, or if the
    load generator is at its own limit.

    Args:
        goal: its `timeout_s` and `warmup_limit_s` count.
        batch_size: a guess of how many requests the server takes in one batch.
        progress: receives each step as it begins.

    Raises:
        GeneratorLostError: a load generator process was lost twice in the same step.
    """
    ramp = _Ramp(generator, goal, thresholds)
    await ramp.measure_step(1, progress)
    users, flat = max(SECOND_USERS, 2 * batch_size), 0
    while ramp.may_continue and flat < FLAT_STEPS:
        best = ramp.best_rps
        if flat and users / best > TIMEOUT_SHARE * goal.timeout_s:
            break
        if users > max_users:
            ramp.warn(f"the throughput still grew at {ramp.steps[-1].users} users, the limit")
            break
        await ramp.measure_step(users, progress)
        flat = flat + 1 if ramp.steps[-1].throughput_rps < (1 + GROWTH) * best else 0
        users *= 2
    return ramp.result()


@dataclass
class _Ramp:
    """The steps so far. `may_continue` is False once more users would show nothing."""

    generator: LoadGenerator
    goal: Goal
    thresholds: Thresholds
    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    may_continue: bool = True

    @property
    def best_rps(self) -> float:
        return max((step.throughput_rps for step in self.steps), default=0.0)

    @property
    def latency_s(self) -> float:
        return self.steps[0].latency_s if self.steps else 0.0

    def warn(self, sentence: str) -> None:
        self.warnings.append(f"the search for the number of users ended early: {sentence}")
        self.may_continue = False

    async def measure_step(self, users: int, progress: RampProgress) -> None:
        """Measure one step, with more load generator processes if they are the limit."""
        progress(users, self.latency_s)
        measured = await self._measure(users)
        while limit := _generator_limit(measured):
            if await self.generator.add_capacity(measured) is None:
                self.warn(f"at {users} users {limit}; the server may sustain more")
                break
            measured = await self._measure(users)
        # A server that fails now and then is not overloaded.
        is_overloaded = measured.failed > self.thresholds.bunched * measured.scheduled
        if is_overloaded and self.steps:
            self.warn(f"at {users} users {format_errors(measured.errors)}")
        elif measured.succeeded:
            step = Step(
                users,
                throughput_rps(measured, self.latency_s),
                measured.latency.quantile(0.5) or BIN_S,
            )
            self.steps.append(step)
        else:
            self.may_continue = False

    async def _measure(self, users: int) -> Measurement:
        # One request shows the latency; then each step takes as many rounds as fit.
        rounds = 1
        if self.steps and (latency_s := self.steps[-1].latency_s) < LONG_STEP_S:
            rounds = max(math.ceil(STEP_S / latency_s), 2) + 1
        limit_s = max(self.goal.warmup_limit_s, 2 * self.goal.timeout_s)
        schedule = Closed(users, rounds * users)
        load = Load(schedule, limit_s, self.goal.timeout_s, max(users // 2, 1))
        return await measure_again_if_lost(self.generator, load, _is_enough)

    def result(self) -> Saturation:
        if not self.steps:
            return Saturation(SECOND_USERS, 0.0, 0.0, (), tuple(self.warnings))
        enough = next(s for s in self.steps if s.throughput_rps >= SATURATED * self.best_rps)
        # With more users than were tried, requests may fail.
        users = max(min(2 * enough.users, self.steps[-1].users), 2)
        return Saturation(
            users, self.best_rps, self.latency_s, tuple(self.steps), tuple(self.warnings)
        )


def _generator_limit(measured: Measurement) -> str:
    """Return why the load generator was the limit of a closed loop; empty if it was not."""
    if measured.unsent:
        return f"{measured.unsent} of {measured.scheduled} requests could not be sent"
    if measured.client_cpu > BUSY_CPU:
        return f"the load generator used {format_percent(measured.client_cpu)} of its core"
    return ""


def throughput_rps(measured: Measurement, latency_s: float) -> float:
    """Return the throughput of a closed loop whose users all began at once.

    Their answers come in rounds, so that a rate is a number of answers ÷ the time of the last of
    them. The first answer of each user is left out if there are others: a server that was idle
    takes a first batch before all requests have come. If there are none, see `_single_round_rps`.
    Answers after the end of the schedule come
    from ever fewer users; they count only if the others are less than a round.

    Args:
        latency_s: of one user alone, seconds; 0 if it is not known.
    """
    bins = int(measured.span_s / BIN_S)
    users: int = getattr(measured.load.schedule, "users", 1)
    in_span = measured.good[:bins]
    answered = (in_span if in_span.sum() >= users else measured.good).cumsum()
    total = int(answered[-1]) if len(answered) else 0
    if not total:  # Every answer came after the last bin.
        return users / (measured.latency.quantile(0.5) or math.inf)
    first, last = (int(np.searchsorted(answered, count)) + 1 for count in (users, total))
    if total >= 2 * users and last > first:
        return float(total - answered[first - 1]) / ((last - first) * BIN_S)
    return _single_round_rps(answered, last, latency_s)


def _single_round_rps(answered: Counts, last: int, latency_s: float) -> float:
    """Return the throughput if each user was answered once.

    The first batches are not full, because they begin before all requests have come, and the last
    ones lack requests. Both are left out if there are at least two rounds of batches between them.

    Args:
        answered: the number of answers until each bin.
        last: the number of bins until the last answer.
        latency_s: how long a batch takes about, seconds.
    """
    whole_rps = float(answered[-1]) / (last * BIN_S)
    half = int(latency_s / 2 / BIN_S)
    begin, end = 3 * half, last - half
    if half < 1 or end - begin < 4 * half - 1:
        return whole_rps
    full_rps = float(answered[end - 1] - answered[begin - 1]) / ((end - begin) * BIN_S)
    # If the first answer came early by chance, too few batches are left out.
    return max(full_rps, whole_rps)


def _is_enough(so_far: Measurement) -> bool:
    rounds = (so_far.succeeded + so_far.failed) / getattr(so_far.load.schedule, "users", 1)
    return (so_far.span_s >= STEP_S and rounds >= 2) or (
        so_far.span_s >= LONG_STEP_S and rounds >= 1
    )


def slow_goal(goal: Goal, latency_s: float, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> Goal:
    """Return the goal with limits that fit a server whose answers take this long, seconds.

    A window needs two blocks of rounds for a trend, and a search `thresholds.least_windows`
    windows. A goal that fits a fast server is returned as it is.
    """
    window_limit_s = max(goal.window_limit_s, 2 * MIN_BLOCKS * latency_s)
    windows_s = thresholds.least_windows * window_limit_s
    is_slow = window_limit_s > goal.window_limit_s
    return replace(
        goal,
        window_limit_s=window_limit_s,
        warmup_limit_s=max(goal.warmup_limit_s, WARMUP_ROUNDS * latency_s),
        search_limit_s=max(goal.search_limit_s, windows_s) if is_slow else goal.search_limit_s,
    )
