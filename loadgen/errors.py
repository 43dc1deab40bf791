"""Errors of the load generator."""

from __future__ import annotations

import traceback

from servetune.errors import REPORT_REQUEST, ExitStatus, InputError, ServetuneError


class PayloadError(InputError):
    """A requests file that cannot be used; the message names the line."""


class GeneratorDefectError(ServetuneError):
    """A defect of the load generator, which ended the measurement; no failure of the server.

    Args:
        error: the unexpected exception; its traceback is part of the message.
    """

    exit_status = ExitStatus.DEFECT

    def __init__(self, error: BaseException | str):
        if isinstance(error, BaseException):
            error = "".join(traceback.format_exception(error))
        super().__init__(error)

    def __str__(self) -> str:
        details = str(self.args[0]).rstrip()
        return (
            "a defect of the load generator ended the measurement; the server is not the cause: "
            f"{details.rpartition(chr(10))[2]}\n{REPORT_REQUEST}\n{details}"
        )


class GeneratorLostError(ServetuneError):
    """A load generator process ended during a window, which is therefore invalid."""

    def __str__(self) -> str:
        return f"load generator process lost: {super().__str__()}"
