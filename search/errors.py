"""Errors of the package that searches; every message tells what to do."""

from __future__ import annotations

from servetune.errors import ExitStatus, InputError, ServetuneError


class SpecError(InputError):
    """Every problem of a specification.

    Attributes:
        problems: one sentence each, with its path in the file.
    """

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[SpecError], tuple[list[str]]]:
        return SpecError, (self.problems,)


class CommandError(InputError):
    """A command line that cannot be carried out."""


class RunError(InputError):
    """A run's folder that is not one, or is not in the state that the command needs."""


class ClusterError(ServetuneError):
    """A cluster that no longer has what a run needs."""


class ServiceError(ServetuneError):
    """A service that cannot be started or reached, or that refuses a request."""


class RecordError(ServetuneError):
    """The results of a run cannot be written any more."""


class RequirementError(ServetuneError):
    """The result is below what the command requires."""

    exit_status = ExitStatus.BELOW_REQUIREMENT


def first_line(text: object) -> str:
    """Return the first line of a message, without the log that may follow it."""
    return str(text).partition("\n")[0]
