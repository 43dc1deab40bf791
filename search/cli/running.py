"""Run a coroutine from a command, and format its progress."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from loadgen.formatting import format_rps

T = TypeVar("T")


def format_phase(name: str, rate_rps: float) -> str:
    """Return a phase and its rate, if it has one."""
    return f"{name} at {format_rps(rate_rps)}" if rate_rps else name


def run_coroutine(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end.

    Ctrl-C and SIGTERM cancel it, so that it stops what it started.

    Raises:
        KeyboardInterrupt: it was cancelled.
    """

    async def main() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    return asyncio.run(main())
