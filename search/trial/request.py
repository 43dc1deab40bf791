"""One configuration to be measured, and why it is tried."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from search.trial.serializing import JsonConfig


class TrialOrigin(enum.StrEnum):
    """Why a configuration is tried."""

    DEFAULT = "default"
    BASELINE = "baseline"
    WARM_START = "warm start"
    RECOMMENDED = "recommended"
    SAMPLED = "sampled"
    INCUMBENT = "incumbent"
    CONFIRMATION = "confirmation"
    SWEEP = "sweep"

    @property
    def is_reference(self) -> bool:
        """Whether other trials are compared with this one."""
        return self in (TrialOrigin.DEFAULT, TrialOrigin.BASELINE)


@dataclass(frozen=True)
class TrialRequest:
    """One configuration to be measured.

    Attributes:
        number: of the trial.
        incumbent_rps: the rate to beat; None if the trial is measured to its end however slow
            it is, as references are.
        known_rps: what an earlier search found; None if there was none.
        comparison_rps: the rate at which latencies are compared; None if they are not.
    """

    number: int
    origin: TrialOrigin
    config: JsonConfig
    incumbent_rps: float | None = None
    known_rps: float | None = None
    comparison_rps: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRequest:
        """Read what `to_dict` returned; other keys are ignored."""
        return _ADAPTER.validate_python(data)


_ADAPTER = TypeAdapter(TrialRequest)
