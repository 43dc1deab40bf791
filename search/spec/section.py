"""The base of every section of a specification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section of a specification: no unknown keys, no coercion of types, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def optional_section(description: str) -> Any:
    """Return a field for a section that may be missing; it is then validated as an empty one."""
    return Field(default={}, validate_default=True, description=description)


def _expand_user(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError(f"must not contain a NUL character (got {str(path)!r})")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} is in the home of a user who does not exist") from None


#: A path with `~` expanded; search.spec.loading makes it absolute.
UserPath = Annotated[Path, Field(strict=False), AfterValidator(_expand_user)]
