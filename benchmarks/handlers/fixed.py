"""A handler with a fixed cost per batch: the batch is padded to 64 items."""

from typing import Any

import torch

WEIGHTS = torch.ones(2048, 2048) / 2048


def handle(data: Any, context: Any) -> list[dict[str, Any]] | None:
    if data is None:
        return None
    padded = torch.ones(64, 2048)
    for _ in range(12):
        padded = padded @ WEIGHTS
    return [{"value": float(row[0])} for row in padded[: len(data)]]
