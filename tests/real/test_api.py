"""The examples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.conftest import ROOT
from tests.stub import stub

EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: object, cwd: Path) -> str:
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == "", "the API prints nothing"
    return ended.stdout


def test_example_tunes_from_python(study: Callable[..., Path], tmp_path: Path) -> None:
    output = run_example(
        "tune_from_python.py", study(search={"trials": 2}), cwd=tmp_path
    ).splitlines()
    assert output[0].startswith("trial 0 (default): ")
    assert output[1].startswith("trial 1 (guide): ")
    assert output[2].startswith("best: {")
    assert output[3].startswith(f"servetune export {tmp_path / 'runs' / 'small-'}")
    assert len(output) == 4


@pytest.mark.slow
def test_example_compares_two_configs(study: Callable[..., Path], tmp_path: Path) -> None:
    spec = study()
    for name, batch in (("today", 1), ("candidate", 8)):
        entry = f'"minWorkers":1,"maxWorkers":1,"batchSize":{batch},"maxBatchDelay":5'
        models = f'{{"echo":{{"1.0":{{"defaultVersion":true,"marName":"echo.mar",{entry}}}}}}}'
        (tmp_path / f"{name}.properties").write_text(f"models={models}\n")
    files = [tmp_path / f"{name}.properties" for name in ("today", "candidate")]
    output = run_example("compare_two_configs.py", spec, *files, cwd=tmp_path).splitlines()
    ratio = float(output[-1].rpartition(" ")[2])
    assert output[-1].startswith(f"{files[1]} ÷ {files[0]}: ")
    assert ratio > 2, "batches of 8 in 0.1 s against single requests in 0.1 s"


def test_example_finds_the_sustained_rate_of_a_url(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_text('{"body": {"a": 1}}\n')
    with stub(workers=2, service_s=0.02) as url:
        output = run_example(
            "sustained_rate_of_url.py", url, tmp_path / "requests.jsonl", cwd=tmp_path
        )
    first = output.splitlines()[0]
    assert first.startswith("sustained ")
    assert float(first.split()[1]) <= 1.05 * 100, "two workers of 20 ms"
