"""Send the events of a job to a client as server-sent events."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from search.service.errors import RequestError
from search.service.jobs import Job
from search.service.sending import write_part
from search.service.slots import Slots
from servetune.errors import ServetuneError

_POLL_S = 0.25
#: A comment is sent after this time without an event, seconds.
_KEEP_ALIVE_S = 15.0
MAX_STREAMS = 200


class EventStreams:
    """The open streams of a service; their number is limited."""

    def __init__(self, max_streams: int = MAX_STREAMS):
        self._slots = Slots(max_streams, "streams of events are open")

    async def send(
        self, job: Job, request: web.Request, headers: dict[str, str]
    ) -> web.StreamResponse:
        """Send the events after `Last-Event-ID`, until the job is over.

        Raises:
            RequestError: the id is not an event's, or too many streams are open.
        """
        try:
            after = int(request.headers.get("Last-Event-ID", "0"))
            if not job.events.is_event_id(after):
                raise ValueError
        except ValueError:
            raise RequestError(400, "Last-Event-ID must be the id of an event") from None
        with self._slots.take():
            return await _send(job, after, request, headers)


async def _send(
    job: Job, after: int, request: web.Request, headers: dict[str, str]
) -> web.StreamResponse:
    answer = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
    await answer.prepare(request)
    silent_s = 0.0
    while True:
        try:
            # Read the state first, so that no event written before it is missed.
            is_over = job.record().state.is_over
            events = job.events.read(after)
        except ServetuneError:
            return answer  # The view of the job shows what is damaged.
        for event in events:
            after = event.id
            data = json.dumps({"time_s": event.time_s, **event.data})
            text = f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n"
            await write_part(answer, request, text.encode())
        if events:
            silent_s = 0.0
            continue
        if is_over:
            return answer
        await asyncio.sleep(_POLL_S)
        silent_s += _POLL_S
        if silent_s >= _KEEP_ALIVE_S:
            silent_s = 0.0
            await write_part(answer, request, b": keep-alive\n\n")
