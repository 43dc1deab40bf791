"""A CodeGen model with random weights, and a tokenizer trained on Python's standard library.

Nothing is downloaded. Equal library versions give equal files.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CodeGenConfig, CodeGenForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from serving.demo import corpus

VOCABULARY = 2048
SEED = 20240229
_END = "<|endoftext|>"


def train_tokenizer() -> Tokenizer:
    """Return a byte-level BPE tokenizer with VOCABULARY entries; entry 0 is the end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (path.read_text("utf-8", errors="replace") for path in corpus.modules())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_model() -> CodeGenForCausalLM:
    """Return a model with four layers of width 256, which a laptop's CPU serves in batches.

    It has no end token: with random weights, a random end would make requests cost differently.
    """
    config = CodeGenConfig(
        vocab_size=VOCABULARY,
        n_positions=256,
        n_ctx=256,
        n_embd=256,
        n_layer=4,
        n_head=8,
        rotary_dim=16,
        bos_token_id=0,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return CodeGenForCausalLM(config)


def save(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the model and the tokenizer into `folder` for the handler."""
    logging.disable_progress_bar()
    make_model().save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_END,
        pad_token=_END,
        # On the left, because a completion continues the end of its prompt.
        padding_side="left",
        truncation_side="left",
    ).save_pretrained(folder)
