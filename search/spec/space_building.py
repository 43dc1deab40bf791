"""Build a search space: which settings vary, over which ranges, and which are fixed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from search.spec.dimension import GROUPS, Dimension, model_dimension
from search.spec.space import Space
from serving.configuration.config import SETTINGS, THREAD_VARIABLES, ServerConfig
from serving.configuration.environment import changes_speed
from serving.configuration.properties import (
    ESSENTIAL_KEYS,
    ESSENTIAL_MODEL_KEYS,
    UNBATCHED_ENVELOPES,
)
from serving.errors import ConfigError

#: Settings that vary by default.
DEFAULT_SETTINGS = (
    "workers",
    "batch_size",
    "max_batch_delay_ms",
    "netty_threads",
    "netty_client_threads",
    "mkl_threads",
)
#: Settings of another model that vary by default if it is tuned.
DEFAULT_MODEL_SETTINGS = ("workers", "batch_size", "max_batch_delay_ms")


def default_dimension(name: str, cores: int) -> Dimension:
    """Return the range of a setting that the specification does not name."""
    # More threads than cores only slow each other down; a handler that waits for other services
    # uses many more workers.
    return {
        "workers": Dimension(name, 1, 2 * cores, widen_to=64 * cores),
        "batch_size": Dimension(name, 1, 128, log=True, widen_to=1024),
        "max_batch_delay_ms": Dimension(name, 1, 200, log=True, widen_to=2000),
        "netty_threads": Dimension(name, 1, 2 * cores, log=True, widen_to=16 * cores),
        "netty_client_threads": Dimension(name, 1, 2 * cores, log=True, widen_to=16 * cores),
        "mkl_threads": Dimension(name, 1, cores, log=True, widen_to=cores),
    }[name]


def essential_settings(config: ServerConfig, tuned_models: Collection[str] = ()) -> ServerConfig:
    """Return only the settings that a model may need to be served at all, not those for speed.

    Args:
        tuned_models: other models that are tuned; the rest keep all their settings.
    """
    models = {
        name: {k: v for k, v in settings.items() if k in ESSENTIAL_MODEL_KEYS}
        if name in tuned_models
        else settings
        for name, settings in config.models.items()
    }
    return ServerConfig(
        properties={k: v for k, v in config.properties.items() if k in ESSENTIAL_KEYS},
        environment={k: v for k, v in config.environment.items() if not changes_speed(k)},
        model_properties={
            k: v for k, v in config.model_properties.items() if k in ESSENTIAL_MODEL_KEYS
        },
        models={name: settings for name, settings in models.items() if settings},
    )


def in_use_entries(config: ServerConfig, tuned: Collection[str]) -> dict[str, Any]:
    """Return the settings of a configuration in use that are not tuned, for `build_space`."""
    settings = {name: getattr(config, name) for name in SETTINGS if name not in tuned}
    entries = {name: value for name, value in settings.items() if value is not None}
    for group in GROUPS:
        for key, text in getattr(config, group).items():
            is_thread_count = key in THREAD_VARIABLES and "mkl_threads" in tuned
            if not is_thread_count:
                entries[f"{group}.{key}"] = text
    for model, given in config.models.items():
        for key, value in given.items():
            # TorchServe scales to minWorkers, which `workers` sets.
            is_replaced = key == "maxWorkers" and model_dimension(model, "workers") in tuned
            name = model_dimension(model, key)
            if not is_replaced and name not in tuned:
                entries[name] = value
    return entries


def build_space(
    entries: Mapping[str, Any],
    cores: int,
    threads: int | None = None,
    model_properties: Mapping[str, str | int] = MappingProxyType({}),
    sizes_queue: bool = False,
) -> Space:
    """Build a space.

    Args:
        entries: by name, a `Dimension` to vary the setting over, a fixed value, or None for
            TorchServe's default. The DEFAULT_SETTINGS that are missing vary over their default
            ranges.
        cores: of the serving host.
        threads: default thread count of torch there; `cores` if None.
        model_properties: of every configuration.
        sizes_queue: see `Space`.

    Raises:
        ConfigError: TorchServe would refuse a fixed value, a choice or a bound.
    """
    defaults: dict[str, Any] = {name: default_dimension(name, cores) for name in DEFAULT_SETTINGS}
    if entries.get("properties.service_envelope") in UNBATCHED_ENVELOPES:
        defaults["batch_size"] = 1
    entries = {**defaults, **entries}
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
    common = ServerConfig(model_properties=dict(model_properties))
    common = Space((), common, cores).config(fixed)
    space = Space(tuple(dimensions), common, cores, threads, sizes_queue=sizes_queue)
    problems = common.batch_problems()
    for dimension in dimensions:
        for value in dimension.choices or (dimension.low, dimension.high):
            try:
                problems += space.config({dimension.name: value}).batch_problems()
            except ConfigError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)))
    return space
