"""Check every request first, and turn what its handler raises into a response."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from search.service.access import Access
from search.service.errors import RequestError
from search.service.responses import HEADERS, error_response, json_response
from search.service.sending import send_in_parts
from search.service.views import ErrorView
from servetune.errors import ServetuneError

_LOG = logging.getLogger(__name__)


def guard_for(access: Access) -> Middleware:
    """Return the middleware that answers only requests that the rules allow."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            access.check(request)
            answer = await handler(request)
        except RequestError as error:
            answer = error_response(error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            answer = json_response(ErrorView(error=error.reason), error.status)
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
        except ConnectionError:
            raise
        except (ServetuneError, OSError, ValueError) as error:
            _LOG.warning("%s %s failed: %s", request.method, request.path, error)
            answer = json_response(ErrorView(error=str(error)), 500)
        if answer.prepared:
            return answer
        answer.headers.update(HEADERS)
        return await send_in_parts(answer, request) if isinstance(answer, web.Response) else answer

    return guard
