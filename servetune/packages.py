"""Check that the packages of servetune are the installed ones.

Their names are generic: a user's own folder `serving/` would shadow one of them if it comes
first on the module search path.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from servetune.errors import InputError

PACKAGES = ("loadgen", "search", "serving")


class ShadowedPackageError(InputError, ImportError):
    """Another package or folder hides one of servetune's."""


@functools.cache
def check_packages() -> None:
    """Check that each package would be imported from beside this one.

    Raises:
        ShadowedPackageError: naming the intruder.
    """
    root = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        places = [
            Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ()
        ]
        found = spec.origin if spec is not None and not places else places[0] if places else None
        if root / name not in places:
            raise ShadowedPackageError(
                f"{found or 'nothing'} hides servetune's package {name}, which is in {root}; "
                "rename it, or start Python with -P or from another folder"
            )
