"""The search space: the settings that vary, and their values as a `ServerConfig`. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from search.spec.dimension import GROUPS, Dimension, model_dimension, setting_of, split_model
from serving.configuration.config import (
    MAX_SETTING,
    MODEL_KEYS,
    SETTINGS,
    THREAD_VARIABLES,
    ServerConfig,
)
from serving.configuration.defaults import torchserve_defaults


@dataclass(frozen=True)
class Space:
    """The dimensions of a search, and the settings that are the same in every trial.

    A point is one value for each dimension, by the dimension's name.

    Attributes:
        common: the configuration with the fixed settings only.
        cores: of the serving host.
        default_config: TorchServe's defaults, with what the model needs to be served at all.
        threads: default thread count of torch there; `cores` if None.
        sizes_queue: whether a configuration's `job_queue_size` is at least
            2 × workers × batch_size, so that no trial is lost to a short queue.
    """

    dimensions: tuple[Dimension, ...]
    common: ServerConfig
    cores: int
    threads: int | None = None
    default_config: ServerConfig = field(default_factory=ServerConfig)
    sizes_queue: bool = False

    @property
    def defaults(self) -> dict[str, int]:
        """The defaults of TorchServe and torch on the serving host."""
        return torchserve_defaults(self.cores, self.threads)

    def config(self, point: Mapping[str, Any]) -> ServerConfig:
        """Return the configuration at a point."""
        changes: dict[str, Any] = {
            group: {
                **getattr(self.common, group),
                **{
                    name.partition(".")[2]: text
                    for name, value in point.items()
                    if name.startswith(f"{group}.") and (text := _text(group, value)) is not None
                },
            }
            for group in GROUPS
        }
        changes |= {name: value for name, value in point.items() if name in SETTINGS}
        models = {name: dict(settings) for name, settings in self.common.models.items()}
        for name, value in point.items():
            if (of_model := split_model(name)) is not None:
                models.setdefault(of_model[0], {})[of_model[1]] = value
        config = replace(self.common, models=models, **changes)
        return self._with_sized_queue(config) if self.sizes_queue else config

    @property
    def tuned_models(self) -> tuple[str, ...]:
        """Names of the other models that have a dimension."""
        found = [split_model(dimension.name) for dimension in self.dimensions]
        return tuple(dict.fromkeys(of_model[0] for of_model in found if of_model))

    def _setting(self, config: ServerConfig, name: str) -> Any:
        """Return a configuration's value of a dimension, TorchServe's default if it is not set."""
        if (of_model := split_model(name)) is not None:
            value = config.models.get(of_model[0], {}).get(of_model[1])
            return self.defaults.get(of_model[1]) if value is None else value
        group, dot, key = name.partition(".")
        if dot:
            return getattr(config, group).get(key)
        value = config.threads if name == "mkl_threads" else getattr(config, name)
        return self.defaults.get(name) if value is None else value

    def _with_sized_queue(self, config: ServerConfig) -> ServerConfig:
        """Return the configuration with room for two batches of each worker in the queue."""
        # The queues of all models have the same size.
        sizes = [self.size(config), *(self.size(config, model) for model in config.models)]
        needed = max(2 * workers * batch_size for workers, batch_size in sizes)
        if needed <= (config.job_queue_size or self.defaults["job_queue_size"]):
            return config
        return replace(config, job_queue_size=min(needed, MAX_SETTING))

    def size(self, config: ServerConfig, model: str | None = None) -> tuple[int, int]:
        """Return the workers and the batch size of the tuned model, or of another one."""
        settings = (
            name if model is None else model_dimension(model, name)
            for name in ("workers", "batch_size")
        )
        workers, batch_size = (int(self._setting(config, name)) for name in settings)
        return workers, batch_size

    def workers(self, config: ServerConfig) -> int:
        """Return the workers of all models whose number a configuration sets or defaults."""
        others = sum(int(settings.get("workers") or 0) for settings in config.models.values())
        return self.size(config)[0] + others

    @property
    def fewest_workers(self) -> int:
        """The fewest workers that a configuration of the space has, of all models."""
        return self.workers(self.config({d.name: d.least for d in self.dimensions}))

    def limited_to_workers(self, limit: int) -> Space:
        """Return the space without the numbers of workers that exceed a limit in any case."""
        dimensions = []
        for d in self.dimensions:
            if setting_of(d.name) == "workers":
                most = limit - (self.fewest_workers - d.least)
                d = d.capped(most) if d.least <= most else d
            dimensions.append(d)
        return replace(self, dimensions=tuple(dimensions))

    def values(self, config: ServerConfig) -> dict[str, Any] | None:
        """Return the values of a configuration, with TorchServe's defaults for unset settings.

        The values of ranges may be out of bounds. Return None if a value is not a number, or not
        one of the choices.
        """
        values: dict[str, Any] = {}
        for dimension in self.dimensions:
            group = dimension.name.partition(".")[0]
            value = self._setting(config, dimension.name)
            if dimension.choices:
                text = partial(_text, group) if group in GROUPS else lambda choice: choice
                equal = [choice for choice in dimension.choices if value == text(choice)]
                if not equal:
                    return None
                value = equal[0]
            try:
                values[dimension.name] = value if dimension.choices else int(value)
            except (TypeError, ValueError):
                return None
        return values

    def nearest_config(self, config: ServerConfig) -> ServerConfig | None:
        """Return the configuration in this space nearest to `config`; None if `values` is None."""
        if (values := self.values(config)) is None:
            return None
        ranges = [d for d in self.dimensions if not d.choices]
        return self.config({**values, **{d.name: d.clip(values[d.name]) for d in ranges}})

    def identity(self, config: ServerConfig) -> str:
        """Return a digest that is equal for configurations that result in the same server."""
        defaults = self.defaults
        unset: dict[str, Any] = {n: v for n, v in defaults.items() if getattr(config, n) is None}
        if config.environment.keys() & {*THREAD_VARIABLES}:
            unset.pop("mkl_threads", None)  # The variables set the same.
        models = {name: dict(settings) for name, settings in config.models.items()}
        for name in self.tuned_models:
            given = models.get(name, {})
            models[name] = {**{n: defaults[n] for n in MODEL_KEYS}, **given}
        return replace(config, models=models, **unset).digest

    def nearest_point(self, **settings: int) -> dict[str, Any]:
        """Return the point nearest to these settings and TorchServe's defaults for the rest."""
        point = {}
        for dimension in self.dimensions:
            default = self.defaults.get(setting_of(dimension.name))
            number = settings.get(dimension.name, default)
            point[dimension.name] = dimension.first if number is None else dimension.clip(number)
        return point

    def widened(self, highs: Mapping[str, int]) -> Space:
        """Return the space with the upper bounds of these dimensions replaced."""
        dimensions = tuple(replace(d, high=highs.get(d.name, d.high)) for d in self.dimensions)
        return replace(self, dimensions=dimensions)

    def draw_untried(self, tried: Collection[str], seed: int) -> dict[str, Any] | None:
        """Return a random point whose identity is not among `tried`; None if all were tried."""
        axes = [d.choices or range(d.low, d.high + 1) for d in self.dimensions]
        size = math.prod(len(axis) for axis in axes)
        # Of len(tried) + 1 distinct points, at least one was not tried.
        for number in random.Random(seed).sample(range(size), min(size, len(tried) + 1)):
            point = {}
            for dimension, axis in zip(self.dimensions, axes, strict=True):
                number, index = divmod(number, len(axis))
                point[dimension.name] = axis[index]
            if self.identity(self.config(point)) not in tried:
                return point
        return None

    def draw(self, random_source: np.random.Generator, count: int) -> list[dict[str, Any]]:
        """Return random points, uniform on the linear or logarithmic scale of each dimension."""
        columns: list[list[Any]] = []
        for d in self.dimensions:
            if d.choices:
                indices = random_source.integers(len(d.choices), size=count)
                columns.append([d.choices[i] for i in indices])
            elif d.log:
                bounds = math.log(d.low), math.log(d.high + 1)
                values = np.exp(random_source.uniform(*bounds, count)).astype(int)
                columns.append(np.minimum(values, d.high).tolist())
            else:
                columns.append(random_source.integers(d.low, d.high + 1, count).tolist())
        names = [d.name for d in self.dimensions]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def neighbours(self, point: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the points that differ in one setting: by 1, by a quarter, or by a factor of 2."""
        # A baseline may be out of bounds.
        point = {
            d.name: point[d.name] if d.choices else d.clip(point[d.name]) for d in self.dimensions
        }
        points = []
        for d in self.dimensions:
            value = point[d.name]
            if d.choices:
                others = set(d.choices)
            else:
                steps = (
                    value - 1,
                    value + 1,
                    value * 3 // 4,
                    value * 5 // 4,
                    value // 2,
                    value * 2,
                )
                others = {d.clip(step) for step in steps}
            points += [{**point, d.name: other} for other in others if other != value]
        return points

    def recommended_points(self, few_workers: bool = False) -> list[dict[str, Any]]:
        """Return the starting points that TorchServe's performance guide recommends for this host.

        The guide names batch size and delay first, because larger batches increase throughput; its
        chapter on batching starts at 8. Next are the workers: one worker with one thread for each
        core. The last point shares the cores the other way: one worker with all threads.
        The larger batches come first, because a slower trial after a faster one is cut short.
        If several models are tuned, each gets the same settings, and they share the cores.
        Source: docs/performance_guide.md and docs/batch_inference_with_ts.md of 0.12.0.

        Args:
            few_workers: whether one worker comes first, because each needs memory.
        """
        share = max(1, self.cores // (1 + len(self.tuned_models)))
        points = [self._shared_point(share, 1, size) for size in (32, 128, 8)]
        points.append(self._shared_point(1, self.cores, 32))
        if few_workers:
            points = [self._shared_point(1, 1, 32), points[-1], *points[:2]]
        return [point for i, point in enumerate(points) if point not in points[:i]]

    def _shared_point(self, workers: int, threads: int, batch_size: int) -> dict[str, Any]:
        """Return the point at which all tuned models have these settings."""
        settings = {"workers": workers, "batch_size": batch_size, "max_batch_delay_ms": 50}
        of_models = {
            model_dimension(model, name): value
            for model in self.tuned_models
            for name, value in settings.items()
        }
        return self.nearest_point(**settings, **of_models, mkl_threads=threads)


def _text(group: str, value: Any) -> str | None:
    """Return a value as text; None for a JVM flag that is switched off."""
    if group == "jvm" and isinstance(value, bool):
        return "" if value else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
