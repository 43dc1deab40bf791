"""A TorchServe handler for a CodeGen model, packed into the model's archive.

It imports nothing from this package, which is not in the archive. `variant.json` in the archive
has the options of the tokenizer and of `generate` by variant, and the name of the archive's
variant; the environment variable CODEGEN_VARIANT selects another one. TorchServe uses the only
class in this file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: Token ids and attention masks: one row per prompt, all rows of equal length.
Batch = tuple[list[list[int]], list[list[int]]]


def read_prompt(request: dict[str, Any], content_type: str) -> str:
    """Return the prompt of one request: "prompt" of a JSON object, or the whole text body.

    TorchServe passes a JSON body as an object, and a body that it could not read as bytes.

    Raises:
        ValueError: the request has no prompt; the message is sent to the client.
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
        # JSON may contain a lone surrogate, which would make the whole batch fail.
        body.encode("utf-8")
    except UnicodeError:
        raise ValueError("the prompt is not valid UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not valid JSON: {error}") from None
    if not body:
        raise ValueError("the prompt is empty")
    return body


class CodeGenHandler:
    """Handler that answers each request of a batch with a completion or an error."""

    def initialize(self, context: Any) -> None:
        """Load tokenizer and model from the unpacked archive, once per worker."""
        # Set before the imports, which read them. The tokenizer's thread pool would ignore
        # OMP_NUM_THREADS, the number of threads of a worker.
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
        description = json.loads((folder / "variant.json").read_text("utf-8"))
        variant = description["variants"][os.environ.get("CODEGEN_VARIANT") or description["name"]]
        self.encode_options: dict[str, Any] = variant["tokenize"]
        self.generate_options: dict[str, Any] = variant["generate"]
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.model = CodeGenForCausalLM.from_pretrained(folder).eval().to(self.device)

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[dict[str, str]]:
        """Return one JSON object per request, in order: a completion, or the error of a 400."""
        prompts, problems = self.preprocess(requests, context)
        batch, too_long = self.encode(prompts)
        completions = self.inference(*batch) if batch else []
        indices = (index for index in prompts if index not in too_long)
        answers = {i: {"completion": text} for i, text in zip(indices, completions, strict=True)}
        for index, problem in (problems | too_long).items():
            context.set_response_status(400, "Bad Request", index)
            answers[index] = {"error": problem}
        for index in answers:
            context.set_response_content_type(index, "application/json")
        return [answers[index] for index in range(len(requests))]

    def preprocess(
        self, requests: list[dict[str, Any]], context: Any
    ) -> tuple[dict[int, str], dict[int, str]]:
        """Return the valid prompts and the problems of the other requests, by index."""
        prompts: dict[int, str] = {}
        problems: dict[int, str] = {}
        for index, request in enumerate(requests):
            # TorchServe stores the headers of the body under the name of the body, among the
            # request's headers, so a request header of that name hides them.
            body_headers = context.get_request_header(
                index, "body" if "body" in request else "data"
            )
            content_type = (
                body_headers.get("content-type", "") if isinstance(body_headers, dict) else ""
            )
            try:
                prompts[index] = read_prompt(request, content_type)
            except ValueError as error:
                problems[index] = str(error)
        return prompts, problems

    def encode(self, prompts: dict[int, str]) -> tuple[Batch | None, dict[int, str]]:
        """Return the batch to complete, if any, and the problems of the other prompts, by index.

        A prompt without room for a new token would make `generate` fail for the whole batch, so
        the others are encoded again without it.
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
        """Return the completion of each prompt."""
        import torch

        with torch.inference_mode():
            output = self.model.generate(
                torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(masks, device=self.device),
                **self.generate_options,
            )
        # The prompts are padded on the left, so all of them end in the same column.
        new_tokens = output[:, len(ids[0]) :]
        completions: list[str] = self.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
        return completions
