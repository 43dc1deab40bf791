"""A handler that calls a slow HTTP service for every request, up to eight at once."""

import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CALLS = ThreadPoolExecutor(8)
TIMEOUT_S = 20.0


def call(row: Any) -> dict[str, Any]:
    body = json.dumps(row.get("body") or row["data"], default=str).encode()
    request = urllib.request.Request(os.environ["SERVICE_URL"], body, method="POST")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return {"answer": len(response.read())}


def handle(data: Any, context: Any) -> list[dict[str, Any]] | None:
    if data is None:
        return None
    return list(CALLS.map(call, data))
