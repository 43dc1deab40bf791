"""A folder of the user's that has the name of one of servetune's packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from servetune.packages import PACKAGES


def run_python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_check_packages_names_the_intruder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    ended = run_python("-c", "import servetune; servetune.load_spec", cwd=tmp_path)
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert f"{tmp_path / name} hides servetune's package {name}" in last


def test_check_packages_ends_the_command_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").touch()
    ended = run_python("-m", "servetune", "--version", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"servetune: {tmp_path / 'serving'} hides")
    assert "Traceback" not in ended.stderr


def test_check_packages_passes_with_a_folder_behind_the_installed_packages(
    tmp_path: Path,
) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "config.py").touch()
    ended = run_python("-P", "-m", "servetune", "--version", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
