"""The ratio of the recommended configuration's rate to that of what runs today. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from search.confirmation.confirmation import Confirmation
from search.confirmation.estimates import REFERENCE
from search.intervals import Interval
from search.study.outcome import Outcome
from search.trial.result import TrialResult

#: Relative width of a rate whose search recorded none.
_DEFAULT_WIDTH = 0.05
_UNCONFIRMED = (
    "it is of the search, whose highest rate is on average too high, and its interval "
    "covers a single measurement of each configuration"
)


@dataclass(frozen=True)
class Gain:
    """The sustained rate of the recommended configuration ÷ that of the reference.

    Attributes:
        ratio: of the confirmation, with its 95 % confidence interval. Otherwise of the search:
            from the recommended rate ÷ the lowest rate that the reference did not sustain, to the
            lowest rate that the recommended did not sustain ÷ the reference's rate.
        is_confirmed: whether the confirmation measured it.
        warnings: why it is less certain than its interval shows, without a full stop.
    """

    ratio: Interval
    is_confirmed: bool
    warnings: tuple[str, ...] = ()

    @property
    def is_certain(self) -> bool:
        """Whether it is confirmed that the two differ."""
        return self.is_confirmed and self.ratio.excludes_one


def gain_of(outcome: Outcome) -> Gain | None:
    """Return the gain of a run: the confirmation's, else the search's with a warning.

    1 if the reference itself is recommended. None if either sustained no rate, and for a sweep.
    """
    if outcome.spec.sweep is not None:
        return None
    if outcome.confirmation is None:
        return search_gain(outcome.chosen, outcome.reference)
    if (confirmed := _confirmed_gain(outcome.confirmation)) is not None:
        return confirmed
    searched = search_gain(outcome.chosen, outcome.reference)
    if searched is None:
        return None
    why = "the confirmation did not measure the reference"
    if outcome.confirmation.visits(REFERENCE):
        why = "the confirmation has too few successful visits to compare the two"
    return Gain(searched.ratio, False, (why, *searched.warnings))


def search_gain(chosen: TrialResult | None, reference: TrialResult | None) -> Gain | None:
    """Return the gain by one measurement of each; None if either sustained no rate."""
    if chosen is None or reference is None or not chosen.sustained_rps:
        return None
    if not reference.sustained_rps:
        return None
    if chosen.config == reference.config:
        return Gain(Interval(1.0, 1.0, 1.0), False, (_UNCONFIRMED,))
    ratio = Interval(
        chosen.sustained_rps / reference.sustained_rps,
        chosen.sustained_rps / _upper_rps(reference),
        _upper_rps(chosen) / reference.sustained_rps,
    )
    return Gain(ratio, False, (_UNCONFIRMED,))


def confirmed_rps(confirmation: Confirmation, index: int) -> float | None:
    """Return the rate that a configuration sustains, requests/s; that of the search if unknown.

    Args:
        index: of the configuration in the confirmation's plan.
    """
    mean_rps, share = confirmation.mean_rps(index), confirmation.expected_share(index)
    return mean_rps * share if mean_rps and share else confirmation.plan.requests[index].known_rps


def rates_of_gain(outcome: Outcome) -> tuple[float | None, float | None]:
    """Return the rate of the recommended configuration and of the reference, requests/s.

    Those of the confirmation, else of the search; None if unknown.
    """
    confirmation = outcome.confirmation
    if confirmation is not None:
        winner = confirmed_rps(confirmation, confirmation.winner)
        return winner, confirmed_rps(confirmation, REFERENCE)
    results = outcome.chosen, outcome.reference
    chosen_rps, reference_rps = (r.sustained_rps if r else None for r in results)
    return chosen_rps, reference_rps


def _confirmed_gain(confirmation: Confirmation) -> Gain | None:
    if confirmation.winner == REFERENCE:
        return Gain(Interval(1.0, 1.0, 1.0), True)
    if (ratio := confirmation.ratio) is None:
        return None
    warnings = []
    visits = len(confirmation.visits(REFERENCE))
    if failed := confirmation.race.estimates.failures.get(REFERENCE):
        warnings.append(
            f"the reference failed in {failed} of {visits} visits, and only the others count"
        )
    if not confirmation.race.is_selection_separate and len(confirmation.plan.finalists) > 1:
        warnings.append(
            "the rounds that chose the winner also estimate its rate, which is therefore on "
            "average too high"
        )
    if why := confirmation.why_inconclusive:
        warnings.append(why)
    return Gain(ratio, confirmation.sustains(confirmation.winner), tuple(warnings))


def _upper_rps(result: TrialResult) -> float:
    """Return a rate that a trial did not sustain, requests/s, or that its windows exclude."""
    sustained_rps = result.sustained_rps or 0.0
    return result.rate.upper_rps or sustained_rps * (1 + (result.rate.width or _DEFAULT_WIDTH))
