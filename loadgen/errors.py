"""Errors of the load generator."""

from __future__ import annotations

from servetune.errors import InputError, ServetuneError


class PayloadError(InputError):
    """A requests file that cannot be used; the message names the line."""


class GeneratorLostError(ServetuneError):
    """A load generator process ended during a window, which is therefore invalid."""

    def __str__(self) -> str:
        return f"load generator process lost: {super().__str__()}"
