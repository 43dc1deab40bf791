"""The text of a pull request: complete, and without secrets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search.cli.main import run_command
from search.export.common import ExportFormat
from search.export.pull_request import pull_request_text, redacted_diff, settings_diff
from search.study.outcome import Outcome
from servetune.errors import ExitStatus
from serving.configuration.config import ServerConfig

SECTIONS = ("What changes", "Why", "Certainty", "Before you merge", "How to roll back", "Diff")


def text_of(outcome: Outcome, export_format: ExportFormat, diff: str = "") -> str:
    assert outcome.chosen is not None
    archive = outcome.spec.archive()
    return pull_request_text(
        outcome.run,
        outcome.chosen,
        outcome.reference,
        archive,
        outcome.confirmation,
        export_format,
        "echo",
        ["the port differs"],
        diff,
    )


@pytest.mark.parametrize("export_format", ExportFormat)
def test_pull_request_text_has_every_section(outcome: Outcome, export_format: ExportFormat) -> None:
    text = text_of(outcome, export_format)
    for section in SECTIONS:
        assert f"\n## {section}\n" in text
    assert "$" not in text and "- the port differs." in text
    assert "| `batch_size` | TorchServe's default | 64 |" in text
    assert "| sustained rate at 100 % success, rps | 5 | 250 |" in text
    assert "**unconfirmed**" in text and "\n+batch_size=64\n" in text


def test_pull_request_text_has_the_certainty_of_a_confirmation(confirmed: Outcome) -> None:
    text = text_of(confirmed, ExportFormat.KUBERNETES)
    assert "**confirmed**" in text and "95 % prediction interval" in text
    assert "run `kubectl apply -k .` with the earlier files" in text


def test_pull_request_text_hides_secrets(outcome: Outcome) -> None:
    assert outcome.best is not None and outcome.reference is not None
    secrets = {
        "environment": {"HF_TOKEN": "hf_abcdefgh12345"},
        "jvm": {"-Djavax.net.ssl.keyStorePassword": "do-not-print"},
    }
    best = replace(outcome.best, config=replace(outcome.best.config, **secrets))
    text = text_of(replace(outcome, best=best), ExportFormat.PROPERTIES)
    assert "hf_abcdefgh12345" not in text and "do-not-print" not in text
    assert "environment.HF_TOKEN" in text, "the name is shown"


def test_redacted_diff_hides_secrets_in_changed_and_unchanged_lines() -> None:
    models = 'models={"a":{"1":{"batchSize":2,"apiToken":"four"}}}\n'
    before = f"{models}keystore_pass=one\nvmargs=-Xmx1g -Da.password=two\nio_ratio=50\n"
    after = f"{models}keystore_pass=one\nvmargs=-Xmx2g -Da.password=three\nio_ratio=50\n"
    diff = redacted_diff(before, after)
    assert "+vmargs=-Xmx2g -Da.password=<secret>\n" in diff
    assert " keystore_pass=<secret>\n" in diff
    assert not any(word in diff for word in ("one", "two", "three", "four"))


@pytest.mark.parametrize(
    "comment",
    [
        *("#keystore_pass=one", "  ! keystore_pass: one", "# old: keystore_pass=one"),
        *("# keystore_pass one", "# see https://me:one@example.org/", "# hf_abcdefgh1one"),
        r"# in C:\users, keystore_pass=one",
    ],
)
def test_redacted_diff_hides_secrets_in_comments(comment: str) -> None:
    before = f"# for the pets\n{comment}\nio_ratio=50\n"
    diff = redacted_diff(before, before.replace("50", "60"))
    assert "one" not in diff and " # for the pets\n" in diff and "+io_ratio=60\n" in diff


def test_settings_diff_has_a_line_for_each_changed_setting() -> None:
    before = ServerConfig(workers=1, batch_size=2, models={"dog": {"batch_size": 1}})
    after = ServerConfig(workers=1, batch_size=8, models={"dog": {"batch_size": 4}})
    lines = settings_diff(before, after).splitlines()
    assert sorted(line for line in lines if line[1:2].isalpha()) == [
        *("+batch_size=8", "+models.dog.batch_size=4"),
        *("-batch_size=2", "-models.dog.batch_size=1"),
    ]


def test_export_writes_a_pull_request(
    outcome: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "in-use.properties"
    base.write_text("keystore_pass=hidden\nload_models=all\n")
    body = tmp_path / "body.md"
    arguments = ["export", str(outcome.run.folder), "--base", str(base), "--pr-body", str(body)]
    assert run_command(arguments) == ExitStatus.OK
    text = body.read_text()
    assert "--- in use\n+++ config.properties" in text and "hidden" not in text
    assert "hidden" not in capsys.readouterr().out


@pytest.mark.parametrize("path", [".", "nowhere/body.md"])
def test_export_refuses_a_path_that_cannot_be_written(
    outcome: Outcome, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_command(["export", str(outcome.run.folder), "--pr-body", path])
    assert status == ExitStatus.BAD_INPUT
    assert "--pr-body must be a file in an existing folder" in capsys.readouterr().err
    assert not (outcome.run.folder / "best").exists(), "refused before anything is written"
