"""A confirmation as plain JSON data. Pure."""

from __future__ import annotations

from typing import Any

from search.confirmation.confirmation import Confirmation
from search.confirmation.visits import visit_rps
from search.intervals import Interval


def confirmation_summary(confirmation: Confirmation) -> dict[str, Any]:
    """Return plain JSON data; the first configuration is the reference."""
    prior, verified = confirmation.prior, confirmation.verified
    plan, race, winner = confirmation.plan, confirmation.race, confirmation.winner
    names = [f"trial {request.number}" for request in plan.requests]
    return {
        "winner": names[winner],
        "rounds": race.rounds,
        "visits": confirmation.visit_count,
        "first_estimating_round": race.first_round(winner),
        "method": "paired" if race.estimates.is_paired else "Welch",
        "noise": {
            "sd": race.estimates.variance.value**0.5,
            "dof": race.estimates.variance.dof,
            "prior_sd": prior.value**0.5 if prior else None,
            "prior_dof": prior.dof if prior else None,
        },
        "objective": plan.objective.kind,
        "ratio_to_reference": _bounds(confirmation.ratio),
        "score_ratio_to_reference": _bounds(confirmation.score_ratio),
        "sustained_rps": _bounds(confirmation.sustained(winner)),
        "capacity_rps": _bounds(confirmation.prediction(winner)),
        "finalists": [
            {
                "config": names[c.index],
                "ratio_to_winner": _bounds(c.ratio),
                "dropped_after": c.drop.rounds if c.drop else None,
                "differs": c.differs,
                "indistinguishable": c.is_indistinguishable,
            }
            for c in confirmation.comparisons
        ],
        "configs": [
            {
                "config": name,
                "capacity_rps": [
                    visit_rps(visits[index], plan.objective) if index in visits else None
                    for visits in confirmation.rounds
                ],
                "verified": verified[index].to_dict() if index in verified else None,
                "results": [visit.to_dict() for visit in confirmation.visits(index)],
            }
            for index, name in enumerate(names)
        ],
    }


def _bounds(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
