"""Deployments that servetune cannot measure, found before a server starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
        try:
            source = read(handler)
        except KeyError:  # A handler of TorchServe's, such as image_classifier.
            return None
    code = b"\n".join(line.partition(b"#")[0] for line in source.splitlines())
    if _STREAMING not in code:
        return None
    return (
        f"{handler} streams its answers ({_STREAMING.decode()}), which is not supported: "
        f"{_SUPPORTED}"
    )


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
