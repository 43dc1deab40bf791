"""A tokenizer for tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class OneTokenPerWord:
    """A tokenizer that makes one token of each word, for the build and for the handler."""

    def encode(self, text: str) -> Any:
        return SimpleNamespace(ids=text.split())

    def __call__(self, prompts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        lengths = [len(prompt.split()) for prompt in prompts]
        width = max(lengths)
        masks = [[0] * (width - length) + [1] * length for length in lengths]
        return {"input_ids": [[7] * width for _ in prompts], "attention_mask": masks}
