"""A thread that reads the files of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class ReaderThread:
    """Calls functions that read files in one thread, one after the other.

    Reading a run may take seconds, and the caches of what was read are not thread-safe: one at a
    time, and never in the event loop.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="views")

    async def call(self, read: Callable[..., T], *arguments: Any) -> T:
        """Return the result of a function."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, read, *arguments)
