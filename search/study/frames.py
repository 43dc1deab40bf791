"""The trials, windows and predictions of a run as typed pandas frames. Times are in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from search.intervals import mean_interval, prediction_interval
from search.study.diff import flat
from search.trial.result import TrialResult

if TYPE_CHECKING:
    import pandas as pd

    from search.study.run_folder import Run

FrameKind = Literal["trials", "windows", "predictions"]

#: The figures of a trial: the column, and the records that it is in.
_FIGURES = {
    "rate": ("sustained_rps", "upper_rps", "capacity_rps", "width", "success_bound"),
    "latency": ("p50_s", "p95_s", "p99_s", "limit_excess", "comparison_rps", "comparison_p99_s"),
    "server": ("ready_s", "queue_s", "inference_s", "mean_batch_fill", "busy_workers"),
    "host": ("steal", "other_cpu"),
    "timing": ("duration_s",),
}
_COUNTS = {
    "rate": ("scheduled", "sent", "succeeded", "requests_without_failure"),
    "server": ("workers_ready", "batch_capacity", "peak_memory_mb", "peak_gpu_mb"),
}
#: Of each model that had a separate load, after `mix.MODEL.` or `background.MODEL.`.
_MODEL_FIGURES = ("rate_rps", "p50_s", "p95_s", "p99_s")
_MODEL_COUNTS = ("sent", "scheduled", "failed")
_WINDOW_FIGURES = ("offered_rps", "goodput_rps", "p50_s", "p99_s", "queue_s", "inference_s")
_WINDOW_COUNTS = ("trial", "window", "scheduled", "succeeded", "failed")
_PREDICTION_FIGURES = ("mean_rps", "mean_low_rps", "mean_high_rps", "next_low_rps", "next_high_rps")


def frame(run: Run, kind: FrameKind) -> pd.DataFrame:
    """Return one of the frames of a run; see `Run.dataframe`."""
    results = run.results()
    if kind == "trials":
        return _trials(results)
    if kind == "windows":
        return _windows(run, results)
    if kind == "predictions":
        confirmations = [result for _, _, result in run.confirmation_visits()]
        return _predictions([*results, *confirmations])
    raise ValueError(f"kind must be trials, windows or predictions (got {kind!r})")


def _trials(results: Sequence[TrialResult]) -> pd.DataFrame:
    rows = []
    for result in results:
        row: dict[str, Any] = {"number": result.number}
        row |= {name: str(getattr(result, name)) for name in ("origin", "state")}
        row |= {"failure": str(result.failure) if result.failure else None, "cause": result.cause}
        row |= dict(_settings(result))
        for names in (_FIGURES, _COUNTS):
            for record, columns in names.items():
                row |= {name: getattr(getattr(result, record), name) for name in columns}
        row |= dict(_model_columns(result, _MODEL_FIGURES))
        row |= dict(_model_columns(result, _MODEL_COUNTS))
        rows.append(row)
    figures = [name for names in _FIGURES.values() for name in names]
    counts = ["number", *(name for names in _COUNTS.values() for name in names)]
    for result in results:
        figures += [n for n, _ in _model_columns(result, _MODEL_FIGURES) if n not in figures]
        counts += [n for n, _ in _model_columns(result, _MODEL_COUNTS) if n not in counts]
    texts = ["origin", "state", "failure", "cause"]
    table = _typed(rows, figures, counts, texts)
    return table.astype({"origin": "category", "state": "category"}).set_index("number")


def _windows(run: Run, results: Iterable[TrialResult]) -> pd.DataFrame:
    rows = []
    for result in results:
        for number, window in enumerate(run.windows(result.number)):
            latency, server = window.get("latency_s") or {}, window.get("server") or {}
            rows.append(
                {
                    "trial": result.number,
                    "window": number,
                    "offered_rps": window["schedule"].get("rate_rps"),
                    "goodput_rps": window.get("goodput_rps"),
                    "scheduled": window.get("scheduled"),
                    "succeeded": window.get("succeeded"),
                    "failed": sum((window.get("errors") or {}).values()),
                    "p50_s": latency.get("p50"),
                    "p99_s": latency.get("p99"),
                    "queue_s": server.get("queue_s"),
                    "inference_s": server.get("inference_s"),
                }
            )
    return _typed(rows, _WINDOW_FIGURES, _WINDOW_COUNTS).set_index(["trial", "window"])


def _predictions(results: Iterable[TrialResult]) -> pd.DataFrame:
    """Return a row for each configuration: its mean rate, and the rate of one more measurement."""
    groups: dict[str, list[TrialResult]] = {}
    for result in results:
        if result.sustained_rps:
            groups.setdefault(result.config.digest, []).append(result)
    rows = []
    for group in groups.values():
        rates = [result.sustained_rps for result in group if result.sustained_rps]
        mean, following = mean_interval(rates), prediction_interval(rates)
        rows.append(
            {
                "trial": min(result.number for result in group),
                "measurements": len(rates),
                "mean_rps": mean.mean if mean else rates[0],
                "mean_low_rps": mean.low if mean else None,
                "mean_high_rps": mean.high if mean else None,
                "next_low_rps": following.low if following else None,
                "next_high_rps": following.high if following else None,
                **dict(_settings(group[0])),
            }
        )
    table = _typed(rows, _PREDICTION_FIGURES, ("trial", "measurements"))
    return table.set_index("trial").sort_index()


def _settings(result: TrialResult) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a trial as columns: `setting.workers`, `setting.jvm.-Xmx`."""
    for name, value in flat(result.config.to_dict()).items():
        yield f"setting.{name}", value


def _model_columns(result: TrialResult, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield these figures of each model as columns: `mix.cat.p99_s`."""
    for kind, records in (("mix", result.mix), ("background", result.background)):
        for record in records:
            for name in names:
                if hasattr(record, name):
                    yield f"{kind}.{record.model}.{name}", getattr(record, name)


def _typed(
    rows: list[dict[str, Any]],
    figures: Iterable[str],
    counts: Iterable[str],
    texts: Iterable[str] = (),
) -> pd.DataFrame:
    """Return rows with the same types in every run, an empty one included."""
    import pandas as pd

    types: dict[str, Any] = {
        **dict.fromkeys(counts, "Int64"),
        **dict.fromkeys(texts, "string"),
        **dict.fromkeys(figures, "float64"),
    }
    settings = list(dict.fromkeys(name for row in rows for name in row if name not in types))
    table = pd.DataFrame(rows, columns=[*types, *settings]).astype(types)
    converted = table[settings].convert_dtypes()
    return table.assign(**{name: converted[name] for name in settings})
