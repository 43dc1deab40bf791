"""A setting that varies, and its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

#: Settings with a free name; their dimensions are called `GROUP.NAME`.
GROUPS = ("properties", "environment", "jvm")
_MODELS = "models."


def model_dimension(model: str, setting: str) -> str:
    """Return the name of the dimension of another model's setting."""
    return f"{_MODELS}{model}.{setting}"


def split_model(name: str) -> tuple[str, str] | None:
    """Return the other model and its setting that a dimension is named after; None for others."""
    if not name.startswith(_MODELS):
        return None
    model, _, setting = name.removeprefix(_MODELS).rpartition(".")
    return model, setting


def setting_of(name: str) -> str:
    """Return the setting of a dimension, without the name of another model."""
    of_model = split_model(name)
    return of_model[1] if of_model else name


@dataclass(frozen=True)
class Dimension:
    """A setting that varies over the integers from low to high, or over choices.

    Attributes:
        name: of the setting; an entry of a group has a name with a dot, for example
            `properties.io_ratio`, `environment.OMP_WAIT_POLICY` or `jvm.-Xmx`. A setting of
            another model is `models.NAME.workers`.
        log: whether to sample the range on a logarithmic scale.
        choices: take precedence over the range.
        widen_to: the highest value that `high` may be raised to while the best value is there;
            None for a range that is never widened.
    """

    name: str
    low: int = 1
    high: int = 1
    log: bool = False
    choices: tuple[Any, ...] = ()
    widen_to: int | None = None

    @property
    def varies(self) -> bool:
        """Whether the dimension has more than one value."""
        return len(self.choices) > 1 if self.choices else self.low < self.high

    @property
    def first(self) -> Any:
        """The first choice, or the lower bound."""
        return self.choices[0] if self.choices else self.low

    @property
    def least(self) -> Any:
        """The lowest choice, or the lower bound; the first choice if they are not numbers."""
        are_numbers = all(isinstance(choice, int | float) for choice in self.choices)
        return min(self.choices) if self.choices and are_numbers else self.first

    def capped(self, most: int) -> Dimension:
        """Return the dimension without the values above `most`; at least one must remain."""
        choices = tuple(choice for choice in self.choices if choice <= most)
        widen_to = None if self.widen_to is None else min(self.widen_to, most)
        return replace(self, high=min(self.high, most), choices=choices, widen_to=widen_to)

    def reaches(self, value: Any) -> bool:
        """Return whether a value is a choice, or in the range as far as it may be widened."""
        if self.choices:
            return value in self.choices
        return bool(self.low <= value <= max(self.high, self.widen_to or self.high))

    def clip(self, number: int) -> Any:
        """Return the value of this dimension that is nearest to `number`."""
        if self.choices:
            return min(self.choices, key=lambda choice: abs(choice - number))
        return min(max(number, self.low), self.high)
