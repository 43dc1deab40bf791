"""Log a run to an MLflow tracking server: a parent run, and a nested run for each trial.

A run that is resumed is logged into the same parent. A server that is down costs a warning.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from search.answer.gain import gain_of, rates_of_gain
from search.environment import environment, log_level
from search.errors import first_line
from search.study.outcome import Outcome
from search.trial.result import TrialResult, TrialState

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

_VARIABLES = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    # A redirection may lead to another host.
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    # A proxy of the environment is another host.
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "*"),
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_ARTIFACTS = ("report.md", "report.html", "trials.csv", "spec.yaml")
#: The server stores these files itself. With any other scheme, the client would write to a place
#: that the server chooses.
_ARTIFACT_SCHEME = "mlflow-artifacts:"
_RUN_TAG, _TRIAL_TAG = "servetune.run", "servetune.trial"
_MAX_PARAM = 500
#: A slow server may hold up the end of a run this long, seconds, and one request in addition.
LIMIT_S = 60.0


def log_outcome(outcome: Outcome, url: str) -> list[str]:
    """Log the outcome of a run; return warnings.

    Args:
        url: of the tracking server.
    """
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        return ["MLflow is missing; run pip install 'servetune[mlflow]' and servetune resume"]
    with environment(_VARIABLES), log_level(["mlflow", "urllib3"], logging.ERROR):
        try:
            client = _LimitedClient(MlflowClient(tracking_uri=url), LIMIT_S)
            return list(_Log(cast("MlflowClient", client), outcome).write())
        except Exception as error:  # MLflow and its HTTP client have errors of many kinds.
            return [f"the run was not logged to MLflow: {first_line(error)}"]


class _LimitedClient:
    """A client that sends no request after its time.

    Raises:
        TimeoutError: in each call after that.
    """

    def __init__(self, client: MlflowClient, limit_s: float):
        self._client, self._limit_s = client, limit_s
        self._start_s = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        if time.monotonic() - self._start_s > self._limit_s:
            raise TimeoutError(
                f"its server was too slow: it had not stored everything after {self._limit_s:.0f} "
                "s; servetune resume logs the rest"
            )
        return getattr(self._client, name)


class _Log:
    """The runs of an outcome on a server."""

    def __init__(self, client: MlflowClient, outcome: Outcome):
        self._client, self._outcome = client, outcome
        self._run_name = outcome.run.name  # It is read from a file.
        experiment = client.get_experiment_by_name(outcome.spec.name)
        self._experiment = (
            experiment.experiment_id if experiment else client.create_experiment(outcome.spec.name)
        )

    def write(self) -> Iterator[str]:
        """Log the parent and the trials; yield warnings."""
        name = self._run_name
        found = self._search(f"tags.`{_RUN_TAG}` = '{name}'")
        parents = [run for run in found if _TRIAL_TAG not in run.data.tags]
        trials = {run.data.tags.get(_TRIAL_TAG): run for run in found}
        parent = parents[0] if parents else self._start(name, {_RUN_TAG: name})
        for result in self._outcome.results:
            run = trials.get(str(result.number))
            # A run without an end was interrupted.
            if run is None or run.info.status == "RUNNING":
                self._log_trial(parent, result, run)
        self._log_parent(parent)
        yield from self._log_artifacts(parent)
        status = "FAILED" if self._outcome.failed else "FINISHED"
        if self._outcome.interrupted:
            status = "KILLED"
        self._client.set_terminated(parent.info.run_id, status)

    def _search(self, condition: str) -> list[MlflowRun]:
        runs: list[MlflowRun] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], condition, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _start(self, name: str, tags: dict[str, str]) -> MlflowRun:
        return self._client.create_run(self._experiment, run_name=name, tags=tags)

    def _log_trial(
        self, parent: MlflowRun, result: TrialResult, interrupted: MlflowRun | None
    ) -> None:
        tags = {
            _RUN_TAG: self._run_name,
            _TRIAL_TAG: str(result.number),
            "mlflow.parentRunId": parent.info.run_id,
            "servetune.origin": str(result.origin),
            "servetune.state": str(result.state),
        }
        if result.failure:
            tags["servetune.failure"] = str(result.failure)
        if result.cause:
            tags["servetune.cause"] = first_line(result.cause)[:5000]
        run = interrupted or self._start(f"trial {result.number}", tags)
        self._log(run, flat_settings(result), metrics_of(result))
        statuses = {TrialState.FAILED: "FAILED", TrialState.PRUNED: "KILLED"}
        self._client.set_terminated(run.info.run_id, statuses.get(result.state, "FINISHED"))

    def _log_parent(self, parent: MlflowRun) -> None:
        outcome = self._outcome
        chosen = outcome.chosen
        metrics = metrics_of(chosen) if chosen else {}
        best_rps, reference_rps = rates_of_gain(outcome)
        if best_rps:
            metrics["sustained_rps"] = best_rps
        if reference_rps:
            metrics["reference_rps"] = reference_rps
        if (gain := gain_of(outcome)) is not None:
            bounds = {"": gain.ratio.mean, "_low": gain.ratio.low, "_high": gain.ratio.high}
            metrics |= {f"ratio{name}": value for name, value in bounds.items()}
        metrics["trials"] = float(len(outcome.results))
        self._log(parent, flat_settings(chosen) if chosen else {}, metrics, replace=True)
        if outcome.reason:
            self._client.set_tag(parent.info.run_id, "servetune.reason", outcome.reason[:5000])

    def _log(
        self,
        run: MlflowRun,
        params: dict[str, str],
        metrics: dict[str, float],
        replace: bool = False,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now_ms = int(time.time() * 1000)
        # A parameter cannot be changed when a run is resumed; a tag can.
        settings: list[Any] = [(name, text[:_MAX_PARAM]) for name, text in params.items()]
        self._client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, now_ms, 0) for name, value in metrics.items()],
            params=[] if replace else [Param(*setting) for setting in settings],
            tags=[RunTag(f"best.{name}", text) for name, text in settings] if replace else [],
        )

    def _log_artifacts(self, parent: MlflowRun) -> Iterator[str]:
        folder = self._outcome.run.folder
        if not (parent.info.artifact_uri or "").startswith(_ARTIFACT_SCHEME):
            yield (
                "the report was not logged to MLflow: its server does not store files; start it "
                "with --serve-artifacts"
            )
            return
        is_private = bool(self._outcome.spec.output.storage or self._outcome.spec.notify)
        for name in _ARTIFACTS:
            # The specification may contain a password.
            if (folder / name).is_file() and not (name == "spec.yaml" and is_private):
                self._client.log_artifact(parent.info.run_id, str(folder / name))
        for path in sorted((folder / "best").glob("*")):
            # The archive may be of any size, and is the user's own.
            if path.is_file() and path.stat().st_size < 1 << 20:
                self._client.log_artifact(parent.info.run_id, str(path), "best")


def flat_settings(result: TrialResult) -> dict[str, str]:
    """Return the settings of a trial as texts, nested names joined by dots."""
    flat: dict[str, str] = {}
    for name, value in result.config.to_dict().items():
        entries = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{name}.{key}".rstrip("."): str(entry) for key, entry in entries}
    # MLflow permits few characters in a name.
    return {
        "".join(c if c.isalnum() or c in "_-./" else "_" for c in k): v for k, v in flat.items()
    }


def metrics_of(result: TrialResult) -> dict[str, float]:
    """Return the figures of a trial that it has."""
    figures = {
        "sustained_rps": result.sustained_rps,
        "upper_rps": result.rate.upper_rps,
        "capacity_rps": result.capacity_rps,
        "p50_s": result.latency.p50_s,
        "p99_s": result.latency.p99_s,
        "duration_s": result.duration_s,
        "queue_s": result.server.queue_s,
        "inference_s": result.server.inference_s,
        "mean_batch_fill": result.server.mean_batch_fill,
        "peak_memory_mb": result.server.peak_memory_mb,
    }
    return {n: float(v) for n, v in figures.items() if v is not None and math.isfinite(v)}
