"""The API's OpenAPI document, from the views and a table of operations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from search.service.answers import FiguresView, ParetoView, PlanView
from search.service.views import (
    CheckView,
    DemoView,
    ErrorView,
    JobsView,
    JobView,
    TrialDetailView,
    TrialsView,
)
from search.spec.schema import StudySpec

_SCHEMA_REF = "#/components/schemas/{model}"
_ID_PARAMETER = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[0-9]{8}-[0-9]{6}-[0-9a-f]{6}$"},
}
_NUMBER_PARAMETER = {
    "name": "number",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}
_FORMAT_PARAMETER = {
    "name": "format",
    "in": "query",
    "schema": {"type": "string", "enum": ["html", "md"], "default": "html"},
}
_LAST_EVENT_PARAMETER = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "id of the last event that the client received",
    "schema": {"type": "integer", "minimum": 0},
}


def _query(name: str, schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema}


_POSITIVE = {"type": "number", "exclusiveMinimum": 0}
_PLAN_PARAMETERS = (
    _query("rps", _POSITIVE, required=True),
    _query("p99_s", _POSITIVE),
    _query("headroom", {"type": "number", "minimum": 0, "exclusiveMaximum": 1}),
    _query("price_per_hour", {"type": "number", "minimum": 0}),
    _query("pick", {"type": "string"}),
)
_BINARY = {"type": "string", "contentMediaType": "application/octet-stream"}


@dataclass(frozen=True)
class _Operation:
    """One operation.

    Attributes:
        success: the status, and the model or the content type of the body.
        error_statuses: besides 401, which every operation may return.
    """

    method: str
    path: str
    name: str
    summary: str
    success: tuple[int, type[BaseModel] | str]
    error_statuses: tuple[int, ...] = ()
    parameters: tuple[dict[str, Any], ...] = ()
    body: Literal["submission", "text"] | None = None


_OPERATIONS = (
    _Operation(
        "get",
        "/metrics",
        "show_metrics",
        "Show the metrics of the service in Prometheus's text format.",
        (200, "text/plain"),
    ),
    _Operation(
        "post",
        "/v1/check",
        "check_specification",
        "Check the fields of a specification without its files.",
        (200, CheckView),
        (400, 408, 413, 415, 422, 503),
        body="text",
    ),
    _Operation(
        "post",
        "/v1/demo",
        "build_demo",
        "Build the bundled model, and return a specification of it.",
        (200, DemoView),
        (409,),
    ),
    _Operation(
        "get",
        "/v1/jobs",
        "list_jobs",
        "List all jobs, the newest first.",
        (200, JobsView),
    ),
    _Operation(
        "post",
        "/v1/jobs",
        "submit_job",
        "Check a specification and queue a job.",
        (201, JobView),
        (400, 408, 413, 415, 422, 503, 507),
        body="submission",
    ),
    _Operation(
        "get",
        "/v1/jobs/{id}",
        "show_job",
        "Show a job.",
        (200, JobView),
        (404,),
        (_ID_PARAMETER,),
    ),
    _Operation(
        "delete",
        "/v1/jobs/{id}",
        "stop_job",
        "Stop a job; finished trials are kept.",
        (202, JobView),
        (404, 409),
        (_ID_PARAMETER,),
    ),
    _Operation(
        "post",
        "/v1/jobs/{id}/resume",
        "resume_job",
        "Continue a job that is over.",
        (202, JobView),
        (404, 409),
        (_ID_PARAMETER,),
    ),
    _Operation(
        "get",
        "/v1/jobs/{id}/trials",
        "list_trials",
        "List the finished trials, by number.",
        (200, TrialsView),
        (404,),
        (_ID_PARAMETER,),
    ),
    _Operation(
        "get",
        "/v1/jobs/{id}/trials/{number}",
        "show_trial",
        "Show a trial with its full record and its files.",
        (200, TrialDetailView),
        (404,),
        (_ID_PARAMETER, _NUMBER_PARAMETER),
    ),
    _Operation(
        "get",
        "/v1/jobs/{id}/events",
        "follow_job",
        "Stream the events of a job as server-sent events: state, trial, progress, phase, window, "
        "result, round, confirmed, stopping. The stream ends when the job is over.",
        (200, "text/event-stream"),
        (400, 404),
        (_ID_PARAMETER, _LAST_EVENT_PARAMETER),
    ),
    _Operation(
        "get",
        "/v1/jobs/{id}/figures",
        "show_figures",
        "Show the plots of a job as Plotly JSON.",
        (200, FiguresView),
        (404,),
        (_ID_PARAMETER,),
    ),
    _Operation(
        "get",
        "/v1/jobs/{id}/pareto",
        "show_pareto",
        "Show the configurations by rate, latency, memory and workers.",
        (200, ParetoView),
        (404,),
        (_ID_PARAMETER,),
    ),
    _Operation(
        "get",
        "/v1/jobs/{id}/plan",
        "plan_capacity",
        "Plan replicas, latency, memory and cost for a load.",
        (200, PlanView),
        (404, 422),
        (_ID_PARAMETER, *_PLAN_PARAMETERS),
    ),
    _Operation(
        "get",
        "/v1/jobs/{id}/report",
        "show_report",
        "Download the current report.",
        (200, "text/html"),
        (400, 404),
        (_ID_PARAMETER, _FORMAT_PARAMETER),
    ),
    _Operation(
        "get",
        "/v1/jobs/{id}/best.tar.gz",
        "fetch_best",
        "Download the files for production.",
        (200, "application/gzip"),
        (404, 503),
        (_ID_PARAMETER,),
    ),
)


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    views = (
        *(JobsView, JobView, TrialsView, TrialDetailView, ErrorView),
        *(CheckView, DemoView, FiguresView, ParetoView, PlanView),
    )
    modes: list[Any] = [(view, "serialization") for view in views]
    modes.append((StudySpec, "validation"))
    _, schemas = models_json_schema(modes, ref_template=_SCHEMA_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation)
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


def _describe(operation: _Operation) -> dict[str, Any]:
    status, body = operation.success
    if isinstance(body, str):
        content_types = [body]
        if operation.name == "show_report":
            content_types.append("text/markdown")
        content: dict[str, Any] = {t: {"schema": {"type": "string"}} for t in content_types}
    else:
        content = {"application/json": {"schema": _reference(body)}}
    responses: dict[str, Any] = {
        str(status): {"description": operation.summary, "content": content}
    }
    error_response = {
        "description": "the request was rejected; the body has the reason",
        "content": {"application/json": {"schema": _reference(ErrorView)}},
    }
    responses |= {str(status): error_response for status in (401, *operation.error_statuses)}
    description: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": responses,
    }
    if operation.parameters:
        description["parameters"] = list(operation.parameters)
    if operation.body:
        description["requestBody"] = _body(operation.body == "submission")
    return description


def _body(with_files: bool) -> dict[str, Any]:
    spec = _reference(StudySpec)
    parts = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {"type": "string", "description": "the specification, YAML or JSON"},
            "archive": {**_BINARY, "description": "replaces model.archive"},
            "requests": {**_BINARY, "description": "replaces model.requests"},
        },
    }
    content: dict[str, Any] = {
        "application/json": {"schema": spec},
        "application/yaml": {"schema": {"type": "string"}},
    }
    if with_files:
        content["multipart/form-data"] = {"schema": parts}
    return {"required": True, "content": content}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMA_REF.format(model=model.__name__)}
