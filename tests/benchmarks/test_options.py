"""Benchmarks refuse options that do not fit before they measure anything."""

from collections.abc import Callable

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import confirmation, measure, search


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (confirmation.main, ["--case", "none"], "no case contains 'none'"),
        (measure.main, ["--only", "repeated", "--case", "stall"], "only with --runs"),
        (measure.main, ["--only", "repeated", "--json", "x.json"], "only with --runs"),
        (measure.main, ["--case", "none"], "unknown case 'none'"),
        (search.main, ["--only", "none", "--per-kind", "1"], "unknown set 'none'"),
        (search.main, ["--of", "none"], "unknown contestant 'none'"),
        (search.main, ["--seconds", "60"], "Invalid value for '--seconds'"),
        (search.main, ["--seeds", "0"], "Invalid value for '--seeds'"),
        (search.main, ["--per-kind", "0"], "Invalid value for '--per-kind'"),
    ],
)
def test_benchmark_refuses(main: Callable[..., None], arguments: list[str], message: str) -> None:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
