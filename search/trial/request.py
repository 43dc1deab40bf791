"""A request for one trial."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from loadgen.rate.goal import Depth
from search.trial.serializing import JsonConfig
from search.trial.server_probe import ServerProbe


class TrialOrigin(enum.StrEnum):
    """Why a configuration is measured."""

    DEFAULT = "default"
    BASELINE = "baseline"
    WARM_START = "warm start"
    GUIDE = "guide"
    SAMPLED = "sampled"
    INCUMBENT = "incumbent"
    CONFIRMATION = "confirmation"
    SWEEP = "sweep"

    @classmethod
    def _missing_(cls, value: object) -> TrialOrigin | None:
        """Read the name of an origin in the records of earlier versions."""
        return cls.GUIDE if value == "recommended" else None

    @property
    def is_reference(self) -> bool:
        """Whether other trials are compared with a trial of this origin."""
        return self in (TrialOrigin.DEFAULT, TrialOrigin.BASELINE)


@dataclass(frozen=True)
class TrialRequest:
    """A configuration to measure.

    Attributes:
        number: of the trial.
        incumbent_rps: the rate to beat; a slower trial is pruned. None for a trial that is never
            pruned, such as a reference.
        known_rps: the rate that an earlier search found; None without one.
        known_share: that rate ÷ the estimate of the same server; None if unknown. Measurements
            within limits of the latency begin with this share of the new estimate.
        comparison_rps: the rate at which latencies are compared; None without a comparison.
        depth: how thoroughly the configuration is measured.
        latency_curve: whether the latency at fixed shares of the sustained rate is measured too.
        curve_from_rps: a lower rate at which it is measured with them; None for none.
        server_probes: configurations to observe in the server after the trial's own windows.
    """

    number: int
    origin: TrialOrigin
    config: JsonConfig
    incumbent_rps: float | None = None
    known_rps: float | None = None
    known_share: float | None = None
    comparison_rps: float | None = None
    depth: Depth = Depth.FULL
    latency_curve: bool = False
    curve_from_rps: float | None = None
    server_probes: tuple[ServerProbe, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRequest:
        """Read the data that `to_dict` returns; other keys are ignored."""
        return _ADAPTER.validate_python(data)


_ADAPTER = TypeAdapter(TrialRequest)
