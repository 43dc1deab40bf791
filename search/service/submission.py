"""What may become a job: a specification and files, checked before anything is queued."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from search.errors import SpecError
from search.spec.loading import parse_spec
from search.spec.preflight import preflight
from search.spec.schema import StudySpec

#: Where a specification names files that are read.
_FILES = (
    ("model", "archive"),
    ("model", "requests"),
    ("serving", "baseline"),
    ("search", "warm_start"),
)
#: What is the service's own to choose: programs that are run, places that are written.
_OWN = (("serving", "java"), ("serving", "python"), ("serving", "ports"), ("output",))


def parse(text: bytes) -> dict[str, Any]:
    """A specification as YAML, of which JSON is a part.

    Raises:
        SpecError: it is neither, or no mapping.
    """
    try:
        aliases = [e for e in yaml.parse(text, yaml.SafeLoader) if isinstance(e, yaml.AliasEvent)]
        # Aliases of aliases are small as text and endless as data.
        data = None if aliases else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError([f"not YAML and not JSON: {error}"]) from None
    if aliases:
        raise SpecError(["an alias (*name) is not taken: write the value where it belongs"])
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SpecError(["the body holds no specification: a mapping with `model:` is needed"])
    return data


def accept(
    data: dict[str, Any], uploads: Mapping[str, Path], roots: Sequence[Path]
) -> tuple[dict[str, Any], StudySpec]:
    """Check a whole specification.

    Args:
        data: as it was sent; relative paths count from the first root.
        uploads: files that came along, by "archive" and "requests": they stand where the
            specification names none.
        roots: folders that a path must lie in.

    Returns:
        The specification with whole paths, and as it was understood.

    Raises:
        SpecError: with every problem that was found.
    """
    data = dict(data)
    if uploads:
        model = data.get("model") or {}
        if not isinstance(model, dict):
            raise SpecError([f"model: must be a mapping, got {model!r}"])
        data["model"] = {**model, **{name: str(path) for name, path in uploads.items()}}
    if misplaced := dict(_misplaced(data, uploads, roots)):
        paths = [".".join(place) for place in misplaced]
        rest = {
            name: {k: v for k, v in held.items() if (name, k) not in misplaced}
            if isinstance(held, dict)
            else held
            for name, held in data.items()
            if (name,) not in misplaced
        }
        found = [f"{path}: {why}" for path, why in zip(paths, misplaced.values(), strict=True)]
        try:
            accept(rest, {}, roots)
        except SpecError as error:  # Without what is misplaced; that it is missing is no news.
            found += [text for text in error.problems if not text.startswith(tuple(paths))]
        raise SpecError(found)
    data.setdefault("name", "job")
    for place in _FILES:
        if isinstance(text := _at(data, place), str):
            section = {**data[place[0]], place[1]: str((roots[0] / text).resolve())}
            data[place[0]] = section
    spec = parse_spec(data, roots[0])
    preflight(spec, allow_fixed_space="sweep" in data)
    if problems := list(_stray_payloads(spec.model.requests, roots, uploads)):
        raise SpecError(problems)
    return data, spec


def _misplaced(
    data: Mapping[str, Any], uploads: Mapping[str, Path], roots: Sequence[Path]
) -> Iterator[tuple[tuple[str, ...], str]]:
    for place in _OWN:
        if _at(data, place) is not None:
            yield place, "is the service's own to choose; leave it out"
    for place in _FILES:
        text = _at(data, place)
        uploaded = place[0] == "model" and place[1] in uploads
        if isinstance(text, str) and not uploaded and not _is_inside(roots[0] / text, roots):
            yield place, f"{text!r} does not lie in a folder that the service may read"


def _stray_payloads(
    requests: Path, roots: Sequence[Path], uploads: Mapping[str, Path]
) -> Iterator[str]:
    """Files that requests send, outside the roots."""
    allowed = [requests.parent] if "requests" in uploads else roots
    for number, line in enumerate(requests.read_text().splitlines(), 1):
        name = json.loads(line).get("file") if line.strip() else None
        if isinstance(name, str) and not _is_inside(requests.parent / name, allowed):
            yield (
                f"model.requests: line {number}: {name!r} does not lie in a folder that the "
                "service may read"
            )


def _at(data: Mapping[str, Any], place: Sequence[str]) -> Any:
    found: Any = data
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _is_inside(path: Path, roots: Sequence[Path]) -> bool:
    try:
        whole = path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        return False
    return any(whole.is_relative_to(root) for root in roots)
