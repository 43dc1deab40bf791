"""Settings that TorchServe accepts and ignores: a trial of them would measure nothing.

Source: frontend/server/src/main/java/org/pytorch/serve/wlm/WorkerLifeCycle.java and
ts/torch_handler/base_handler.py of 0.12.0; for async_logging, an experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.archive import Archive
from serving.configuration.versions import NEWEST
from serving.installation import Installation

LAUNCHER = "torch.backends.xeon.run_cpu"


def find_ignored_settings(
    properties: Mapping[str, str], installation: Installation | None, archive: Archive
) -> str | None:
    """Return the reason why TorchServe would ignore a property, before its start, or None.

    Args:
        installation: None if it is not known.
    """
    version = installation.version if installation else NEWEST
    if problems := [p for key in properties if (p := version.problem_with(key))]:
        return problems[0]
    configured = properties.get("default_response_timeout")
    if configured is not None and "responseTimeout" in archive.overridden_keys:
        archived = archive.settings.get("responseTimeout", "120 by default")
        if configured != str(archived):
            return (
                f"default_response_timeout is {configured}, but the archive's model-config.yaml, "
                f"which takes precedence, has responseTimeout {archived}; set response_timeout_s "
                "instead"
            )
    if properties.get("async_logging") == "true" and not version.logs_asynchronously:
        return (
            f"async_logging has no effect in TorchServe {version.number}; use jvm: "
            '{"-Dlog4j2.contextSelector": org.apache.logging.log4j.core.async.'
            "AsyncLoggerContextSelector} instead"
        )
    if (
        properties.get("ipex_enable") == "true"
        and installation is not None
        and installation.ipex_version is None
    ):
        return (
            "ipex_enable requires intel_extension_for_pytorch (last release: for torch 2.8), "
            f"which is not installed in {installation.python}; TorchServe would only log a warning"
        )
    return None


def find_unapplied_settings(properties: Mapping[str, str], commands: Sequence[str]) -> str | None:
    """Return the reason why TorchServe ignored a property, or None.

    Args:
        commands: the command lines of the workers and of their parents.
    """
    is_enabled = properties.get("cpu_launcher_enable") == "true"
    if is_enabled and not any(LAUNCHER in command for command in commands):
        return (
            "cpu_launcher_enable is true, but the workers run without the launcher: `python` on "
            f"PATH must find torch, and `python -m {LAUNCHER} --no_python ls` must succeed"
        )
    return None
