"""The script that starts exported files."""

import subprocess
from dataclasses import replace
from pathlib import Path

from search.export.files import export
from search.study.outcome import Outcome


def test_write_start_script_checks_python_of_the_cpu_launcher(
    outcome: Outcome, tmp_path: Path
) -> None:
    assert outcome.best is not None
    config = replace(outcome.best.config, properties={"cpu_launcher_enable": "true"})
    best = replace(outcome.best, config=config)
    folder = export(outcome.run, best, outcome.spec.archive()).folder
    for name in ("python", "torchserve"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} ran\nexit {int(name == 'python')}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MODEL_STORE": str(tmp_path)}

    def start() -> subprocess.CompletedProcess[str]:
        script = str(folder / "start.sh")
        return subprocess.run([script], env=environment, capture_output=True, text=True)

    failed = start()
    assert failed.returncode == 1 and "needs a command 'python' with torch" in failed.stderr
    (tmp_path / "python").write_text("#!/bin/sh\n")
    assert start().stdout == "torchserve ran\n"


def test_write_start_script_requires_the_folder_of_the_archive(
    outcome: Outcome, tmp_path: Path
) -> None:
    assert outcome.best is not None
    folder = export(outcome.run, outcome.best, outcome.spec.archive()).folder
    environment = {"PATH": "/usr/bin:/bin"}
    script = str(folder / "start.sh")
    failed = subprocess.run([script], env=environment, capture_output=True, text=True)
    assert failed.returncode and "must name the folder of the archive" in failed.stderr
