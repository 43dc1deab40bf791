"""Builds the bundled model's archive, and requests to send to it."""

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
#: Tokens of a prompt and its completion together. Every bundled prompt has PROMPT_TOKENS, so
#: that a completion always has the same 16 and a request always the same cost.
MAX_TOKENS = 50
PROMPT_TOKENS = 34

#: By variant: the options of the tokeniser and of the model's `generate`.
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
_NO_EXTRA = "the bundled model needs the extra 'demo': pip install 'servetune[demo]'"


def build(folder: Path, variant: str = "fast") -> Path:
    """Write the archive of a variant and `requests.jsonl` into folder, and return the archive.

    The archive is codegen.mar (fast) or codegen-original.mar; the model's name is codegen in both.
    Nothing is done where both files are there and the archive was built from the same sources and
    library versions. It takes some ten seconds otherwise, and no file is ever seen half written.

    Raises:
        DemoError: an unknown variant, or libraries that are not installed.
    """
    if variant not in VARIANTS:
        raise DemoError(f"no variant {variant!r} of the bundled model: {', '.join(VARIANTS)}")
    suffix = "" if variant == "fast" else f"-{variant}"
    archive = folder / f"{MODEL_NAME}{suffix}.mar"
    requests = folder / "requests.jsonl"
    try:
        stamp = _fingerprint()
        if requests.is_file() and _stamp_of(archive) == stamp:
            return archive
        from serving.demo import codegen
    except ImportError as missing:
        raise DemoError(_NO_EXTRA) from missing
    except FileNotFoundError as missing:
        raise DemoError(str(missing)) from missing

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = codegen.train_tokenizer()
    # Inside folder, since a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as temporary:
        content = Path(temporary) / "content"
        codegen.save(content, tokenizer)
        shutil.copy(Path(__file__).with_name("handler.py"), content)
        described = {"name": variant, "built_from": stamp, "variants": VARIANTS}
        (content / "variant.json").write_text(json.dumps(described, indent=2), "utf-8")
        packed = pack(MODEL_NAME, "handler.py", content, Path(temporary))
        listed = Path(temporary) / requests.name
        listed.write_text(request_lines(tokenizer), "utf-8")
        # The archive last: its stamp vouches for the requests, too.
        listed.replace(requests)
        packed.replace(archive)
    return archive


def request_lines(tokenizer: Tokenizer) -> str:
    """One request a line: its JSON body, and what a good answer contains."""
    return "".join(
        json.dumps(
            {"body": {"prompt": cut(prompt, tokenizer)}, "expect": {"contains": "completion"}}
        )
        + "\n"
        for prompt in PROMPTS
    )


def cut(prompt: str, tokenizer: Tokenizer) -> str:
    """The longest beginning of prompt that has no more than PROMPT_TOKENS."""
    end = len(prompt)
    while len(tokenizer.encode(prompt[:end]).ids) > PROMPT_TOKENS:
        end -= 1
    return prompt[:end]


def _fingerprint() -> str:
    """A hash of all that shapes the archives: this package, its corpus, the libraries.

    Raises:
        ImportError: a library is not installed.
        FileNotFoundError: the corpus is missing.
    """
    versions = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    digest = hashlib.sha256("\n".join(versions).encode())
    for source in [*sorted(Path(__file__).parent.glob("*.py")), *corpus.modules()]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _stamp_of(archive: Path) -> str | None:
    """The fingerprint that an archive was built from; None where there is none to be read."""
    try:
        with zipfile.ZipFile(archive) as file:
            described = json.loads(file.read("variant.json"))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError):
        return None
    stamp: str | None = described.get("built_from")
    return stamp


def pack(name: str, handler: str, content: Path, target: Path) -> Path:
    """Pack the folder content as the archive of a model of this name in the folder target.

    handler is the file in it, with `:FUNCTION` where it is no class.

    Only the archiver's manifest and writer are used: its `generate_model_archive` first copies
    everything to a fixed path in TMPDIR, and deletes what it finds there.
    """
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging_utils import ModelExportUtils

    config = ModelArchiverConfig(model_name=name, handler=handler, version="1.0")
    manifest = ModelExportUtils.generate_manifest_json(config)
    # Stored, not compressed: random weights do not shrink.
    ModelExportUtils.archive(str(target), name, str(content), manifest, "zip-store")
    return target / f"{name}.mar"
