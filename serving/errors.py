"""Errors of the package `serving`."""

from __future__ import annotations

from servetune.errors import FailureKind, InputError, ServetuneError


class ConfigError(InputError):
    """A configuration that TorchServe would refuse, ignore or misread."""


class ArchiveError(InputError):
    """A model archive that TorchServe could not load."""


class DemoError(ServetuneError):
    """The bundled model cannot be built."""


class ServerError(ServetuneError):
    """TorchServe could not serve a configuration.

    Attributes:
        kind: the kind of failure.
        message: the reason, one sentence.
        log: the last lines of the server's log; empty if there is none.
        host_fault: whether the host, not the configuration, is the cause, so that one retry
            is justified.
    """

    def __init__(self, kind: FailureKind, message: str, log: str = "", host_fault: bool = False):
        super().__init__(kind, message, log, host_fault)
        self.kind = kind
        self.message = message
        self.log = log
        self.host_fault = host_fault

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class PathRefused(Exception):
    """A path that a reader of a deployment's files must not use, in one sentence."""
