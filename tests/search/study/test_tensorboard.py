"""The files that TensorBoard reads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.study.tensorboard import TensorBoardCallback
from search.trial.result import TrialResult, TrialState
from serving.configuration.config import ServerConfig
from tests.results import trial_result

CONFIG = ServerConfig(workers=2, batch_size=8)
PRUNED = trial_result(
    1,
    config=CONFIG,
    state=TrialState.PRUNED,
    cause="its capacity of about 20 rps is too far below the incumbent's 90 rps",
    capacity_rps=20.0,
)
FAILED = trial_result(2, config=CONFIG, cause="worker died: worker 7 ended\nthe log")


class Trial(SimpleNamespace):
    """What the callback uses of a Tune trial."""

    def __hash__(self) -> int:
        return id(self)

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(exist_ok=True)


def written(
    folder: Path, *reports: dict[str, Any], failed: bool = False
) -> tuple[dict[str, Any], str]:
    """Return the scalars by tag, and the text of the state."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trial, callback = Trial(local_path=str(folder / "trial")), TensorBoardCallback()
    callback.log_trial_start(trial)
    for number, report in enumerate(reports):
        callback.log_trial_result(number, trial, report)
    callback.log_trial_end(trial, failed)
    events = EventAccumulator(trial.local_path).Reload()
    scalars = {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    texts = [e.tensor_proto.string_val[0].decode() for e in events.Tensors("state/text_summary")]
    assert len(texts) == 1
    return scalars, texts[0]


def record_of(result: TrialResult) -> dict[str, Any]:
    return {"record": json.dumps(result.to_dict()), "done": True}


@pytest.mark.parametrize(
    ("result", "state"),
    [
        pytest.param(PRUNED, f"pruned: {PRUNED.cause}", id="pruned"),
        pytest.param(FAILED, "failed: worker died: worker 7 ended", id="failed"),
    ],
)
def test_callback_writes_no_rate_of_a_trial_without_one(
    tmp_path: Path, result: TrialResult, state: str
) -> None:
    phase = {"phase": "warm-up", "rate_rps": 0.0, "left_s": 0.0}
    scalars, text = written(tmp_path, phase, record_of(result))
    assert "sustained_rps" not in scalars and "p99_s" not in scalars
    assert 0.0 not in scalars.get("capacity_rps", []) and text == state


def test_callback_writes_windows_and_the_rate_of_a_complete_trial(tmp_path: Path) -> None:
    window = {"offered_rps": 50.0, "answered_rps": 49.0, "failed": 0, "p99_s": 0.25}
    complete = trial_result(0, 48.0, CONFIG, p99_s=0.5, peak_memory_mb=900)
    scalars, text = written(
        tmp_path, {"phase": "verification", "window": json.dumps(window)}, record_of(complete)
    )
    assert scalars["sustained_rps"] == [48.0] and scalars["p99_s"] == [0.5]
    assert scalars["window/answered_rps"] == [49.0] and text == "complete"


def test_callback_describes_a_trial_without_a_result(tmp_path: Path) -> None:
    scalars, text = written(tmp_path, {"phase": "start"}, failed=True)
    assert not scalars and "process ended" in text
