"""Responses of the API: views as JSON, errors, the headers of all."""

from __future__ import annotations

import json

from aiohttp import web
from pydantic import BaseModel

from search.service.errors import RequestError
from search.service.views import ErrorView, FieldProblem

#: Headers of every response.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def json_response(view: BaseModel, status: int = 200) -> web.Response:
    """Return a view as JSON."""
    try:
        text = view.model_dump_json()
    except ValueError:  # Half of a surrogate pair, from a damaged file.
        text = json.dumps(view.model_dump(mode="json"))
    return web.Response(text=text, status=status, content_type="application/json")


def error_response(error: RequestError) -> web.Response:
    """Return why a request was rejected."""
    fields = [FieldProblem(path=p.path, message=p.message) for p in error.problems]
    problems = list(map(str, error.problems))
    view = ErrorView(error=str(error), problems=problems, fields=fields)
    answer = json_response(view, error.status)
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if error.status in (408, 413, 415):
        answer.force_close()  # The rest of the body is not read.
    return answer
