"""A handler that waits for another service: a call a batch, and a little for each item."""

import time
from typing import Any


def handle(data: Any, context: Any) -> list[dict[str, Any]] | None:
    if data is None:
        return None
    time.sleep(0.08 + 0.004 * len(data))
    return [{"ok": True} for _ in data]
