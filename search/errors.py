"""The errors of the `search` package."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from servetune.errors import ExitStatus, InputError, ServetuneError


@dataclass(frozen=True)
class SpecProblem:
    """One problem of a specification.

    Attributes:
        path: keys joined by dots; empty for a problem of the file as a whole.
        message: what is wrong, without the path.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def is_inside(self, path: str) -> bool:
        """Return whether the problem is at this path or below it."""
        return f"{self.path}.".startswith(f"{path}.")


class SpecError(InputError):
    """A specification with problems.

    Args:
        problems: records, or messages about the file as a whole.

    Attributes:
        records: the problems as records.
        problems: one sentence for each record, with its path in the file.
    """

    def __init__(self, problems: Iterable[SpecProblem | str]):
        self.records = [SpecProblem("", p) if isinstance(p, str) else p for p in problems]
        self.problems = [str(record) for record in self.records]
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[SpecError], tuple[list[SpecProblem]]]:
        return SpecError, (self.records,)


class CommandError(InputError):
    """A command line that cannot be carried out."""


class RunError(InputError):
    """A folder that is not a run folder, or is not in the state that a command requires."""


class ClusterError(ServetuneError):
    """A cluster that no longer has the hosts or resources that a run needs."""


class ServiceError(ServetuneError):
    """A service that cannot be started or reached, or that refused a request."""


class RecordError(ServetuneError):
    """The results of a run can no longer be written."""


class RequirementError(ServetuneError):
    """A result below the requirement of a command."""

    exit_status = ExitStatus.BELOW_REQUIREMENT


def first_line(text: object) -> str:
    """Return the first line of a message, without a log that follows it."""
    return str(text).partition("\n")[0]
