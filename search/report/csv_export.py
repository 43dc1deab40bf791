"""Trials as a table of one row each."""

from __future__ import annotations

import pandas as pd

from search.study.diff import flat
from search.trial.result import TrialResult


def frame(results: list[TrialResult]) -> pd.DataFrame:
    """One row a trial, or one a load of it: its settings, then what came of it."""
    rows = []
    for result in results:
        data = result.to_dict()
        config, _ = data.pop("config"), data.pop("host")
        number = data.pop("number")
        data["doubts"] = "; ".join(data["doubts"])
        loads, _ = data.pop("loads"), data.pop("workers")
        row = {"number": number, **flat(config), **flat(data), "host": result.host.name}
        # Of a sweep, a row for each load; its figures stand where a search's would.
        rows += [{**row, **flat(load), "doubts": "; ".join(load["doubts"])} for load in loads] or [
            row
        ]
    return pd.DataFrame(rows).convert_dtypes()
