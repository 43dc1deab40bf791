"""The text of an export's README: figures of the trial, and what the files are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import javaproperties

from search.answer.confirmed import Confirmed
from search.confirmation.confirmation import Confirmation
from search.export.claim import claimed_rate
from search.export.common import FormatFiles, fill_template
from search.report.confirmation import confirmation_text
from search.report.formatting import (
    format_interval,
    format_lower_bound,
    format_number,
    format_settings,
)
from search.study.run_folder import Run
from search.trial.result import TrialResult
from serving.archive import Archive
from serving.configuration.versions import TorchServeVersion

_UNCONFIRMED = (
    "**Unconfirmed**: no confirmation\nmeasured its sustained rate; that of the search is on "
    "average too high."
)


def figures(
    run: Run,
    result: TrialResult,
    archive: Archive,
    confirmation: Confirmation | None,
) -> dict[str, str]:
    """Return the figures of a trial, as the README's template names them."""
    confirmed = Confirmed.of(confirmation, result.config)
    claimed_rps, claimed_by = claimed_rate(result, confirmed)
    load, rate, latency = run.spec().load, result.rate, result.latency
    return {
        "model": archive.name,
        "version": archive.version,
        "run": run.name,
        "status": "confirmed" if confirmed and confirmed.sustained else "unconfirmed",
        "confirmation": _confirmation_text(confirmation, confirmed),
        "number": str(result.number),
        "claimed": f"{claimed_rps or 0:.1f}",
        "claimed_by": claimed_by,
        "sustained": f"{result.sustained_rps:.1f}",
        "upper": f"{rate.upper_rps:.1f} rps" if rate.upper_rps else "none",
        "requests": str(rate.requests_without_failure),
        "bound": format_lower_bound(rate.success_bound or 0.0),
        "by_batch": format_lower_bound(rate.success_bound_by_batch or 0.0),
        "p50": f"{latency.p50_s or 0:.3f}",
        "p99": f"{latency.p99_s or 0:.3f}",
        "arrivals": load.arrivals,
        "timeout": f"{load.timeout_s:g}",
        "settings": format_settings(result.config),
        "facts": _facts_table(result.host.facts),
    }


def _confirmation_text(confirmation: Confirmation | None, confirmed: Confirmed | None) -> str:
    if confirmation is None or confirmed is None or confirmed.sustained is None:
        return _UNCONFIRMED
    if confirmed.is_winner:
        return confirmation_text(confirmation)
    winner = confirmation.plan.requests[confirmation.winner]
    sustained = confirmed.sustained
    return (
        f"The confirmation chose trial {winner.number}; this one sustains "
        f"{format_number(sustained.mean)} rps (95 % prediction interval for one more measurement: "
        f"{format_interval(sustained)} rps)."
    )


def _facts_table(facts: Mapping[str, Any]) -> str:
    # The files may be published: the name of the host is left out.
    return "\n".join(f"| {name} | {value} |" for name, value in facts.items() if name != "host")


def use_of_common_files(files: FormatFiles, version: TorchServeVersion, archive: Archive) -> str:
    """Return what the files are for: addresses, tokens, environment, the model's name."""
    properties = javaproperties.loads(files.properties_text or "")
    if not version.requires_tokens:
        tokens = (
            f"TorchServe {version.number} has no tokens: anyone who reaches its ports may use them."
        )
    elif properties.get("disable_token_authorization", "").lower() == "true":
        tokens = "**Token authorization is off.**"
    else:
        tokens = fill_template("token_authorization", key_file_place=files.key_file_place).strip()
    default_ports = {"inference": 8080, "management": 8081, "metrics": 8082}
    addresses = {
        name: properties.get(f"{name}_address", f"http://127.0.0.1:{port}")
        for name, port in default_ports.items()
    }
    return fill_template(
        "readme_files",
        **addresses,
        tokens=tokens,
        command=files.command,
        environment_use=files.environment_use,
        items=files.readme_items,
        model=archive.name,
        model_version=archive.version,
    )
