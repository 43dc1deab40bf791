"""Build of the bundled model's archive and of requests for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.demo import corpus
from serving.demo.prompts import PROMPTS
from serving.errors import DemoError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MODEL_NAME = "codegen"
#: Tokens of a prompt with its completion. Every bundled prompt has PROMPT_TOKENS tokens, so every
#: completion has 16 and every request costs the same.
MAX_TOKENS = 50
PROMPT_TOKENS = 34

#: Options of the tokenizer and of the model's `generate`, by variant.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "fast": {
        "tokenize": {"padding": "longest"},
        "generate": {"max_length": MAX_TOKENS, "do_sample": False},
    },
    "original": {
        "tokenize": {"padding": "max_length", "truncation": True, "max_length": PROMPT_TOKENS},
        "generate": {"max_length": MAX_TOKENS, "do_sample": True, "top_p": 0.95, "top_k": 60},
    },
}
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "torch-model-archiver")
_MISSING_EXTRA = "the bundled model requires the extra 'demo'; run pip install 'servetune[demo]'"


def build(folder: Path, variant: str = "fast") -> Path:
    """Write the archive of a variant and `requests.jsonl` into `folder`; return the archive's path.

    The archive is codegen.mar (fast) or codegen-original.mar; the model's name is codegen in both.
    A build takes about 10 s. It is skipped if both files exist and the archive was built from the
    same sources and library versions. Both files are written atomically.

    Raises:
        DemoError: the variant is unknown, or a library is not installed.
    """
    if variant not in VARIANTS:
        raise DemoError(
            f"variant of the bundled model must be one of {', '.join(VARIANTS)} (got {variant!r})"
        )
    suffix = "" if variant == "fast" else f"-{variant}"
    archive = folder / f"{MODEL_NAME}{suffix}.mar"
    requests = folder / "requests.jsonl"
    try:
        fingerprint = _fingerprint()
        if requests.is_file() and _archived_fingerprint(archive) == fingerprint:
            return archive
        from serving.demo import codegen
    except ImportError as error:
        raise DemoError(_MISSING_EXTRA) from error
    except FileNotFoundError as error:
        raise DemoError(str(error)) from error

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = codegen.train_tokenizer()
    # Inside `folder`, because a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as temporary:
        content = Path(temporary) / "content"
        codegen.save(content, tokenizer)
        shutil.copy(Path(__file__).with_name("handler.py"), content)
        description = {"name": variant, "built_from": fingerprint, "variants": VARIANTS}
        (content / "variant.json").write_text(json.dumps(description, indent=2), "utf-8")
        new_archive = pack_archive(MODEL_NAME, "handler.py", content, Path(temporary))
        new_requests = Path(temporary) / requests.name
        new_requests.write_text(request_lines(tokenizer), "utf-8")
        # The archive last, because its fingerprint stands for the requests, too.
        new_requests.replace(requests)
        new_archive.replace(archive)
    return archive


def request_lines(tokenizer: Tokenizer) -> str:
    """Return the bundled requests, one line of JSON each: the body and the expected answer."""
    return "".join(
        json.dumps(
            {
                "body": {"prompt": truncate_prompt(prompt, tokenizer)},
                "expect": {"contains": "completion"},
            }
        )
        + "\n"
        for prompt in PROMPTS
    )


def truncate_prompt(prompt: str, tokenizer: Tokenizer) -> str:
    """Return the longest beginning of `prompt` that has at most PROMPT_TOKENS tokens."""
    end = len(prompt)
    while len(tokenizer.encode(prompt[:end]).ids) > PROMPT_TOKENS:
        end -= 1
    return prompt[:end]


def _fingerprint() -> str:
    """Return a hash of all inputs of a build: this package, its corpus, library versions.

    Raises:
        ImportError: a library is not installed.
        FileNotFoundError: the corpus is missing.
    """
    versions = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    digest = hashlib.sha256("\n".join(versions).encode())
    for source in [*sorted(Path(__file__).parent.glob("*.py")), *corpus.modules()]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _archived_fingerprint(archive: Path) -> str | None:
    """Return the fingerprint in an archive; None if it cannot be read."""
    try:
        with zipfile.ZipFile(archive) as file:
            description = json.loads(file.read("variant.json"))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError):
        return None
    fingerprint: str | None = description.get("built_from")
    return fingerprint


def pack_archive(name: str, handler: str, content: Path, folder: Path) -> Path:
    """Write FOLDER/NAME.mar from the files in `content`, uncompressed, and return its path.

    The archiver's `generate_model_archive` is not used: it copies all files to a fixed path
    in TMPDIR and deletes the files that are there.

    Args:
        name: the name of the model.
        handler: the handler's file in `content`, with `:FUNCTION` if it is not a class.
    """
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging_utils import ModelExportUtils

    config = ModelArchiverConfig(model_name=name, handler=handler, version="1.0")
    manifest = ModelExportUtils.generate_manifest_json(config)
    # Random weights do not compress.
    ModelExportUtils.archive(str(folder), name, str(content), manifest, "zip-store")
    return folder / f"{name}.mar"
