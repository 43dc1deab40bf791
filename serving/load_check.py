"""Load a model as a worker of TorchServe does, to learn why the workers could not.

TorchServe before 0.11.0 closes the output of a worker that exits before it has read the traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from serving.archive import MANIFEST, Archive
from serving.archive_files import unpack
from serving.errors import ArchiveError

_LIMIT_S = 60.0
_LOAD = """
import sys
from ts.model_loader import ModelLoaderFactory
name, folder, handler = sys.argv[1:]
ModelLoaderFactory.get_model_loader().load(name, folder, handler, None, 1)
"""


async def load_error(archive: Archive, python: str, environment: Mapping[str, str]) -> str:
    """Return the traceback of a model that does not load; an empty text if it loads.

    Args:
        python: the interpreter of the workers.
        environment: the variables of the server.
    """
    with tempfile.TemporaryDirectory(prefix="servetune-load-") as temporary:
        folder = Path(temporary, "model")
        try:
            unpack(archive.path, folder)
            handler = json.loads((folder / MANIFEST).read_text())["model"]["handler"]
        except (ArchiveError, OSError, ValueError, KeyError, TypeError):
            return ""
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", _LOAD, archive.name, str(folder), handler),
            cwd=temporary,  # No folder of the user is on the path, also before Python 3.11.
            env={**environment, "PYTHONPATH": str(folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, text = await asyncio.wait_for(process.communicate(), _LIMIT_S)
        except TimeoutError:
            return ""
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    if process.returncode == 0:
        return ""
    lines = text.decode(errors="replace").rstrip().splitlines()
    return "\n".join(lines) or f"the worker exits with status {process.returncode}"
