"""Read and validate a specification. Each problem is one sentence with its path in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from search.errors import SpecError, SpecProblem
from search.spec.schema import StudySpec
from search.spec.section import Section
from search.spec.settings import FORM_TAGS
from search.spec.yaml_text import parse_yaml

#: A commented specification for the user's own model.
STARTER_PATH = Path(__file__).with_name("starter.yaml")


def load_spec(path: Path | str) -> StudySpec:
    """Read and validate a specification; the files that it names are not read.

    Args:
        path: the YAML file. Relative paths in it are relative to its folder.

    Raises:
        SpecError: with every problem.
    """
    path = Path(path)
    try:
        data = parse_yaml(path.read_text())
    except OSError as error:
        raise SpecError([f"{path} cannot be read: {error.strerror}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", error)
        raise SpecError([f"{path} is not valid YAML{at}: {problem}"]) from None
    if not isinstance(data, dict):
        raise SpecError([f"{path} is not a specification; it must be a mapping with `model:`"])
    data.setdefault("name", path.stem)
    return parse_spec(data, path.resolve().parent)


def parse_spec(data: Mapping[str, Any], folder: Path) -> StudySpec:
    """Validate the data of a specification.

    Args:
        data: plain data, as read from YAML or JSON.
        folder: the folder that relative paths are relative to.

    Raises:
        SpecError: with every problem.
    """
    try:
        spec = StudySpec.model_validate(data)
    except ValidationError as error:
        raise SpecError(problems_of(error)) from None
    return _with_absolute_paths(spec, folder)


def _with_absolute_paths(spec: StudySpec, folder: Path) -> StudySpec:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else (folder / path).resolve()

    model, serving, load, search = spec.model, spec.serving, spec.load, spec.search
    baseline = serving.baseline
    if baseline is not None:
        files = {name: absolute(getattr(baseline, name)) for name in type(baseline).model_fields}
        baseline = baseline.model_copy(update=files)
    return spec.model_copy(
        update={
            "model": model.model_copy(
                update={
                    "archive": absolute(model.archive),
                    "requests": absolute(model.requests),
                }
            ),
            "serving": serving.model_copy(
                update={
                    "baseline": baseline,
                    "models": {name: absolute(path) for name, path in serving.models.items()},
                }
            ),
            "load": load.model_copy(
                update={
                    "requests": {name: absolute(path) for name, path in load.requests.items()},
                    "background": [
                        each.model_copy(update={"requests": absolute(each.requests)})
                        for each in load.background
                    ],
                }
            ),
            "search": search.model_copy(update={"warm_start": absolute(search.warm_start)}),
        }
    )


_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
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


#: Paths of URLs, which may be secrets or have a password: a message does not quote them.
_SECRET_PATH = re.compile(r"notify|output\.(storage|mlflow)")


def problems_of(error: ValidationError, model: type[BaseModel] = StudySpec) -> list[SpecProblem]:
    """Return each problem once, with its path.

    Args:
        model: what was validated.
    """
    return list(dict.fromkeys(_problems(error, model)))


def _problems(error: ValidationError, model: type[BaseModel]) -> list[SpecProblem]:
    problems = []
    for item in error.errors():
        kind, value, context = item["type"], item["input"], item.get("ctx", {})
        path = ".".join(str(part) for part in item["loc"] if part not in FORM_TAGS)
        if isinstance(inner := context.get("error"), SpecError):
            at = f"{path}." if path else ""
            problems += [SpecProblem(f"{at}{r.path}", r.message) for r in inner.records]
            continue
        got = "" if _SECRET_PATH.match(path) else f" (got {value!r})"
        if kind in _BOUNDS:
            sign, key = _BOUNDS[kind]
            problem = f"must be {sign} {context[key]}{got}"
        elif kind == "extra_forbidden":
            problem = f"unknown key; known keys are {', '.join(_known_keys(item['loc'], model))}"
        elif kind == "missing":
            problem = "is missing"
        elif kind in _TYPES:
            problem = f"must be {_TYPES[kind]}{got}"
        elif kind == "literal_error":
            problem = f"must be {context['expected']}{got}"
        elif kind == "too_short":
            problem = "is empty"
        else:
            problem = item["msg"].removeprefix("Value error, ")
        problems.append(SpecProblem(path, problem))
    return problems


def _known_keys(loc: tuple[int | str, ...], model: type[BaseModel]) -> dict[str, None]:
    """Return the keys of the section that an unknown key is in, in their order."""
    sections = [model]
    for part in loc[:-1]:
        fields = [s.model_fields[part] for s in sections if part in s.model_fields]
        if fields:
            sections = [inner for field in fields for inner in _sections(field.annotation)]
        elif tagged := [s for s in sections if _kind(s) == part]:
            sections = tagged
    return dict.fromkeys(key for section in sections for key in section.model_fields)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """Yield the sections in the type of a field, for example in a list or a union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _kind(section: type[BaseModel]) -> str | None:
    """Return the kind of a load of a sweep; None for another section."""
    field = section.model_fields.get("kind")
    return get_args(field.annotation)[0] if field else None
