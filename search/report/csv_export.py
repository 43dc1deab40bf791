"""Trials as a table: one row for each trial, or for each load of a sweep."""

from __future__ import annotations

from typing import Any

import pandas as pd

from search.study.diff import flat
from search.trial.result import TrialResult

#: Records whose figures become columns, without the record's name.
_RECORDS = ("rate", "latency", "server", "timing")


def trial_frame(results: list[TrialResult]) -> pd.DataFrame:
    """Return settings and figures; columns have the names of the trial's records."""
    rows = []
    for result in results:
        row = _row(result)
        loads = result.to_dict()["loads"]
        # Figures of a load replace those of its trial.
        rows += [
            {**row, **flat(load), "warnings": _joined(load["warnings"])} for load in loads
        ] or [row]
    return pd.DataFrame(rows).convert_dtypes()


def _row(result: TrialResult) -> dict[str, Any]:
    data = result.to_dict()
    row: dict[str, Any] = {"number": result.number, **flat(result.config.to_dict())}
    row |= {name: data[name] for name in ("origin", "state", "failure", "cause", "host_fault")}
    for name in _RECORDS:
        row |= flat({key: value for key, value in data[name].items() if key != "processes"})
    for name in ("background", "mix"):
        row |= flat({name: {each["model"]: each for each in data[name]}})
    row |= {"steal": result.host.steal, "other_cpu": result.host.other_cpu}
    return {**row, "warnings": _joined(data["warnings"]), "host": result.host.name}


def _joined(warnings: list[str]) -> str:
    return "; ".join(warnings)
