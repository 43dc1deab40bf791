"""Read and validate a specification; every problem is one sentence with its path. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from search.errors import SpecError
from search.spec.schema import StudySpec
from search.spec.settings import FORM_TAGS, RangeSection

#: A commented specification for the user's own model.
STARTER_PATH = Path(__file__).with_name("starter.yaml")


def load_spec(path: Path | str) -> StudySpec:
    """Read and validate a specification; nothing but this file is read.

    Args:
        path: the YAML file; relative paths in it start at its folder.

    Raises:
        SpecError: with every problem.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SpecError([f"{path} cannot be read: {error.strerror}"]) from None
    except (yaml.YAMLError, ValueError) as error:  # An impossible date is a ValueError.
        mark = getattr(error, "problem_mark", None)
        at = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError([f"{path} is not YAML{at}: {getattr(error, 'problem', error)}"]) from None
    if not isinstance(data, dict):
        raise SpecError([f"{path} holds no specification: a mapping with `model:` is needed"])
    data.setdefault("name", path.stem)
    return parse_spec(data, path.resolve().parent)


def parse_spec(data: Mapping[str, Any], folder: Path) -> StudySpec:
    """Validate a specification that was read.

    Args:
        data: the plain data.
        folder: relative paths start here.

    Raises:
        SpecError: with every problem.
    """
    try:
        spec = StudySpec.model_validate(data)
    except ValidationError as error:
        raise SpecError(list(dict.fromkeys(_sentences(error)))) from None
    return _with_absolute_paths(spec, folder)


def _with_absolute_paths(spec: StudySpec, folder: Path) -> StudySpec:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else (folder / path).resolve()

    model, serving, search = spec.model, spec.serving, spec.search
    return spec.model_copy(
        update={
            "model": model.model_copy(
                update={
                    "archive": absolute(model.archive),
                    "requests": absolute(model.requests),
                }
            ),
            "serving": serving.model_copy(update={"baseline": absolute(serving.baseline)}),
            "search": search.model_copy(update={"warm_start": absolute(search.warm_start)}),
        }
    )


_BOUNDS = {
    "greater_than_equal": ("≥", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("≤", "le"),
    "less_than": ("<", "lt"),
}
_TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "path_type": "a path",
    "finite_number": "a finite number",
}


def _sentences(error: ValidationError) -> list[str]:
    """Return one sentence for each problem, with its path in the file."""
    sentences = []
    for item in error.errors():
        kind, value, context = item["type"], item["input"], item.get("ctx", {})
        path = ".".join(str(part) for part in item["loc"] if part not in FORM_TAGS)
        if isinstance(inner := context.get("error"), SpecError):
            sentences += [f"{path}.{problem}" for problem in inner.problems]
            continue
        if kind in _BOUNDS:
            sign, key = _BOUNDS[kind]
            what = f"must be {sign} {context[key]}, got {value!r}"
        elif kind == "extra_forbidden":
            what = f"unknown key; {_known_keys(item['loc'])}"
        elif kind == "missing":
            what = "is missing"
        elif kind in _TYPES:
            what = f"must be {_TYPES[kind]}, got {value!r}"
        elif kind == "literal_error":
            what = f"must be {context['expected']}, got {value!r}"
        elif kind == "too_short":
            what = "is empty"
        else:
            what = item["msg"].removeprefix("Value error, ")
        sentences.append(f"{path}: {what}")
    return sentences


def _known_keys(loc: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = StudySpec
    for part in loc[:-1]:
        field = section.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            section = RangeSection
            break
        section = field.annotation
    return f"known keys are {', '.join(section.model_fields)}"
