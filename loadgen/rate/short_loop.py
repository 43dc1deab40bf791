"""A short closed loop on a server that is warm: its capacity, less exactly than in a trial."""

from __future__ import annotations

from dataclasses import replace

from loadgen.measurement import Load, LoadGenerator, Measurement
from loadgen.rate.early_stop import ClosedLoopEnd
from loadgen.rate.estimate import Estimate, estimate_of
from loadgen.rate.goal import Depth, Goal
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS
from loadgen.rate.windows import measure_again_if_lost
from loadgen.schedule import Closed

#: Length of the loop: this time, and this number of rounds of batches after the first.
SHORT_S, SHORT_ROUNDS = 2.0, 3
#: A server whose rounds take longer is not probed: the loop would cost as much as a trial.
MAX_SHORT_S = 6.0


def short_loop_s(cycle_s: float) -> float:
    """Return the duration of a short loop, seconds.

    Args:
        cycle_s: time of one round of batches, seconds.
    """
    return max(SHORT_S, (SHORT_ROUNDS + 1) * cycle_s)


async def measure_short_loop(
    generator: LoadGenerator, goal: Goal, cycle_requests: int, users: int
) -> tuple[Measurement, Estimate | None]:
    """Run a short closed loop; return its window and the capacity, None if too little was answered.

    Args:
        cycle_requests: requests that the server takes in one round of batches.

    Raises:
        GeneratorLostError: a load generator process was lost twice.
    """
    thresholds = replace(DEFAULT_THRESHOLDS, closed_s=SHORT_S, closed_cycles=SHORT_ROUNDS)
    limited = replace(goal, warmup_limit_s=MAX_SHORT_S)
    # A loop that got no answer for its whole timeout ends too.
    load = Load(Closed(users), 2 * MAX_SHORT_S, goal.timeout_s, cycle_requests)
    end = ClosedLoopEnd(limited, depth=Depth.SCREEN, thresholds=thresholds)
    window = await measure_again_if_lost(generator, load, end)
    return window, estimate_of(window)
