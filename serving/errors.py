"""Errors of the package that runs TorchServe."""

from __future__ import annotations

from servetune.errors import FailureKind, InputError, ServetuneError


class ConfigError(InputError):
    """A configuration that TorchServe would refuse, ignore or misread; the message names it."""


class ArchiveError(InputError):
    """A model archive that TorchServe could not load; the message gives the reason."""


class DemoError(ServetuneError):
    """The bundled model cannot be built; the message gives the reason."""


class ServerError(ServetuneError):
    """TorchServe could not serve this configuration.

    Attributes:
        kind: the kind of failure.
        message: one sentence.
        log: the last lines of the server's log, if it wrote any.
        host_fault: whether the host, not the configuration, is the cause: worth one retry.
    """

    def __init__(self, kind: FailureKind, message: str, log: str = "", host_fault: bool = False):
        super().__init__(kind, message, log, host_fault)
        self.kind = kind
        self.message = message
        self.log = log
        self.host_fault = host_fault

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
