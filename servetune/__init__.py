"""Find the TorchServe configuration that sustains the highest request rate at 100 % success.

    import servetune

    spec = servetune.load_spec("study.yaml")
    outcome = servetune.tune(spec, trials=20)
    print(outcome.chosen.config, outcome.chosen.sustained_rps)

Nothing here prints, installs signal handlers, or leaves the environment changed unless asked to.
Importing this package imports neither Ray nor Optuna; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from servetune.errors import ExitStatus, FailureKind, InputError, ServetuneError
from servetune.packages import ShadowedPackageError, check_packages

if TYPE_CHECKING:
    from loadgen.errors import GeneratorDefectError, GeneratorLostError, PayloadError
    from loadgen.payloads import Payload
    from loadgen.rate.goal import Goal
    from loadgen.rate.result import SustainedRate
    from search.confirmation.rounds import Rounds
    from search.errors import (
        ClusterError,
        CommandError,
        RecordError,
        RequirementError,
        RunError,
        ServiceError,
        SpecError,
    )
    from search.spec.loading import load_spec
    from search.spec.schema import StudySpec
    from search.study.observer import StudyEvent
    from search.study.outcome import Outcome
    from search.trial.result import TrialResult
    from servetune.api import (
        find_sustained_rate,
        load_outcome,
        measure,
        read_config,
        resume,
        sweep,
        tune,
    )
    from servetune.run import Run
    from serving.archive import Archive
    from serving.configuration.config import ServerConfig
    from serving.errors import ArchiveError, ConfigError, DemoError, ServerError
    from serving.server import TorchServe
    from serving.site import Site

_MODULES = {
    "loadgen.errors": ("GeneratorDefectError", "GeneratorLostError", "PayloadError"),
    "loadgen.payloads": ("Payload",),
    "loadgen.rate.goal": ("Goal",),
    "loadgen.rate.result": ("SustainedRate",),
    "search.errors": (
        "ClusterError",
        "CommandError",
        "RecordError",
        "RequirementError",
        "RunError",
        "ServiceError",
        "SpecError",
    ),
    "search.spec.loading": ("load_spec",),
    "search.spec.schema": ("StudySpec",),
    "search.study.observer": ("StudyEvent",),
    "search.study.outcome": ("Outcome",),
    "search.confirmation.rounds": ("Rounds",),
    "search.trial.result": ("TrialResult",),
    "serving.archive": ("Archive",),
    "serving.configuration.config": ("ServerConfig",),
    "serving.errors": ("ArchiveError", "ConfigError", "DemoError", "ServerError"),
    "serving.server": ("TorchServe",),
    "serving.site": ("Site",),
    "servetune.run": ("Run",),
    "servetune.api": (
        "find_sustained_rate",
        "load_outcome",
        "measure",
        "read_config",
        "resume",
        "sweep",
        "tune",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Archive",
    "ArchiveError",
    "ClusterError",
    "CommandError",
    "ConfigError",
    "DemoError",
    "ExitStatus",
    "FailureKind",
    "GeneratorDefectError",
    "GeneratorLostError",
    "Goal",
    "InputError",
    "Outcome",
    "Payload",
    "PayloadError",
    "RecordError",
    "RequirementError",
    "Rounds",
    "Run",
    "RunError",
    "ServerConfig",
    "ServerError",
    "ServetuneError",
    "ServiceError",
    "ShadowedPackageError",
    "Site",
    "SpecError",
    "StudyEvent",
    "StudySpec",
    "SustainedRate",
    "TorchServe",
    "TrialResult",
    "__version__",
    "find_sustained_rate",
    "load_outcome",
    "load_spec",
    "measure",
    "read_config",
    "resume",
    "sweep",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("servetune")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'servetune' has no attribute {name!r}")
    check_packages()
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
