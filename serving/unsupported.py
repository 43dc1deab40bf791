"""Deployments that servetune cannot measure, found before a server starts."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from serving.archive import MANIFEST, Archive
from serving.archive_files import open_archive

_SUPPORTED = "servetune measures whole answers to HTTP requests"
_STREAMING = b"send_intermediate_predict_response"


def find_streaming_handler(archive: Archive) -> str | None:
    """Return why the archive's answers cannot be measured, one sentence; None if they can.

    A handler that streams sends a part of an answer after another, and no whole answer.
    """
    with open_archive(archive.path) as read:
        manifest: Any = json.loads(read(MANIFEST))
        handler = str(manifest["model"]["handler"]).partition(":")[0]
        file = next((file for file, code in _modules(handler, read) if _STREAMING in code), None)
    if file is None:
        return None
    return (
        f"{file} streams its answers ({_STREAMING.decode()}), which is not supported: {_SUPPORTED}"
    )


def _modules(handler: str, read: Callable[[str], bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the handler's file and those that it imports from the archive, without comments."""
    files = [handler]
    for file in files:
        try:
            source = read(file)
        except KeyError:  # A handler of TorchServe's, such as image_classifier, or a library.
            continue
        code = b"\n".join(line.partition(b"#")[0] for line in source.splitlines())
        yield file, code
        imported = [name.replace(".", "/") for name in _imported(source, file)]
        found = [f"{name}{end}" for name in imported for end in (".py", "/__init__.py")]
        files += [each for each in dict.fromkeys(found) if each not in files]


def _imported(source: bytes, file: str) -> Iterator[str]:
    """Yield the names of modules that a file may import; none if it is not valid Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folders = PurePosixPath(file).parts[: -node.level] if node.level else ()
            module = ".".join((*folders, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names)
            if module:
                yield module


def find_grpc_only(environment: Mapping[str, str]) -> str | None:
    """Return why a deployment for gRPC alone cannot be measured; None if it serves HTTP.

    KServe's container reads PROTOCOL_VERSION: with grpc-v1 or grpc-v2 it serves nothing else.
    """
    protocol = environment.get("PROTOCOL_VERSION", "")
    if not protocol.lower().startswith("grpc"):
        return None
    return (
        f"PROTOCOL_VERSION is {protocol}: a deployment for gRPC alone is not supported; "
        f"{_SUPPORTED}; set v1 or v2 to tune the same model over HTTP"
    )
