"""Generate the reference pages from the code, as an MkDocs hook.

A line `<!-- generated: NAME -->` in a page is replaced with the output of GENERATORS[NAME].
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

log = logging.getLogger("mkdocs.hooks.servetune")

MARKER = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page."""
    return MARKER.sub(lambda match: GENERATORS[match[1]](), markdown)


# The specification ------------------------------------------------------------------------


def specification() -> str:
    """Return one table for each section of a specification.

    A field without a description is a warning; with `--strict`, the build fails.
    """
    from search.spec.schema import StudySpec

    schema = StudySpec.model_json_schema()
    parts = ["### Top level", _field_table("", schema, schema)]
    for path, section in _sections(schema, schema):
        text = section.get("description", "").partition("\n\n")[0]
        parts += [f"### `{path}`", " ".join(text.split())]
        if table := _field_table(path, section, schema):
            parts.append(table)
    return "\n\n".join(parts)


def _sections(section: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each nested section with its path; list items have the path `section.list[]`,
    entries of a mapping `section.mapping.NAME`.
    """
    for name, field in section["properties"].items():
        for suffix, found in _models(field, schema):
            yield f"{name}{suffix}", found
            for path, inner in _sections(found, schema):
                yield f"{name}{suffix}.{path}", inner


def _models(field: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the sections that a field consists of; a range of a setting is none."""
    entries = field.get("additionalProperties")
    if isinstance(entries, dict) and "$ref" in entries:
        yield ".NAME", _resolve(entries, schema)
    field = field.get("items", field)
    is_list = "items" in field or field.get("type") == "array"
    options = field.get("oneOf") or field.get("anyOf") or [field]
    for option in options:
        if (item := option.get("items", option)) is not option:
            is_list = True
        if "$ref" in item and not item["$ref"].endswith(("/RangeSection", "/PointSection")):
            found = _resolve(item, schema)
            kind = found["properties"].get("kind", {}).get("const")
            yield (f"[{kind}]" if kind else "[]" if is_list else ""), found


def _resolve(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in field:
        return field
    found: dict[str, Any] = schema["$defs"][field["$ref"].rpartition("/")[2]]
    return found


def _field_table(path: str, section: dict[str, Any], schema: dict[str, Any]) -> str:
    rows = []
    required = section.get("required", [])
    for name, field in section["properties"].items():
        if "const" in field:  # The `kind` of a load is in the heading.
            continue
        # pydantic omits the description of a section's field if it equals the section's docstring.
        text = field.get("description") or _resolve(field, schema).get("description", "")
        if not text:
            log.warning("The schema does not describe %s", f"{path}.{name}" if path else name)
        default = "required" if name in required else _default(field)
        kind = _type(field, schema).removesuffix(" or null")
        rows.append((f"`{name}`", kind, default, " ".join(text.split())))
    return _table(("Field", "Type", "Default", "Description"), rows) if rows else ""


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    if value is None or value == {}:
        return "–"
    return f"`{json.dumps(value)}`"


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_NATURAL_LIMIT = 2**31


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a type with its bounds, for example `integer ≥ 1`."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return {"PointSection": "point"}.get(name, "section")
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if options := field.get("oneOf") or field.get("anyOf"):
        if any(option.get("$ref", "").endswith("/RangeSection") for option in options):
            return "setting"
        names = list(dict.fromkeys(_type(option, schema) for option in options))
        return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]
    kind = field.get("type")
    if kind == "array":
        return f"list of {_type(field.get('items', {}), schema)}"
    if kind == "object":
        return "mapping"
    if kind == "string":
        return "path" if field.get("format") in ("path", "file-path") else "string"
    if kind is None:
        return "scalar"
    bounds = [
        f"{sign} {field[key]:g}"
        for key, sign in _BOUNDS.items()
        if key in field and field[key] != _NATURAL_LIMIT
    ]
    return " ".join([kind, ", ".join(bounds)]).strip()


# The command line -------------------------------------------------------------------------


def commands() -> str:
    """Return one section for each command, in the order of `servetune --help`."""
    import typer.main

    from search.cli.main import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("servetune", [], resilient_parsing=True)
    hints = {
        each.name or each.callback.__name__: get_type_hints(each.callback)
        for each in app.registered_commands
        if each.callback
    }
    parts = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        params = [p for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
        words = [_usage(param) for param in params]
        has_options = any(not _is_argument(param) for param in params)
        options = ["[OPTIONS]"] if has_options else []
        usage = " ".join(["servetune", name, *options, *(word for word in words if word)])
        parts += [f"### {name}", *_paragraphs(command.help or ""), f"```text\n{usage}\n```"]
        rows = [
            (_param_name(p), _param_type(p, hints[name][p.name]), _param_default(p), _param_help(p))
            for p in params
        ]
        if rows:
            head = ("Argument or option", "Type", "Default", "Description")
            parts.append(_table(head, rows))
    return "\n\n".join(parts)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.replace("\b", "").split("\n\n")]


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper()).strip("[]")


def _usage(param: Any) -> str:
    if not _is_argument(param):
        return "" if not param.required else f"{param.opts[0]} {_metavar(param)}"
    return _metavar(param) if param.required else f"[{_metavar(param)}]"


def _param_name(param: Any) -> str:
    return f"`{_metavar(param)}`" if _is_argument(param) else f"`{', '.join(param.opts)}`"


_TYPE_NAMES = {int: "integer", float: "number", str: "string", Path: "path"}


def _param_type(param: Any, annotation: Any) -> str:
    """Return the type of a parameter by its annotation, with its bounds."""
    types = [each for each in get_args(annotation) or (annotation,) if each is not NoneType]
    lists = [each for each in (annotation, *types) if get_origin(each) is list]
    base = get_args(lists[0])[0] if lists else types[0]
    if base is bool:
        return "flag"
    # Older versions of Typer keep the bounds in click's parameter type.
    holder = param if hasattr(param, "min") else param.type
    low, high = getattr(holder, "min", None), getattr(holder, "max", None)
    bounds = [f"≥ {low:g}"] if low is not None else []
    bounds += [f"≤ {high:g}"] if high is not None else []
    name = " ".join([_TYPE_NAMES.get(base, "string"), ", ".join(bounds)]).strip()
    return f"{name}, repeatable" if lists else name


def _param_default(param: Any) -> str:
    if param.required:
        return "required"
    value = param.default
    if getattr(param, "is_flag", False) or value is None or value == [] or callable(value):
        return "–"
    return f"`{value}`"


def _param_help(param: Any) -> str:
    text = " ".join((param.help or "").split())
    variable = param.envvar
    return f"{text} Environment variable: `{variable}`." if variable else text


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


GENERATORS = {"specification": cache(specification), "commands": cache(commands)}
