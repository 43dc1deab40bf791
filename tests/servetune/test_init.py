"""What `import servetune` promises."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import servetune
from servetune import ExitStatus, InputError, ServetuneError

ROOT = Path(__file__).parents[2]
ERRORS = [
    value
    for name in servetune.__all__
    if isinstance(value := getattr(servetune, name), type) and issubclass(value, ServetuneError)
]


@pytest.mark.parametrize("name", servetune.__all__)
def test_init_loads_every_declared_name(name: str) -> None:
    assert getattr(servetune, name) is not None


def test_init_refuses_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'tuna'"):
        _ = servetune.tuna


@pytest.mark.parametrize("package", ["loadgen", "search", "serving", "servetune"])
def test_init_packages_are_typed(package: str) -> None:
    module = importlib.import_module(package)
    assert (Path(module.__path__[0]) / "py.typed").is_file()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_errors_carry_an_exit_status(error: type[ServetuneError]) -> None:
    expected = ExitStatus.BAD_INPUT if issubclass(error, InputError) else ExitStatus.FAILED
    if error is servetune.RequirementError:
        expected = ExitStatus.BELOW_REQUIREMENT
    if error is servetune.GeneratorDefectError:
        expected = ExitStatus.DEFECT
    assert error.exit_status is expected


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_errors_appear_in_the_class_tree(error: type[ServetuneError]) -> None:
    import servetune.errors

    assert servetune.errors.__doc__ is not None
    if error is not servetune.ShadowedPackageError:
        assert error.__name__ in servetune.errors.__doc__


def test_init_changes_neither_environment_nor_loggers_nor_signals() -> None:
    code = """
import logging, os, signal
handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
environment = dict(os.environ)
import servetune
for name in servetune.__all__:
    getattr(servetune, name)
import search.study.driver, search.cluster.trial_actor, search.service.app, search.cli.main
import logging
assert dict(os.environ) == environment, set(os.environ.items()) ^ set(environment.items())
assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
assert logging.getLogger("ray.tune").level == logging.NOTSET
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
