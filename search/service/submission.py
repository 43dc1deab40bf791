"""Check a submitted specification and its files before a job is queued."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from search.errors import SpecError, SpecProblem
from search.service.file_checks import (
    MAX_RESULTS_BYTES,
    MAX_TEXT_BYTES,
    OUTSIDE,
    FileChecks,
    FileProblem,
)
from search.sinks.hosts import is_allowed
from search.spec.config_file import ENVIRONMENT, key_folders
from search.spec.loading import parse_spec, problems_of
from search.spec.other_models import ModelRefused
from search.spec.preflight import preflight
from search.spec.schema import StudySpec
from search.spec.serving_section import BaselineSection
from search.spec.yaml_text import parse_yaml
from servetune.errors import InputError
from serving.errors import PathRefused
from serving.platforms.files import checking_paths
from serving.safe_yaml import LimitError

#: The keys that lead to an entry of nested data.
Keys = tuple[str | int, ...]

#: Paths of a specification that name files to read; `named_files` has those of other models too.
_FILE_PATHS = (
    "model.archive",
    "model.requests",
    "serving.baseline",
    "serving.baseline.properties",
    "serving.baseline.environment",
    "serving.baseline.secrets",
    "serving.baseline.original",
    "search.warm_start",
)
#: Paths that only the service sets: programs to run, and places to write to.
_RESERVED_PATHS = (
    "serving.java",
    "serving.python",
    "serving.ports",
    "output.folder",
    "output.storage",
)
_BASELINE = "serving.baseline"
#: The maximum size of an archive that is named, not uploaded.
_MAX_ARCHIVE_BYTES = 1 << 40


def parse(text: bytes) -> dict[str, Any]:
    """Parse a specification in YAML, or in its subset JSON.

    Raises:
        SpecError: the text is neither, is not a mapping, or contains an alias.
    """
    try:
        data = parse_yaml(text, allow_aliases=False)
    except LimitError as error:
        raise SpecError([str(error.problem)]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError([f"the specification is neither YAML nor JSON: {error}"]) from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SpecError(["the specification must be a mapping with `model:`"])
    return data


def accept(
    data: Mapping[str, Any],
    uploads: Mapping[str, Path],
    roots: Sequence[Path],
    hosts: Collection[str] = (),
) -> tuple[dict[str, Any], StudySpec]:
    """Check a submitted specification.

    Args:
        data: the parsed specification; relative paths start at the first root.
        uploads: uploaded files by "archive" and "requests"; they override the paths in `data`.
        roots: folders that the specification's paths must be inside.
        hosts: names of hosts, beside the loopback, that results may be sent to.

    Returns:
        The specification with absolute paths, as data and as parsed.

    Raises:
        SpecError: with every problem.
    """
    accepted: dict[str, Any] = _with_uploads(data, uploads)
    checks = FileChecks(tuple(root.resolve() for root in roots))
    if misplaced := list(_misplaced(accepted, uploads, roots[0], checks)):
        paths = [problem.path for problem in misplaced]
        raise SpecError([*misplaced, *_other_problems(accepted, paths, roots, hosts)])
    accepted.setdefault("name", "job")
    for keys, file in named_files(accepted):
        accepted = with_value(accepted, keys, str((roots[0] / file).resolve()))
    try:
        spec = parse_spec(accepted, roots[0])
        # Nothing is read before it is checked.
        if problems := [*_file_problems(spec, uploads, checks), *_host_problems(spec, hosts)]:
            raise SpecError(problems)
        # A model store that is not in reach is absent for it too.
        with _in_reach(spec, uploads, checks):
            preflight(spec, allow_fixed_space="sweep" in accepted)
    except (RecursionError, OverflowError) as error:
        raise SpecError([f"a value is nested too deeply or too large: {error}"]) from None
    return accepted, spec


def check_fields(data: Mapping[str, Any], root: Path) -> list[SpecProblem]:
    """Return the problems of a submitted specification's fields; no path is looked for.

    Args:
        root: the folder that relative paths start at.
    """
    checked: dict[str, Any] = {"name": "job", **data}
    for keys, file in [*named_files(checked), *_output_folder(checked)]:
        # Not at its start, `~` names no user, whose existence an answer would reveal.
        checked = with_value(checked, keys, str(root / file))
    try:
        StudySpec.model_validate(checked)
    except ValidationError as error:
        return problems_of(error)
    except SpecError as error:
        return error.records
    return []


def _output_folder(data: Mapping[str, Any]) -> list[tuple[Keys, str]]:
    keys = ("output", "folder")
    folder = value_at(data, keys)
    return [(keys, folder)] if isinstance(folder, str) else []


def _with_uploads(data: Mapping[str, Any], uploads: Mapping[str, Path]) -> dict[str, Any]:
    if not uploads:
        return dict(data)
    model = data.get("model") or {}
    if not isinstance(model, dict):
        raise SpecError([SpecProblem("model", f"must be a mapping (got {model!r})")])
    return {**data, "model": {**model, **{name: str(path) for name, path in uploads.items()}}}


def _other_problems(
    data: Mapping[str, Any],
    misplaced: Sequence[str],
    roots: Sequence[Path],
    hosts: Collection[str],
) -> list[SpecProblem]:
    """Return the problems of a specification without the misplaced entries."""
    # The files of a baseline belong together.
    removed = [_BASELINE if p.startswith(f"{_BASELINE}.") else p for p in misplaced]
    try:
        accept(_without(data, removed), {}, roots, hosts)
    except SpecError as error:
        # A misplaced entry was removed above: do not report it as missing.
        return [p for p in error.records if not any(_concerns(p, path) for path in removed)]
    return []


def _without(data: Any, paths: Sequence[str], prefix: str = "") -> Any:
    """Return a copy of nested data without the entries at these paths."""
    if isinstance(data, list):
        return [_without(entry, paths, f"{prefix}{i}.") for i, entry in enumerate(data)]
    if not isinstance(data, Mapping):
        return data
    return {
        key: _without(entry, paths, f"{prefix}{key}.")
        for key, entry in data.items()
        if f"{prefix}{key}" not in paths
    }


def _concerns(problem: SpecProblem, path: str) -> bool:
    """Return whether a problem is at a path, below it, or at the mapping that holds it."""
    return problem.is_inside(path) or ("." in problem.path and path.startswith(f"{problem.path}."))


def _misplaced(
    data: Mapping[str, Any], uploads: Mapping[str, Path], base: Path, checks: FileChecks
) -> Iterator[SpecProblem]:
    for path in _RESERVED_PATHS:
        if value_at(data, path.split(".")) is not None:
            yield SpecProblem(path, "is set by the service; remove it")
    uploaded = {f"model.{name}" for name in uploads}
    for keys, file in named_files(data):
        path = ".".join(map(str, keys))
        if path not in uploaded and not checks.is_inside(base / file):
            yield SpecProblem(path, f"{file!r} {OUTSIDE}")


def _file_problems(
    spec: StudySpec, uploads: Mapping[str, Path], checks: FileChecks
) -> Iterator[SpecProblem]:
    """Yield what is wrong with the files of a specification."""
    requests, baseline = spec.model.requests, spec.serving.baseline
    payloads = FileChecks((requests.parent,)) if "requests" in uploads else checks
    try:
        path = "model.archive"
        checks.check_archive(spec.model.archive, _MAX_ARCHIVE_BYTES)
        path = "model.requests"
        checks.check_requests(requests, payloads)
        if baseline is not None:
            path = "serving.baseline"
            _check_baseline(spec, baseline, checks)
        if (run := spec.search.warm_start) is not None:
            path = "search.warm_start"
            checks.check_file(run / "spec.yaml", MAX_TEXT_BYTES)
            checks.check_file(run / "trials.jsonl", MAX_RESULTS_BYTES)
        for name, file in spec.load.requests.items():
            path = f"load.requests.{name}"
            checks.check_requests(file, checks)
        for index, each in enumerate(spec.load.background):
            path = f"load.background.{index}.requests"
            checks.check_requests(each.requests, checks)
        path = "serving.baseline"
        with suppress(InputError), _in_reach(spec, uploads, checks):  # Preflight reports it.
            spec.in_use()
    except ModelRefused as problem:
        yield SpecProblem(problem.field, str(problem))
    except PathRefused as problem:
        yield SpecProblem(path, str(problem))


def _in_reach(
    spec: StudySpec, uploads: Mapping[str, Path], checks: FileChecks
) -> AbstractContextManager[None]:
    """Check each path of a deployment, and of its models, before it is looked for."""
    # Only an upload may be outside of the folders; other models may be beside it.
    uploaded = [spec.model.archive.parent] if "archive" in uploads else []
    reach = FileChecks((*checks.roots, *uploaded))
    return checking_paths(
        lambda file: reach.check_file(file, MAX_TEXT_BYTES),
        lambda file: reach.check_archive(file, _MAX_ARCHIVE_BYTES),
    )


def _check_baseline(spec: StudySpec, baseline: BaselineSection, checks: FileChecks) -> None:
    """Check the files of a baseline, and those that they name in turn."""
    for file in baseline.files():
        checks.check_tree(file, MAX_TEXT_BYTES)
    if baseline.properties is not None and not baseline.properties.is_dir():
        # Also if it does not exist: a link may lead to a file outside.
        checks.check_file(baseline.properties.with_name(ENVIRONMENT), MAX_TEXT_BYTES)
    try:
        with checking_paths(lambda file: checks.check_file(file, MAX_TEXT_BYTES)):
            key_pair = spec.tuned_in_use().key_pair
    except InputError:
        return  # Preflight reports it.
    if key_pair is None:
        return
    for key, files in key_pair.candidates(key_folders(baseline.properties)).items():
        # A relative path may also lead to a file in the working folder of the service.
        if not all(map(checks.is_inside, files)):
            raise FileProblem(f"its {key} {OUTSIDE}; write an absolute path inside them")
        for file in files:
            checks.check_file(file, MAX_TEXT_BYTES)


def _host_problems(spec: StudySpec, hosts: Collection[str]) -> Iterator[SpecProblem]:
    """Yield the URLs whose host the service may not send anything to."""
    urls = {f"notify.{index}.url": hook.url for index, hook in enumerate(spec.notify)}
    if spec.output.mlflow is not None:
        urls["output.mlflow"] = spec.output.mlflow
    for path, url in urls.items():
        if not is_allowed(url, hosts):
            yield SpecProblem(
                path,
                "its host is not allowed; start the service with --allow-host HOST, or use another",
            )


def named_files(data: Mapping[str, Any]) -> list[tuple[Keys, str]]:
    """Return the files that a specification names, each with the keys that lead to it."""
    paths: list[Keys] = [tuple(path.split(".")) for path in _FILE_PATHS]
    for section in (("serving", "models"), ("load", "requests")):
        entries = value_at(data, section)
        paths += [(*section, name) for name in (entries if isinstance(entries, Mapping) else ())]
    background = value_at(data, ("load", "background"))
    for index in range(len(background) if isinstance(background, list) else 0):
        paths.append(("load", "background", index, "requests"))
    found = [(keys, value_at(data, keys)) for keys in paths]
    return [(keys, file) for keys, file in found if isinstance(file, str)]


def value_at(data: Any, keys: Sequence[str | int]) -> Any:
    """Return the value that keys of nested data lead to; None if there is none."""
    for key in keys:
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int):
            data = data[key] if key < len(data) else None
        else:
            return None
    return data


def with_value(data: Any, keys: Sequence[str | int], value: Any) -> Any:
    """Return a copy of nested data with another value where keys lead to; it must exist."""
    if not keys:
        return value
    key, *rest = keys
    inner = with_value(data[key], rest, value)
    if isinstance(data, list):
        return [inner if index == key else entry for index, entry in enumerate(data)]
    return {**data, key: inner}
