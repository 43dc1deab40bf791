"""The error of a request that the service rejects."""

from __future__ import annotations

from collections.abc import Sequence

from search.errors import SpecProblem


class RequestError(Exception):
    """A request that the service rejects.

    Args:
        status: the HTTP status of the response.
        problems: what is wrong with a specification, or with parameters, each with its path.
    """

    def __init__(self, status: int, error: str, problems: Sequence[SpecProblem] = ()):
        super().__init__(error)
        self.status, self.problems = status, list(problems)
