"""Limit how often something happens at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from search.service.errors import RequestError


class Slots:
    """A number of requests of one kind that are answered at the same time.

    Args:
        what: the kind and its verb, such as "submissions are read".
    """

    def __init__(self, count: int, what: str):
        self._count, self._what, self._taken = count, what, 0

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Take a slot in the context.

        Raises:
            RequestError: none is free.
        """
        if self._taken >= self._count:
            raise RequestError(503, f"{self._taken} {self._what}; try again later")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
