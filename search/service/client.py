"""A client of the service's HTTP API."""

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
from serving.archive_files import extract_files

#: Seconds within which the service sends an event, or a comment if there is none.
_MAX_SILENCE_S = 60.0


@dataclass(frozen=True)
class ServerSentEvent:
    """One event from the stream of a job."""

    id: str
    kind: str
    data: dict[str, Any]


class ServiceClient:
    """A connection to the service, as an asynchronous context manager.

    Every method raises ServiceError if the service cannot be reached or fails, and CommandError
    if it rejects the request.

    Args:
        url: URL of the service, `http://HOST:PORT`.
        token: the service's token; None if it requires none.
    """

    def __init__(self, url: str, token: str | None):
        self._url, self._token = url.rstrip("/"), token

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_MAX_SILENCE_S)
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
        """Submit a specification; uploaded files replace those that it names."""
        form = aiohttp.FormData()
        form.add_field("spec", spec, content_type="application/yaml")
        for name, path in uploads.items():
            # aiohttp reads the file while it sends it, and closes it.
            form.add_field(name, path.open("rb"), filename=path.name)
        return dict(json.loads(await self._request("POST", "/v1/jobs", data=form)))

    async def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs, the newest first."""
        return list(json.loads(await self._request("GET", "/v1/jobs"))["jobs"])

    async def job(self, job_id: str) -> dict[str, Any]:
        """Return a job."""
        return dict(json.loads(await self._request("GET", f"/v1/jobs/{job_id}")))

    async def events(self, job_id: str, after: str = "0") -> AsyncIterator[ServerSentEvent]:
        """Yield the events of a job after an id, until the job or the service ends."""
        url = f"{self._url}/v1/jobs/{job_id}/events"
        try:
            async with self._session.get(url, headers={"Last-Event-ID": after}) as answer:
                await _raise_for_status(answer)
                fields: dict[str, str] = {}
                async for raw_line in answer.content:
                    line = raw_line.decode().rstrip("\n")
                    if line:
                        name, _, text = line.partition(": ")
                        fields[name] = text
                        continue
                    if "data" in fields:
                        data = json.loads(fields["data"])
                        yield ServerSentEvent(fields["id"], fields["event"], data)
                    fields = {}
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ServiceError(f"{self._url} closed the stream of events: {error}") from None

    async def fetch(self, job_id: str, folder: Path) -> None:
        """Download the files for production and the report into a folder."""
        best = await self._request("GET", f"/v1/jobs/{job_id}/best.tar.gz")
        report = await self._request("GET", f"/v1/jobs/{job_id}/report")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(best)) as archive:
            extract_files(archive, folder)
        (folder / "report.html").write_bytes(report)

    async def _request(self, method: str, path: str, **options: Any) -> bytes:
        try:
            async with self._session.request(method, self._url + path, **options) as answer:
                await _raise_for_status(answer)
                return await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ServiceError(f"no service answers at {self._url}: {error}") from None


async def _raise_for_status(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 400:
        return
    try:
        body = await answer.json()
        reason = "; ".join([body["error"], *body["problems"]])
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        reason = f"HTTP status {answer.status}"
    message = f"the service rejected the request: {reason}"
    raise CommandError(message) if answer.status < 500 else ServiceError(message)
