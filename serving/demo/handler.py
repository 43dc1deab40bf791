"""A TorchServe handler for a CodeGen model, packed into the model's archive.

It stands alone there, so it imports nothing of the package it lies in here. What sets the two
variants apart is data: `variant.json`, beside it in the archive, holds the options of the
tokeniser and of `generate` of both, and which one is the archive's; the environment variable
CODEGEN_VARIANT names the other. TorchServe picks the handler by taking the only class in this file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: Token ids and attention masks, a row per prompt, all rows of one width.
Batch = tuple[list[list[int]], list[list[int]]]


def read_prompt(request: dict[str, Any], content_type: str) -> str:
    """The prompt of one request: a JSON object's "prompt", or the whole of a text body.

    TorchServe hands over a JSON body as the object and one that it could not read as bytes.

    Raises:
        ValueError: there is no prompt in it; the message tells the client why.
    """
    body = request.get("body", request.get("data"))
    try:
        if isinstance(body, (bytes, bytearray)):
            body = body.decode("utf-8")
            if content_type.startswith("application/json"):
                body = json.loads(body)
        if isinstance(body, dict):
            body = body.get("prompt")
        if not isinstance(body, str):
            raise ValueError('the body must be text or a JSON object like {"prompt": "def f(x):"}')
        # JSON can spell half a character, on which the tokeniser would fail the whole batch.
        body.encode("utf-8")
    except UnicodeError:
        raise ValueError("the prompt is not valid UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not valid JSON: {error}") from None
    if not body:
        raise ValueError("the prompt is empty")
    return body


class CodeGenHandler:
    """Answers each request of a batch with one completion, or with its own error."""

    def initialize(self, context: Any) -> None:
        """Load tokeniser and model from the unpacked archive, once per worker."""
        # Read by the libraries when they are imported, so set before that. The tokeniser's own
        # thread pool would ignore OMP_NUM_THREADS, the number of threads a worker may use.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch
        from transformers import CodeGenForCausalLM, PreTrainedTokenizerFast
        from transformers.utils import logging

        # TorchServe logs every line on stderr as a warning.
        logging.disable_progress_bar()
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        gpu_id = properties.get("gpu_id")
        on_gpu = gpu_id is not None and torch.cuda.is_available()
        self.device = torch.device("cuda", int(gpu_id)) if on_gpu else torch.device("cpu")
        described = json.loads((folder / "variant.json").read_text("utf-8"))
        variant = described["variants"][os.environ.get("CODEGEN_VARIANT") or described["name"]]
        self.encode_options: dict[str, Any] = variant["tokenize"]
        self.generate_options: dict[str, Any] = variant["generate"]
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.model = CodeGenForCausalLM.from_pretrained(folder).eval().to(self.device)

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[dict[str, str]]:
        """One JSON object per request, in their order: a completion, or the error of a 400."""
        prompts, problems = self.preprocess(requests, context)
        batch, too_long = self.encode(prompts)
        completions = self.inference(*batch) if batch else []
        answered = (index for index in prompts if index not in too_long)
        answers = {i: {"completion": text} for i, text in zip(answered, completions, strict=True)}
        for index, problem in (problems | too_long).items():
            context.set_response_status(400, "Bad Request", index)
            answers[index] = {"error": problem}
        for index in answers:
            context.set_response_content_type(index, "application/json")
        return [answers[index] for index in range(len(requests))]

    def preprocess(
        self, requests: list[dict[str, Any]], context: Any
    ) -> tuple[dict[int, str], dict[int, str]]:
        """The prompts that could be read and, for the other requests, why not; by index."""
        prompts: dict[int, str] = {}
        problems: dict[int, str] = {}
        for index, request in enumerate(requests):
            # TorchServe files the headers of the body under its name, among those of the request,
            # where a header of that name would hide them.
            part = context.get_request_header(index, "body" if "body" in request else "data")
            content_type = part.get("content-type", "") if isinstance(part, dict) else ""
            try:
                prompts[index] = read_prompt(request, content_type)
            except ValueError as error:
                problems[index] = str(error)
        return prompts, problems

    def encode(self, prompts: dict[int, str]) -> tuple[Batch | None, dict[int, str]]:
        """The batch to complete, if any, and why the other prompts cannot be; by index.

        A prompt that leaves no room for a new token makes `generate` fail, and the whole batch
        with it, so the others are encoded again without it.
        """
        if not prompts:
            return None, {}
        encoded = self.tokenizer(list(prompts.values()), **self.encode_options)
        ids, masks = encoded["input_ids"], encoded["attention_mask"]
        limit = self.generate_options["max_length"]
        if len(ids[0]) < limit:
            return (ids, masks), {}
        too_long = {
            index: f"the prompt has {sum(mask)} tokens, more than the {limit - 1} that fit"
            for index, mask in zip(prompts, masks, strict=True)
            if sum(mask) >= limit
        }
        batch, _ = self.encode({i: text for i, text in prompts.items() if i not in too_long})
        return batch, too_long

    def inference(self, ids: list[list[int]], masks: list[list[int]]) -> list[str]:
        """What the model adds to each prompt, as text."""
        import torch

        with torch.inference_mode():
            output = self.model.generate(
                torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(masks, device=self.device),
                **self.generate_options,
            )
        # The prompts are padded on the left, so that all of them end in the same column.
        added = output[:, len(ids[0]) :]
        completions: list[str] = self.tokenizer.batch_decode(added, skip_special_tokens=True)
        return completions
