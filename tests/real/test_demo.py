"""Tests of the bundled model, built and run in this process without a server."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from serving.demo.build import MAX_TOKENS, PROMPT_TOKENS, VARIANTS, build

pytest.importorskip("torch")
pytest.importorskip("transformers")
context_module = pytest.importorskip("ts.context")

ROOT = Path(__file__).parents[2]
UNEVEN = ["def add(a, b):", "class Queue:\n    def __init__(self", "import os\n\ndef walk(folder)"]


def digests(archive: Path) -> dict[str, str]:
    """Return the digest of each file that is equal in every build, by name."""
    with zipfile.ZipFile(archive) as file:
        return {
            name: hashlib.sha256(file.read(name)).hexdigest()
            for name in file.namelist()
            if name != "MAR-INF/MANIFEST.json"  # It has a time stamp.
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    for variant in VARIANTS:
        build(path, variant)
    return path


@pytest.fixture(scope="module")
def bundled(folder: Path) -> list[str]:
    lines = (folder / "requests.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["body"]["prompt"] for line in lines]


@pytest.fixture(scope="module")
def handlers(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The handler of each variant, loaded from its unpacked archive as TorchServe loads it."""
    handlers = {}
    for variant in VARIANTS:
        unpacked = tmp_path_factory.mktemp(variant)
        with zipfile.ZipFile(build(folder, variant)) as archive:
            archive.extractall(unpacked)
        spec = importlib.util.spec_from_file_location("demo_handler", unpacked / "handler.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        handlers[variant] = module.CodeGenHandler()
        handlers[variant].initialize(context_of(unpacked))
    return handlers


def context_of(model_dir: Path | None, requests: int = 0) -> Any:
    """Return TorchServe's context for a model in `model_dir` and a number of JSON requests."""
    context = context_module.Context("codegen", str(model_dir), {}, 1, None, "0.12.0")
    header = {"body": {"content-type": "application/json"}}
    context.request_processor = [context_module.RequestProcessor(header) for _ in range(requests)]
    return context


def complete(handler: Any, prompts: list[str]) -> list[str]:
    requests = [{"body": {"prompt": prompt}} for prompt in prompts]
    answers = handler.handle(requests, context_of(None, len(prompts)))
    return [answer["completion"] for answer in answers]


def test_build_is_reproducible(folder: Path, tmp_path: Path) -> None:
    # In a process with another hash seed, which changes the order of sets.
    code = "import sys, pathlib, serving.demo.build as demo; demo.build(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert digests(tmp_path / "codegen.mar") == digests(folder / "codegen.mar")
    second = (tmp_path / "requests.jsonl").read_bytes()
    assert second == (folder / "requests.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codegen.mar", "requests.jsonl"]


def test_build_skips_current_archive(folder: Path) -> None:
    before = (folder / "codegen.mar").stat()
    after = build(folder).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_build_variants_differ_in_variant_json_only(folder: Path) -> None:
    fast, original = digests(folder / "codegen.mar"), digests(folder / "codegen-original.mar")
    assert {name for name in fast if fast[name] != original[name]} == {"variant.json"}
    assert fast.keys() == original.keys()


def test_bundled_prompts_have_equal_number_of_tokens(
    handlers: dict[str, Any], bundled: list[str]
) -> None:
    encoded = handlers["fast"].tokenizer(bundled)["input_ids"]
    assert {len(ids) for ids in encoded} == {PROMPT_TOKENS}
    assert len(set(bundled)) == 36


@pytest.mark.parametrize("variant", VARIANTS)
def test_handler_completes_batch_to_full_length(
    handlers: dict[str, Any], bundled: list[str], variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, shapes = handlers[variant], []
    generate = handler.model.generate

    def recording(*args: Any, **options: Any) -> Any:
        output = generate(*args, **options)
        shapes.append(tuple(output.shape))
        return output

    monkeypatch.setattr(handler.model, "generate", recording)
    assert len(complete(handler, bundled[:3])) == 3
    assert len(complete(handler, UNEVEN)) == 3
    assert shapes == [(3, MAX_TOKENS)] * 2, "no completion ends early"


@pytest.mark.parametrize("uneven", [False, True])
def test_handler_greedy_output_does_not_depend_on_batch(
    handlers: dict[str, Any], bundled: list[str], uneven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handlers["fast"]
    prompts = UNEVEN if uneven else bundled[:3]
    lengths = [len(ids) for ids in handler.tokenizer(prompts)["input_ids"]]
    assert (len(set(lengths)) > 1) is uneven
    batched = complete(handler, prompts)
    new_tokens = MAX_TOKENS - max(lengths)
    single = []
    for prompt, length in zip(prompts, lengths, strict=True):
        # Padding counts toward the limit, so a short prompt without padding would get more tokens.
        monkeypatch.setitem(handler.generate_options, "max_length", length + new_tokens)
        single += complete(handler, [prompt])
    assert batched == single
    assert len(set(batched)) == 3, "the completion depends on the prompt"


def test_handler_output_varies_only_if_variant_samples(
    handlers: dict[str, Any], bundled: list[str]
) -> None:
    greedy = {complete(handlers["fast"], bundled[:1])[0] for _ in range(2)}
    sampled = {complete(handlers["original"], bundled[:1])[0] for _ in range(2)}
    assert (len(greedy), len(sampled)) == (1, 2)


@pytest.mark.parametrize(
    ("variant", "long_status"),
    [
        pytest.param("fast", 400, id="fast refuses a prompt without room for a token"),
        pytest.param("original", 200, id="original truncates a long prompt"),
    ],
)
def test_handler_sets_status_of_each_request(
    handlers: dict[str, Any], bundled: list[str], variant: str, long_status: int
) -> None:
    prompts = [bundled[0], 3, "x = 1\n" * 60, bundled[1]]
    context = context_of(None, len(prompts))
    answers = handlers[variant].handle([{"body": {"prompt": p}} for p in prompts], context)
    status = [context.get_response_status(index)[0] for index in range(len(prompts))]
    assert status == [200, 400, long_status, 200]
    assert ["error" in answer for answer in answers] == [code == 400 for code in status]
    if variant == "fast":
        assert answers[0]["completion"] == complete(handlers["fast"], bundled[:1])[0]
