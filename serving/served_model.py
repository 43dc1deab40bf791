"""A model as TorchServe describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.configuration.config import MODEL_KEYS, ServerConfig


@dataclass(frozen=True)
class ServedModel:
    """A model whose workers are ready.

    Attributes:
        settings: its settings as TorchServe described them, by name.
        worker_pids: process ids of its workers.
    """

    settings: Mapping[str, int] = field(default_factory=dict)
    worker_pids: frozenset[int] = frozenset()

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> ServedModel:
        """Read TorchServe's description of a model."""
        settings = {
            name: description[keys[0]]
            for name, keys in MODEL_KEYS.items()
            if keys[0] in description  # Older versions do not describe the response timeout.
        }
        return cls(settings, frozenset(int(worker["pid"]) for worker in description["workers"]))

    @property
    def batch_capacity(self) -> int:
        """Workers times batch size, requests."""
        return int(self.settings["workers"]) * int(self.settings["batch_size"])

    def difference(self, config: ServerConfig) -> str | None:
        """Return the first setting that TorchServe reports otherwise than configured."""
        for name, reported in self.settings.items():
            configured = getattr(config, name)
            if configured is not None and reported != configured:
                return (
                    f"{name} is {configured} in the configuration, but TorchServe reports "
                    f"{reported}: the archive's model-config.yaml takes precedence"
                )
        return None


def is_ready(description: Mapping[str, Any]) -> bool:
    """Return whether all workers of a model are ready, by TorchServe's description."""
    states = [worker["status"] for worker in description["workers"]]
    return len(states) >= description["minWorkers"] and set(states) <= {"READY"}


def is_scaled(description: Mapping[str, Any], workers: int) -> bool:
    """Return whether a model has this number of workers, all of them ready."""
    counts = {description["minWorkers"], len(description["workers"])}
    return counts == {workers} and is_ready(description)
