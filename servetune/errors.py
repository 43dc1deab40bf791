"""Errors, exit statuses and kinds of failure. Imports no other module of the project.

ServetuneError                exit status 1
├── InputError (ValueError)   exit status 2: a mistake of the user, found before anything starts
│   ├── serving: ConfigError, ArchiveError
│   ├── loadgen: PayloadError, CertificateError
│   └── search:  SpecError, CommandError, RunError
├── serving: ServerError, DemoError
├── loadgen: GeneratorLostError, GeneratorDefectError (exit status 70)
└── search:  ClusterError, RecordError, ServiceError, RequirementError (exit status 3)
"""

from __future__ import annotations

import enum


class ExitStatus(enum.IntEnum):
    """Exit statuses of the command `servetune`."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    BELOW_REQUIREMENT = 3
    DEFECT = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130


#: The sentence that asks the user for a report of a defect.
REPORT_REQUEST = (
    "This is a bug in servetune: please report it, with the text below and the requests file, at "
    "https://github.com/servetune/servetune/issues"
)


class ServetuneError(Exception):
    """Base class of every error that servetune raises on purpose.

    Attributes:
        exit_status: the exit status of a command that ends with this error.
    """

    exit_status = ExitStatus.FAILED


class InputError(ServetuneError, ValueError):
    """A mistake in a file or an argument; nothing was started."""

    exit_status = ExitStatus.BAD_INPUT


class FailureKind(enum.StrEnum):
    """Why a trial or a server failed. Program logic compares members, never sentences."""

    NO_JAVA = "no Java"
    NO_PYTHON = "no Python"
    NO_TORCHSERVE = "no TorchServe"
    WRONG_TORCHSERVE = "wrong TorchServe"
    PORT_IN_USE = "port in use"
    NO_START = "no start"
    ARCHIVE_NOT_LOADED = "archive not loaded"
    MODEL_NOT_LOADED = "model does not load"
    NOT_READY = "not ready"
    SETTING_OVERRULED = "setting overruled"
    SETTING_IGNORED = "setting ignored"
    SERVER_DIED = "server died"
    WORKER_DIED = "worker died"
    OUT_OF_MEMORY = "out of memory"
    OUT_OF_GPU_MEMORY = "out of GPU memory"
    MEMORY_BUDGET = "memory budget"
    NO_RATE = "no rate"
    GENERATOR_LIMITED = "generator limited"
    GENERATOR_LOST = "load generator process lost"
    TRIAL_PROCESS_LOST = "trial process lost"
    DISK_FULL = "disk full"
    INTERNAL_ERROR = "internal error"
    BASELINE_FAILED = "stopped"


_MEMORY = (
    FailureKind.OUT_OF_MEMORY,
    FailureKind.OUT_OF_GPU_MEMORY,
    FailureKind.MEMORY_BUDGET,
)


def is_memory(failure: FailureKind | None) -> bool:
    """Return whether a configuration failed because it needs more memory than there is."""
    return failure in _MEMORY
