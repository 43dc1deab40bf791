"""The rooms of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("loadgen", "search", "serving")
FILES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
MAY_IMPORT = {
    "ray": {
        "loadgen/ray_process.py",
        "search/bench.py",
        "search/cluster.py",
        "search/optimizer.py",
        "search/service/cluster.py",
        "search/study.py",
        "search/up.py",
    },
    "optuna": {"search/optimizer.py", "search/sampler.py"},
    "aiohttp": {
        "loadgen/client.py",
        "loadgen/connection.py",
        "search/service/app.py",
        "search/service/client.py",
        "search/service/commands.py",
        "serving/server.py",
    },
    "MLRsearch": {"loadgen/sustained.py"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_a_url_crosses_between_serving_and_loadgen(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    forbidden = {
        "serving": {"loadgen", "search"},
        "loadgen": {"serving", "search"},
        "search": set(),
    }
    assert not imported(path) & forbidden[package]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_installed_needs_what_judges_it(path: Path) -> None:
    assert not imported(path) & {"benchmarks", "tests"}


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {str(p.relative_to(ROOT)) for p in FILES if library in imported(p)}
    assert users == MAY_IMPORT[library]


def test_every_import_is_declared() -> None:
    """What the packages import is the standard library, themselves, or in setup.cfg."""
    import sys

    declared = (ROOT / "setup.cfg").read_text().lower()
    module_to_project = {
        "yaml": "pyyaml",
        "hdrh": "hdrhistogram",
        "markdown_it": "markdown-it-py",
        "pynvml": "nvidia-ml-py",
        "model_archiver": "torch-model-archiver",
    }
    for path in FILES:
        for name in imported(path) - set(PACKAGES) - set(sys.stdlib_module_names):
            project = module_to_project.get(name, name).lower()
            assert f"\n    {project} " in declared or f"\n    {project}[" in declared, (path, name)
