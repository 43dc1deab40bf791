"""A run on MLflow's own server, read with MLflow's client."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from search.cluster.node import free_ports
from search.report.summary import write_report
from search.sinks import mlflow_log
from search.sinks.mlflow_log import log_outcome
from search.study.outcome import Outcome
from tests.results import trial_result
from tests.search.sinks.test_webhook import Receiver


def test_log_outcome_without_mlflow_is_a_warning(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    (warning,) = log_outcome(outcome, "http://127.0.0.1:9")
    assert warning.startswith("MLflow is missing; run pip install 'servetune[mlflow]'")


def test_log_outcome_ends_with_a_server_that_is_slow(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, asked = [0.0], list[str]()

    class Answer(list[Any]):
        experiment_id, token = "1", None

        def __bool__(self) -> bool:
            return True

    class SlowClient:
        def __init__(self, tracking_uri: str):
            pass

        def __getattr__(self, name: str) -> Any:
            now_s[0] += mlflow_log.LIMIT_S / 2 + 1
            asked.append(name)
            return lambda *_, **__: Answer()

    tracking = ModuleType("mlflow.tracking")
    tracking.MlflowClient = SlowClient  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)
    monkeypatch.setattr(mlflow_log, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    (warning,) = log_outcome(outcome, "http://127.0.0.1:9")
    assert "its server was too slow" in warning and "after 60 s; servetune resume" in warning
    assert asked == ["get_experiment_by_name", "search_runs"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["redirection", "proxy"])
def test_log_outcome_reaches_no_other_host(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    pytest.importorskip("mlflow.tracking", reason="pip install 'servetune[mlflow]'")
    given, other = Receiver([307]), Receiver([204])
    given.location = other.url
    if way == "proxy":
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
    (warning,) = log_outcome(outcome, given.url)
    assert warning.startswith("the run was not logged to MLflow: ")
    assert given.requests and not other.requests
    for receiver in (given, other):
        receiver.server.shutdown()
        receiver.server.server_close()


def server_interpreter() -> Path:
    """Return a Python with MLflow's server; the first use installs it in the build folder."""
    environment = Path(__file__).parents[3] / "build" / f"mlflow-{version('mlflow-skinny')}"
    python = environment / "bin" / "python"
    if not (environment / ".installed").is_file():
        venv.create(environment, with_pip=True)
        package = f"mlflow=={version('mlflow-skinny')}"
        command = [str(python), "-m", "pip", "install", "--quiet", package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"mlflow cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        (environment / ".installed").touch()
    return python


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an MLflow server, in a separate environment because it needs other packages."""
    pytest.importorskip("mlflow.tracking", reason="pip install 'servetune[mlflow]'")
    folder = tmp_path_factory.mktemp("mlflow")
    python = server_interpreter()
    (port,) = free_ports(1)
    command = [
        *(str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    log = (folder / "server.log").open("w")
    with log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        assert process.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1200)
def test_log_outcome_writes_a_parent_and_nested_runs(
    server: str, outcome: Outcome, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    write_report(outcome)
    (outcome.run.folder / "best").mkdir()
    (outcome.run.folder / "best" / "config.properties").write_text("a=b\n")
    assert log_outcome(outcome, server) == []
    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name(outcome.spec.name)
    assert experiment is not None

    def runs() -> dict[str, Any]:
        found = client.search_runs([experiment.experiment_id])
        return {run.info.run_name: run for run in found}

    logged = runs()
    name = outcome.run.name
    assert set(logged) == {name, *(f"trial {number}" for number in range(5))}
    parent, best = logged[name], logged["trial 3"]
    assert best.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert best.data.params["batch_size"] == "64" and best.data.params["jvm.-Xmx"] == "2g"
    assert best.data.metrics["sustained_rps"] == 250.0 and best.data.metrics["p99_s"] == 0.5
    assert best.info.status == "FINISHED" and logged["trial 4"].info.status == "FAILED"
    assert logged["trial 4"].data.tags["servetune.cause"] == "worker died: worker 7 ended"
    assert parent.info.status == "FINISHED" and parent.data.metrics["ratio"] == 50.0
    assert parent.data.tags["servetune.reason"] == "all 5 trials were run"
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"report.md", "report.html", "trials.csv", "spec.yaml", "best"} <= files
    path = client.download_artifacts(parent.info.run_id, "best/config.properties", str(tmp_path))
    assert Path(path).read_text() == "a=b\n"

    # A resumed run is logged into the same parent, and no trial twice.
    more = replace(outcome, results=[*outcome.results, trial_result(5, 300.0)], interrupted=True)
    assert log_outcome(more, server) == []
    resumed = runs()
    assert set(resumed) == {*logged, "trial 5"}
    assert resumed[name].info.run_id == parent.info.run_id
    assert resumed[name].info.status == "KILLED" and resumed[name].data.metrics["trials"] == 6.0


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1200)
def test_log_outcome_without_a_server_is_a_warning(server: str, outcome: Outcome) -> None:
    (port,) = free_ports(1)
    (warning,) = log_outcome(outcome, f"http://127.0.0.1:{port}")
    assert warning.startswith("the run was not logged to MLflow: ")
    private = replace(
        outcome,
        spec=outcome.spec.model_copy(
            update={"output": outcome.spec.output.model_copy(update={"storage": "sqlite:///x"})}
        ),
    )
    assert log_outcome(private, server) == []
