"""Read the measurements.json of a trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from search.errors import RunError, first_line
from search.formats import MEASUREMENTS_VERSION, check_version

_Count = Annotated[int, Field(ge=0, lt=1 << 53)]
_Figure = Annotated[float, Field(allow_inf_nan=False)] | None


class _Schedule(BaseModel):
    rate_rps: _Figure = None


class _Latency(BaseModel):
    p50: _Figure = None
    p99: _Figure = None


class _Server(BaseModel):
    queue_s: _Figure = None
    inference_s: _Figure = None


class _Window(BaseModel):
    """What is read of a window."""

    schedule: _Schedule
    goodput_rps: _Figure
    scheduled: _Count
    succeeded: _Count
    errors: dict[str, _Count]
    latency_s: _Latency
    server: _Server | None


_STRICT = ConfigDict(strict=True)
_SHAPES: dict[str, TypeAdapter[Any]] = {
    "windows": TypeAdapter(list[_Window]),
    "probes": TypeAdapter(list[dict[str, Any]], config=_STRICT),
    "result": TypeAdapter(dict[str, Any], config=_STRICT),
}


def read_measurements(folder: Path, key: Literal["windows", "probes", "result"]) -> Any:
    """Return a part of the measurements in a trial's folder; empty if there is no file.

    Raises:
        RunError: the file is damaged, or has another format version.
    """
    path = folder / "measurements.json"
    if not path.is_file():
        return []
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise TypeError("expected an object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, first_line(error)) from None
    check_version(data, MEASUREMENTS_VERSION, path)
    if key not in data:
        raise _damaged(path, f"it has no {key}")
    try:
        _SHAPES[key].validate_python(data[key], strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in (key, *first["loc"]))
        raise _damaged(path, f"{place}: {first['msg']}") from None
    return data[key]


def _damaged(path: Path, reason: str) -> RunError:
    return RunError(f"{path} is damaged ({reason}); restore the file or remove it")
