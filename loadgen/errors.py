"""Errors of the load generator."""

from __future__ import annotations

import traceback

from servetune.errors import REPORT_REQUEST, ExitStatus, InputError, ServetuneError


class PayloadError(InputError):
    """Requests that cannot be used.

    Args:
        problems: one sentence for each mistake, with its line if it is in a file.
    """

    def __init__(self, *problems: str):
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class GeneratorDefectError(ServetuneError):
    """A defect of the load generator, which ended the measurement; no failure of the server.

    Args:
        error: the unexpected exception; its traceback is part of the message.

    Attributes:
        summary: the message without the traceback.
    """

    exit_status = ExitStatus.DEFECT

    def __init__(self, error: BaseException | str):
        if isinstance(error, BaseException):
            error = "".join(traceback.format_exception(error))
        super().__init__(error)

    @property
    def summary(self) -> str:
        _, _, exception = str(self.args[0]).rstrip().rpartition("\n")
        return (
            "a defect of the load generator ended the measurement, not the server: "
            f"{exception}\n{REPORT_REQUEST}"
        )

    def __str__(self) -> str:
        return f"{self.summary}\n{str(self.args[0]).rstrip()}"


class GeneratorLostError(ServetuneError):
    """A load generator process ended during a window, which is therefore invalid."""

    def __str__(self) -> str:
        return f"load generator process lost: {super().__str__()}"


class CertificateError(InputError):
    """A file of certificates that cannot be used."""
