"""The text of a pull request that puts exported files into use."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from search.confirmation.confirmation import Confirmation
from search.export.common import ExportFormat, fill_template
from search.export.readme import figures
from search.report.formatting import format_number, markdown_table
from search.study.diff import flat
from search.study.run_folder import Run
from search.trial.result import TrialResult
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.configuration.environment import redacted
from serving.configuration.secret_lines import redacted_text

#: How the platform returns to what it ran before.
_ROLL_BACK = {
    ExportFormat.PROPERTIES: "restart TorchServe with the earlier files",
    ExportFormat.MODEL_CONFIG: "deploy the earlier archive and restart TorchServe",
    ExportFormat.COMPOSE: "run `docker compose up -d` with the earlier files",
    ExportFormat.DOCKER: "run the image with the earlier tag; keep it until then",
    ExportFormat.SYSTEMD: "restore the files in /etc and run `systemctl restart {unit}`",
    ExportFormat.SAGEMAKER: (
        "run `aws sagemaker update-endpoint --endpoint-name {name} --endpoint-config-name EARLIER`"
    ),
    ExportFormat.KSERVE: (
        "set `canaryTrafficPercent: 0`, which sends all requests to the earlier revision, or apply "
        "the earlier files"
    ),
    ExportFormat.KUBERNETES: (
        "run `kubectl apply -k .` with the earlier files; `kubectl rollout undo` alone would keep "
        "the new ConfigMap"
    ),
}


def pull_request_text(
    run: Run,
    result: TrialResult,
    reference: TrialResult | None,
    archive: Archive,
    confirmation: Confirmation | None,
    export_format: ExportFormat,
    resource_name: str,
    notes: Sequence[str],
    diff: str,
) -> str:
    """Return Markdown: what changes, why, figures with their certainty, roll-back and a diff.

    The values of secrets are replaced.

    Args:
        reference: the trial of what runs today; None if it was not measured.
        confirmation: None if it did not confirm this trial.
        resource_name: the name of the platform's resources.
        notes: what the reader must know, a sentence each.
        diff: changes to the config.properties in use; empty to compare the settings instead.
    """
    before = reference.config if reference else ServerConfig()
    facts = figures(run, result, archive, confirmation)
    roll_back = _ROLL_BACK[export_format].format(
        name=resource_name, unit=f"torchserve-{resource_name}"
    )
    return fill_template(
        "pull_request",
        **facts,
        format=str(export_format),
        changes=_changed_settings(before, result.config),
        today=_today(reference),
        measured=_measured(reference, result),
        roll_back=roll_back,
        notes="".join(f"- {note}.\n" for note in notes) or "- None.\n",
        diff=(diff or settings_diff(before, result.config)).rstrip("\n"),
    )


def redacted_diff(before: str, after: str) -> str:
    """Return the changes between two config.properties, without the values of secrets."""
    old, new = (redacted_text(text).splitlines(keepends=True) for text in (before, after))
    return "".join(difflib.unified_diff(old, new, "in use", "config.properties"))


def settings_diff(before: ServerConfig, after: ServerConfig) -> str:
    """Return the changes between the settings of two configurations, one setting a line."""
    old, new = ([f"{k}={text}\n" for k, text in _shown(c).items()] for c in (before, after))
    return "".join(difflib.unified_diff(old, new, "today", "proposed", n=0))


def _shown(config: ServerConfig) -> dict[str, str]:
    """Return the settings by their path, sorted, without the values of secrets."""
    return redacted({path: str(value) for path, value in sorted(flat(config.to_dict()).items())})


def _changed_settings(before: ServerConfig, after: ServerConfig) -> str:
    earlier, proposed = _shown(before), _shown(after)
    # Two secrets may differ, although both are shown alike.
    old, new = flat(before.to_dict()), flat(after.to_dict())
    rows = [
        (f"`{path}`", earlier.get(path, "TorchServe's default"), proposed.get(path, "default"))
        for path in sorted({*old, *new})
        if old.get(path) != new.get(path)
    ]
    return markdown_table(("setting", "today", "proposed"), rows) if rows else "No setting changes."


def _today(reference: TrialResult | None) -> str:
    if reference is None:
        return "What runs today was not measured in this run."
    if reference.origin == "baseline":
        return f"Today's configuration was measured too, as trial {reference.number}."
    return (
        f"The run had no configuration of today: the comparison is with TorchServe's default, "
        f"trial {reference.number}."
    )


def _measured(reference: TrialResult | None, result: TrialResult) -> str:
    columns = ([reference] if reference else []) + [result]
    header = ["in the search", *(f"trial {each.number}" for each in columns)]
    header[-1] += " (proposed)"
    figures_of: Mapping[str, list[float | None]] = {
        "sustained rate at 100 % success, rps": [each.sustained_rps for each in columns],
        "p50, s": [each.latency.p50_s for each in columns],
        "p99, s": [each.p99_s for each in columns],
    }
    rows = [
        (name, *(format_number(value) or "none" for value in values))
        for name, values in figures_of.items()
    ]
    return markdown_table(header, rows)
