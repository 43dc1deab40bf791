"""Settings that TorchServe 0.12.0 takes and then ignores: a trial of them would measure nothing.

Source: frontend/server/src/main/java/org/pytorch/serve/wlm/WorkerLifeCycle.java and
ts/torch_handler/base_handler.py of 0.12.0; async_logging was tried.
"""

from __future__ import annotations

from collections.abc import Sequence

from serving.archive import Archive
from serving.config import ServerConfig
from serving.installation import Installation

#: Settings of the whole server for which an archive's model-config.yaml has a key of its own, and
#: which TorchServe does not report; those that it reports are compared once it has started.
_OVERRULED = {"job_queue_size": "jobQueueSize", "default_response_timeout": "responseTimeout"}
LAUNCHER = "torch.backends.xeon.run_cpu"


def find_ignored_settings(
    config: ServerConfig, installation: Installation, archive: Archive
) -> str | None:
    """What would be ignored, told by what is there before a start; None where nothing is."""
    for name, key in _OVERRULED.items():
        asked = getattr(config, name, config.properties.get(name))
        held = archive.settings.get(key)
        if asked is not None and held is not None and str(asked) != str(held):
            return (
                f"{name} {asked} was asked for and the archive's own model-config.yaml, which "
                f"comes first, says {key}: {held}; leave it out there, or leave {name} alone"
            )
    if config.properties.get("async_logging") == "true":
        return (
            "async_logging has no effect in TorchServe 0.12.0; in its place use jvm: "
            '{"-Dlog4j2.contextSelector": org.apache.logging.log4j.core.async.'
            "AsyncLoggerContextSelector}"
        )
    if config.properties.get("ipex_enable") == "true" and installation.ipex_version is None:
        return (
            f"ipex_enable needs intel_extension_for_pytorch in {installation.python}, and "
            "TorchServe only warns where it is missing; its last release is for torch 2.8"
        )
    return None


def find_unapplied_settings(config: ServerConfig, commands: Sequence[str]) -> str | None:
    """What was ignored, told by the command lines of the workers and their parents."""
    wanted = config.properties.get("cpu_launcher_enable") == "true"
    if wanted and not any(LAUNCHER in command for command in commands):
        return (
            "cpu_launcher_enable was set, but the workers run without it: the command `python` on "
            f"PATH must find torch, and `python -m {LAUNCHER} --no_python ls` must succeed"
        )
    return None
