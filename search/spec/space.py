"""Which settings vary, over what; to and from `ServerConfig`. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serving.config import SETTINGS, ServerConfig
from serving.errors import ConfigError

GROUPS = ("properties", "environment", "jvm")
#: Varied where the specification says nothing of them.
DEFAULT_SETTINGS = (
    "workers",
    "batch_size",
    "max_batch_delay_ms",
    "netty_threads",
    "netty_client_threads",
    "mkl_threads",
)


@dataclass(frozen=True)
class Dimension:
    """One setting that varies: over the integers from low to high, or over choices.

    A name with a dot belongs to a group: `properties.io_ratio`, `environment.OMP_WAIT_POLICY`,
    `jvm.-Xmx`.
    """

    name: str
    low: int = 1
    high: int = 1
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def varies(self) -> bool:
        """Whether there is more than one value."""
        return len(self.choices) > 1 if self.choices else self.low < self.high

    @property
    def first(self) -> Any:
        """The first value."""
        return self.choices[0] if self.choices else self.low

    def clip(self, number: int) -> Any:
        """The value of this dimension that is nearest to `number`."""
        if self.choices:
            return min(self.choices, key=lambda choice: abs(choice - number))
        return min(max(number, self.low), self.high)


@dataclass(frozen=True)
class Space:
    """The dimensions, and what every configuration of the search has in common."""

    dimensions: tuple[Dimension, ...]
    common: ServerConfig
    cores: int

    def config(self, values: Mapping[str, Any]) -> ServerConfig:
        """The configuration at these values, one for each dimension's name."""
        changes: dict[str, Any] = {
            group: {
                **getattr(self.common, group),
                **{
                    name.partition(".")[2]: text
                    for name, value in values.items()
                    if name.startswith(f"{group}.") and (text := _text(group, value)) is not None
                },
            }
            for group in GROUPS
        }
        changes |= {name: value for name, value in values.items() if name in SETTINGS}
        return replace(self.common, **changes)

    def values(self, config: ServerConfig) -> dict[str, Any] | None:
        """The values of a configuration, an unset setting counting by TorchServe's default.

        None where one of them is not a number and not among the choices.
        """
        unset = torchserve_defaults(self.cores)
        values: dict[str, Any] = {}
        for dimension in self.dimensions:
            group, dot, name = dimension.name.partition(".")
            if dot:
                value = getattr(config, group).get(name)
            else:
                value = getattr(config, dimension.name)
                value = unset.get(dimension.name) if value is None else value
            if dimension.choices:
                same = [c for c in dimension.choices if value == (_text(group, c) if dot else c)]
                if not same:
                    return None
                value = same[0]
            try:
                values[dimension.name] = value if dimension.choices else int(value)
            except (TypeError, ValueError):
                return None
        return values

    def nearest(self, config: ServerConfig) -> ServerConfig | None:
        """The space's configuration nearest to one of another; None where none corresponds."""
        if (values := self.values(config)) is None:
            return None
        ranges = [d for d in self.dimensions if not d.choices]
        return self.config({**values, **{d.name: d.clip(values[d.name]) for d in ranges}})

    def identity(self, config: ServerConfig) -> str:
        """The same for two configurations that make the same server."""
        usual = torchserve_defaults(self.cores)
        unset: dict[str, Any] = {n: v for n, v in usual.items() if getattr(config, n) is None}
        return replace(config, **unset).digest if unset else config.digest

    def near(self, **settings: int) -> dict[str, Any]:
        """The point of the space nearest to these settings; the rest at TorchServe's default."""
        wanted = {**torchserve_defaults(self.cores), **settings}
        return {
            dimension.name: dimension.clip(wanted[dimension.name])
            if dimension.name in wanted
            else dimension.first
            for dimension in self.dimensions
        }

    def untried(self, tried: Collection[str], seed: int) -> dict[str, Any] | None:
        """A random point whose identity is not among `tried`; None where there is none."""
        axes = [d.choices or range(d.low, d.high + 1) for d in self.dimensions]
        size = math.prod(len(axis) for axis in axes)
        # Among more points than were tried there is one that was not.
        for number in random.Random(seed).sample(range(size), min(size, len(tried) + 1)):
            point = {}
            for dimension, axis in zip(self.dimensions, axes, strict=True):
                number, index = divmod(number, len(axis))
                point[dimension.name] = axis[index]
            if self.identity(self.config(point)) not in tried:
                return point
        return None

    def draw(self, chance: np.random.Generator, count: int) -> list[dict[str, Any]]:
        """Random points, uniform on each dimension's own scale."""
        columns: list[list[Any]] = []
        for d in self.dimensions:
            if d.choices:
                columns.append([d.choices[i] for i in chance.integers(len(d.choices), size=count)])
            elif d.log:
                at = np.exp(chance.uniform(math.log(d.low), math.log(d.high + 1), count))
                columns.append(np.minimum(at.astype(int), d.high).tolist())
            else:
                columns.append(chance.integers(d.low, d.high + 1, count).tolist())
        names = [d.name for d in self.dimensions]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def neighbours(self, point: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The points that differ in one setting: by one, a quarter, or a factor of two."""
        # What is given may lie outside, as a baseline does.
        point = {
            d.name: point[d.name] if d.choices else d.clip(point[d.name]) for d in self.dimensions
        }
        found = []
        for d in self.dimensions:
            at = point[d.name]
            if d.choices:
                steps = set(d.choices)
            else:
                near = (at - 1, at + 1, at * 3 // 4, at * 5 // 4, at // 2, at * 2)
                steps = {d.clip(step) for step in near}
            found += [{**point, d.name: step} for step in steps if step != at]
        return found

    def guide(self) -> list[dict[str, Any]]:
        """The points that TorchServe's performance guide suggests for this host.

        It names batch size and delay first: larger batches, more throughput; its batching
        chapter begins at 8. Then the workers: one per core with the core for itself, which is
        one thread for each. The last point is the other way to share the cores.
        Source: docs/performance_guide.md and docs/batch_inference_with_ts.md of 0.12.0.
        """
        per_core = {"workers": self.cores, "mkl_threads": 1, "max_batch_delay_ms": 50}
        points = [self.near(**per_core, batch_size=size) for size in (8, 32, 128)]
        alone = {"workers": 1, "mkl_threads": self.cores, "max_batch_delay_ms": 50}
        points.append(self.near(**alone, batch_size=32))
        return [point for i, point in enumerate(points) if point not in points[:i]]


def torchserve_defaults(cores: int) -> dict[str, int]:
    """What TorchServe 0.12.0 and torch do on a host without GPU where a setting is not set."""
    return {
        "workers": cores,
        "batch_size": 1,
        "max_batch_delay_ms": 100,
        "netty_threads": 2 * cores,
        "netty_client_threads": 2 * cores,
        "mkl_threads": cores,
        "job_queue_size": 100,
        "response_timeout_s": 120,
    }


def default_dimension(name: str, cores: int) -> Dimension:
    """The range of a setting that the specification does not name."""
    return {
        "workers": Dimension(name, 1, 2 * cores),
        "batch_size": Dimension(name, 1, 128, log=True),
        "max_batch_delay_ms": Dimension(name, 1, 200, log=True),
        "netty_threads": Dimension(name, 1, 2 * cores, log=True),
        "netty_client_threads": Dimension(name, 1, 2 * cores, log=True),
        "mkl_threads": Dimension(name, 1, cores, log=True),
    }[name]


def build_space(entries: Mapping[str, Any], cores: int) -> Space:
    """Make a space.

    Args:
        entries: by a dimension's name: a `Dimension` to vary it over, a value to fix it at, or
            None to leave it to TorchServe. One of the default settings that is not named is
            varied over its default range.
        cores: of the serving host.

    Raises:
        ConfigError: a fixed value or a choice that TorchServe would refuse.
    """
    entries = {
        **{name: default_dimension(name, cores) for name in DEFAULT_SETTINGS},
        **entries,
    }
    dimensions, fixed = [], {}
    for name, entry in entries.items():
        if isinstance(entry, Dimension):
            dimension = replace(entry, name=name)
            if dimension.varies:
                dimensions.append(dimension)
            else:
                fixed[name] = dimension.first
        elif entry is not None:
            fixed[name] = entry
    space = Space(tuple(dimensions), Space((), ServerConfig(), cores).config(fixed), cores)
    wrong = []
    for dimension in dimensions:
        for value in dimension.choices or (dimension.low, dimension.high):
            try:
                space.config({dimension.name: value})
            except ConfigError as error:
                wrong.append(str(error))
    if wrong:
        raise ConfigError("; ".join(dict.fromkeys(wrong)))
    return space


def _text(group: str, value: Any) -> str | None:
    """A value as the file holds it; a JVM flag is there (true) or not (false)."""
    if group == "jvm" and isinstance(value, bool):
        return "" if value else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
