"""A run with the answers that are computed from it. Use it as `servetune.Run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.study import run_folder

if TYPE_CHECKING:
    from search.answer.operating_points import OperatingPoint
    from search.answer.plan import CapacityPlan


class Run(run_folder.Run):
    """The folder of a run."""

    def pareto(self) -> list[OperatingPoint]:
        """Return the Pareto front: measured configurations that no other one dominates, by rate.

        Compared are the rate, the p99 latency, the peak memory and the number of workers.

        Raises:
            RunError: a file of the run is damaged.
        """
        from search.answer.pareto import pareto_front

        return pareto_front(self._points())

    def plan(
        self,
        rate_rps: float,
        *,
        p99_s: float | None = None,
        headroom: float = 0.3,
        price_per_hour: float | None = None,
        pick: str | None = None,
    ) -> CapacityPlan:
        """Return replicas, latency, memory, cost and autoscaling numbers for a load.

        Args:
            rate_rps: the load of all replicas, requests/s.
            p99_s: limit on the p99 latency, seconds.
            headroom: share of a replica's rate to keep free, from 0 to less than 1.
            price_per_hour: of a replica, in any currency.
            pick: max, knee, p99=SECONDS or trial=NUMBER; the recommended configuration if None.

        Raises:
            RunError: no configuration is chosen, it does not hold the limit at any measured load,
                or a replica's load exceeds every measured one.
            InputError: an argument is out of range.
        """
        from search.answer.picking import pick_or_recommended
        from search.answer.plan import capacity_plan

        point = pick_or_recommended(self._points(), pick)
        return capacity_plan(point, rate_rps, p99_s, headroom, price_per_hour)

    def _points(self) -> list[OperatingPoint]:
        from search.answer.pareto import pareto_points
        from search.study.reading import read_outcome

        return pareto_points(read_outcome(self))
