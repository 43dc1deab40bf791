"""TorchServe's APIs for management and metrics, which only its host reaches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import aiohttp

from serving.metrics import ServerCounters
from serving.ports import LOOPBACK, Ports


class UnknownModelError(Exception):
    """TorchServe has no model of this name."""


class LocalApi:
    """A client of both APIs; an answer may take 5 s.

    Args:
        ports: of the server.
        authorization: returns the headers that an API requires.
    """

    def __init__(self, ports: Ports, authorization: Callable[[str], Mapping[str, str]]):
        self.ports, self._authorization = ports, authorization
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def counters(self, models: Collection[str] = ()) -> ServerCounters | None:
        """Return TorchServe's counters; None if it does not answer.

        Args:
            models: see `ServerCounters.parse`.
        """
        try:
            url = f"http://{LOOPBACK}:{self.ports.metrics}/metrics"
            async with self._session.get(url) as response:
                return ServerCounters.parse(await response.text(), models)
        except (TimeoutError, aiohttp.ClientError):
            return None

    async def describe(self, name: str) -> dict[str, Any] | None:
        """Return TorchServe's description of a model; None if it does not answer yet.

        Raises:
            UnknownModelError: TorchServe could not load it.
        """
        try:
            headers = self._authorization("management")
            async with self._session.get(self._model_url(name), headers=headers) as response:
                if response.status == 404:
                    raise UnknownModelError(name)
                if response.status != 200:
                    return None
                versions: list[dict[str, Any]] = await response.json()
        except (TimeoutError, aiohttp.ClientError):
            return None
        return versions[0]

    async def change(self, name: str, parameters: Mapping[str, str | int]) -> str | None:
        """Change a model; return the problem, None if it was changed."""
        url = self._model_url(name)
        try:
            headers = self._authorization("management")
            async with self._session.put(url, params=parameters, headers=headers) as response:
                if response.status < 300:
                    return None
                return f"status {response.status}: {(await response.text()).strip()[:200]}"
        except (TimeoutError, aiohttp.ClientError) as error:
            return f"the management API did not answer ({type(error).__name__})"

    def _model_url(self, name: str) -> str:
        return f"http://{LOOPBACK}:{self.ports.management}/models/{name}"
