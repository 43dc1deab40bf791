"""The service from a shell: submit, list, follow, fetch."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from search.errors import CommandError, ServiceError

#: A stream of events says within this that it is still there.
_SILENT_S = 60.0


@dataclass(frozen=True)
class ServerSentEvent:
    """An event: its id, its kind, its data."""

    id: str
    kind: str
    data: dict[str, Any]


class Client:
    """One service, as an asynchronous context.

    Args:
        url: `http://HOST:PORT`.
        token: None where it asks for none.

    Raises (by every method):
        ServiceError: it cannot be reached.
        CommandError: it refuses, with its reason.
    """

    def __init__(self, url: str, token: str | None):
        self._url, self._token = url.rstrip("/"), token

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENT_S)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def submit(self, spec: str, uploads: dict[str, Path]) -> dict[str, Any]:
        """Submit a specification; files go along in the place of those that it names."""
        form = aiohttp.FormData()
        form.add_field("spec", spec, content_type="application/yaml")
        for name, path in uploads.items():
            # The library reads it while it sends, and closes it.
            form.add_field(name, path.open("rb"), filename=path.name)
        return dict(json.loads(await self._ask("POST", "/v1/jobs", data=form)))

    async def jobs(self) -> list[dict[str, Any]]:
        """All jobs, the newest first."""
        return list(json.loads(await self._ask("GET", "/v1/jobs"))["jobs"])

    async def job(self, job_id: str) -> dict[str, Any]:
        """One job now."""
        return dict(json.loads(await self._ask("GET", f"/v1/jobs/{job_id}")))

    async def events(self, job_id: str, after: str = "0") -> AsyncIterator[ServerSentEvent]:
        """What happens, until the job is over or the service ends."""
        url = f"{self._url}/v1/jobs/{job_id}/events"
        try:
            async with self._session.get(url, headers={"Last-Event-ID": after}) as answer:
                await _refuse(answer)
                parts: dict[str, str] = {}
                async for raw in answer.content:
                    line = raw.decode().rstrip("\n")
                    if line:
                        name, _, text = line.partition(": ")
                        parts[name] = text
                        continue
                    if "data" in parts:
                        yield ServerSentEvent(
                            parts["id"], parts["event"], json.loads(parts["data"])
                        )
                    parts = {}
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ServiceError(f"{self._url} ended the stream: {error}") from None

    async def fetch(self, job_id: str, folder: Path) -> None:
        """Write the files for production and the report into a folder."""
        best = await self._ask("GET", f"/v1/jobs/{job_id}/best.tar.gz")
        report = await self._ask("GET", f"/v1/jobs/{job_id}/report")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(best)) as archive:
            archive.extractall(folder, filter="data")
        (folder / "report.html").write_bytes(report)

    async def _ask(self, method: str, path: str, **options: Any) -> bytes:
        try:
            async with self._session.request(method, self._url + path, **options) as answer:
                await _refuse(answer)
                return await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ServiceError(f"no service answers at {self._url}: {error}") from None


async def _refuse(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 400:
        return
    try:
        told = await answer.json()
        why = "; ".join([told["error"], *told["problems"]])
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        why = f"it answered {answer.status}"
    refused = f"the service refuses: {why}"
    raise CommandError(refused) if answer.status < 500 else ServiceError(refused)
