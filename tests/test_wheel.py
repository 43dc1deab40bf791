"""The wheel, installed outside the checkout."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(*command: object, cwd: Path) -> str:
    ended = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("servetune-*.whl")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = (python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt")
    run(*install, "torch", cwd=tmp_path)
    run(*install, wheel, cwd=tmp_path)
    folder = tmp_path / "work"
    folder.mkdir()
    version = run(python, "-c", "import servetune; print(servetune.__version__)", cwd=folder)
    assert version.strip() == "0.1.0"
    names = run(
        python, "-c", "import servetune as s; [getattr(s, n) for n in s.__all__]", cwd=folder
    )
    assert names == ""
    command = environment / "bin" / "servetune"
    assert "TorchServe" in run(command, "doctor", cwd=folder)
    run(command, "init", cwd=folder)
    assert "model:" in (folder / "servetune.yaml").read_text()
