"""A predicted rate. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: With a wider 90 % interval (high ÷ low), a rate is not known.
MAX_KNOWN_RATIO = 10.0


@dataclass(frozen=True)
class PredictedRate:
    """The rate that a configuration is expected to sustain.

    Attributes:
        median_rps: median of the prediction, requests/s; None without a trial that served.
        low_rps, high_rps: bounds of the 90 % interval of the true rate.
        serves: probability that the configuration serves at all.
    """

    median_rps: float | None = None
    low_rps: float | None = None
    high_rps: float | None = None
    serves: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether the interval is narrow enough to be of use."""
        if self.median_rps is None or not self.low_rps or self.high_rps is None:
            return False
        return self.high_rps <= MAX_KNOWN_RATIO * self.low_rps
