"""What a run keeps beside its trials: visits of its confirmation, time, end and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from search.trial.result import TrialResult


class RunState:
    """Facts of a run, stored as attributes of its Optuna study."""

    def __init__(self, study: optuna.Study):
        self._study = study

    @property
    def nominated(self) -> tuple[str, ...]:
        """Digests of the configurations to confirm, best first; empty before the search ended."""
        return tuple(self._study.user_attrs.get("nominated", ()))

    def record_visit(self, plan: str, stage: str, result: TrialResult) -> None:
        """Record a measurement of a confirmation's plan in this stage."""
        self._study.set_user_attr(
            f"confirm.{plan}.{stage}.{result.config.digest}", result.to_dict()
        )

    def visits(self, plan: str) -> dict[str, dict[str, TrialResult]]:
        """Return the measurements of a plan by stage, then by the configuration's digest."""
        stages: dict[str, dict[str, TrialResult]] = {}
        for name, record in self._study.user_attrs.items():
            if name.startswith(f"confirm.{plan}."):
                _, _, stage, digest = name.split(".")
                stages.setdefault(stage, {})[digest] = TrialResult.from_dict(record)
        return stages

    @property
    def confirmation_spent_s(self) -> float:
        """The total duration of the confirmation's measurements, seconds."""
        records = [r for n, r in self._study.user_attrs.items() if n.startswith("confirm.")]
        return float(sum(TrialResult.from_dict(record).duration_s for record in records))

    @property
    def spent_s(self) -> float:
        """The duration of the run so far, seconds, over all its drivers."""
        return float(self._study.user_attrs.get("spent_s", 0.0))

    def record_spent(self, seconds: float) -> None:
        """Record the duration of the run so far."""
        self._study.set_user_attr("spent_s", seconds)

    @property
    def search_end_reason(self) -> str | None:
        """Why the search ended; None if it has not."""
        reason: str | None = self._study.user_attrs.get("search_end_reason")
        return reason

    @property
    def end_reason(self) -> str | None:
        """Why the run ended; None if it has not."""
        reason: str | None = self._study.user_attrs.get("end_reason")
        return reason

    def end(self, reason: str) -> None:
        """Record why the run ended."""
        self._study.set_user_attr("end_reason", reason)

    @property
    def recorded_notes(self) -> tuple[str, ...]:
        """Warnings about the hosts and the baseline."""
        return tuple(self._study.user_attrs.get("notes", ()))

    def record_notes(self, notes: Sequence[str]) -> None:
        """Replace the warnings about the hosts and the baseline."""
        self._study.set_user_attr("notes", list(notes))

    def add_note(self, note: str) -> None:
        """Add a warning to those that are recorded."""
        self._study.set_user_attr("notes", [*self.recorded_notes, note])

    @property
    def specification(self) -> dict[str, Any] | None:
        """The specification that the run began with; None before that."""
        specification: dict[str, Any] | None = self._study.user_attrs.get("specification")
        return specification

    def record_specification(self, specification: Mapping[str, Any]) -> None:
        """Record the specification of the run."""
        self._study.set_user_attr("specification", dict(specification))
