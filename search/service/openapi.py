"""The API's OpenAPI document, out of the views and one table of operations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from search.service.views import ErrorView, JobsView, JobView, TrialDetailView, TrialsView
from search.spec.schema import StudySpec

_REF = "#/components/schemas/{model}"
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[0-9]{8}-[0-9]{6}-[0-9a-f]{6}$"},
}
_NUMBER = {
    "name": "number",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}
_FORMAT = {
    "name": "format",
    "in": "query",
    "schema": {"type": "string", "enum": ["html", "md"], "default": "html"},
}
_LAST = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "the id of the last event that was seen",
    "schema": {"type": "integer", "minimum": 0},
}
_BINARY = {"type": "string", "contentMediaType": "application/octet-stream"}


@dataclass(frozen=True)
class _Operation:
    method: str
    path: str
    name: str
    summary: str
    status: int
    answer: type[BaseModel] | str
    refusals: tuple[int, ...] = ()
    parameters: tuple[dict[str, Any], ...] = ()
    body: bool = False


_OPERATIONS = (
    _Operation("get", "/v1/jobs", "list_jobs", "All jobs, the newest first.", 200, JobsView),
    _Operation(
        *(
            "post",
            "/v1/jobs",
            "submit_job",
            "Check a specification, and put a job last in the queue.",
        ),
        *(201, JobView, (400, 413, 422)),
        body=True,
    ),
    _Operation("get", "/v1/jobs/{id}", "show_job", "One job now.", 200, JobView, (404,), (_ID,)),
    _Operation(
        *("delete", "/v1/jobs/{id}", "stop_job", "Stop a job; what was measured is kept."),
        *(202, JobView, (404, 409), (_ID,)),
    ),
    _Operation(
        *("post", "/v1/jobs/{id}/resume", "resume_job", "Go on with a job that is over."),
        *(202, JobView, (404, 409), (_ID,)),
    ),
    _Operation(
        *("get", "/v1/jobs/{id}/trials", "list_trials", "The finished trials, by number."),
        *(200, TrialsView, (404,), (_ID,)),
    ),
    _Operation(
        *("get", "/v1/jobs/{id}/trials/{number}", "show_trial", "All that is known of a trial."),
        *(200, TrialDetailView, (404,), (_ID, _NUMBER)),
    ),
    _Operation(
        *("get", "/v1/jobs/{id}/events", "follow_job"),
        "What happens, as server-sent events: state, trial, phase, window, result, round, "
        "confirmed, stopping. Ends when the job is over.",
        200,
        "text/event-stream",
        (400, 404),
        (_ID, _LAST),
    ),
    _Operation(
        *("get", "/v1/jobs/{id}/report", "show_report", "The report, as it is now."),
        *(200, "text/html", (400, 404), (_ID, _FORMAT)),
    ),
    _Operation(
        *("get", "/v1/jobs/{id}/best.tar.gz", "fetch_best", "The files for production."),
        *(200, "application/gzip", (404,), (_ID,)),
    ),
)


@cache
def document() -> dict[str, Any]:
    """The whole document, version 3.1."""
    views = (JobsView, JobView, TrialsView, TrialDetailView, ErrorView)
    modes: list[Any] = [(view, "serialization") for view in views]
    modes.append((StudySpec, "validation"))
    _, schemas = models_json_schema(modes, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "servetune",
            "version": metadata.version("servetune"),
            "description": "Tuning jobs for TorchServe.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _described(operation: _Operation) -> dict[str, Any]:
    if isinstance(operation.answer, str):
        kinds = [operation.answer]
        if operation.name == "show_report":
            kinds.append("text/markdown")
        content: dict[str, Any] = {kind: {"schema": {"type": "string"}} for kind in kinds}
    else:
        content = {"application/json": {"schema": _reference(operation.answer)}}
    answers: dict[str, Any] = {
        str(operation.status): {"description": operation.summary, "content": content}
    }
    refusals = {
        "description": "refused; the body says why",
        "content": {"application/json": {"schema": _reference(ErrorView)}},
    }
    answers |= {str(status): refusals for status in (401, *operation.refusals)}
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": answers,
    }
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.body:
        found["requestBody"] = _body()
    return found


def _body() -> dict[str, Any]:
    spec = _reference(StudySpec)
    parts = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {"type": "string", "description": "the specification, YAML or JSON"},
            "archive": {**_BINARY, "description": "in the place of model.archive"},
            "requests": {**_BINARY, "description": "in the place of model.requests"},
        },
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": spec},
            "application/yaml": {"schema": {"type": "string"}},
            "multipart/form-data": {"schema": parts},
        },
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
