"""A light image classifier: Pillow decodes a JPEG picture, three convolutions classify it."""

import io
from typing import Any

import torch
from PIL import Image

SIDE = 96
torch.manual_seed(0)
MODEL = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3, stride=2),
    torch.nn.ReLU(),
    torch.nn.Conv2d(16, 32, 3, stride=2),
    torch.nn.ReLU(),
    torch.nn.Conv2d(32, 64, 3, stride=2),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(64, 10),
).eval()


def decode(picture: bytes) -> torch.Tensor:
    """Return a picture as (3, SIDE, SIDE) floats from 0 to 1."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").resize((SIDE, SIDE))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.reshape(SIDE, SIDE, 3).permute(2, 0, 1).float() / 255


def handle(data: Any, context: Any) -> list[dict[str, Any]] | None:
    if data is None:
        return None
    pictures = torch.stack([decode(row.get("body") or row["data"]) for row in data])
    with torch.inference_mode():
        scores = MODEL(pictures).softmax(dim=1)
    return [{"class": int(row.argmax()), "score": float(row.max())} for row in scores]
