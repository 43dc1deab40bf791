"""Who may import whom, and which libraries belong where."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("loadgen", "search", "servetune", "serving")
FILES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
#: The packages of `search`: each may import those before it in the list, and those beside it not.
LAYERS = (
    ("spec",),
    ("trial",),
    ("sampler",),
    ("cluster",),
    ("confirmation",),
    ("study",),
    ("answer",),
    ("report", "measure"),
    ("export", "sinks"),
    ("service",),
    ("cli",),
)
#: Modules of `search` that every layer may import; they import none of the layers.
BASE = {
    f"search.{name}"
    for name in ("atomic_files", "environment", "errors", "formats", "headroom", "intervals")
}
MAY_IMPORT = {
    "ray": {
        "loadgen/ray_process.py",
        "search/cluster/confirmation_host.py",
        "search/cluster/node.py",
        "search/cluster/placement.py",
        "search/cluster/ray_session.py",
        "search/cluster/survey.py",
        "search/cluster/trial_actor.py",
        "search/cluster/trial_trainable.py",
        "search/service/ray_jobs.py",
        "search/study/driver.py",
        "search/study/tensorboard.py",
        "search/study/tune_adapter.py",
    },
    "optuna": {
        "search/sampler/importance.py",
        "search/study/run_state.py",
        "search/sampler/sampler.py",
        "search/study/storage.py",
        "search/study/store.py",
        "search/study/trial_queue.py",
        "search/study/tune_adapter.py",
    },
    "aiohttp": {
        "loadgen/connection.py",
        "loadgen/posting.py",
        "search/cli/serve.py",
        "search/service/access.py",
        "search/service/app.py",
        "search/service/client.py",
        "search/service/event_stream.py",
        "search/service/guard.py",
        "search/service/job_handlers.py",
        "search/service/requested.py",
        "search/service/responses.py",
        "search/service/result_handlers.py",
        "search/service/sending.py",
        "search/service/uploads.py",
        "serving/local_api.py",
    },
    "httptools": {"loadgen/http_connection.py"},
}


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported_modules(path)}


def layer_of(module: str) -> int | None:
    """The number of a module's layer; None if it belongs to none."""
    parts = module.split(".")
    if parts[0] != "search" or len(parts) < 2:
        return None
    return next((n for n, layer in enumerate(LAYERS) if parts[1] in layer), None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_exchange_only_a_url_between_serving_and_loadgen(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    forbidden = {
        "serving": {"loadgen", "search"},
        "loadgen": {"serving", "search"},
        "search": set(),
        "servetune": set(),
    }
    assert not imported_packages(path) & forbidden[package]


def test_layers_name_every_folder_of_search() -> None:
    folders = {p.name for p in (ROOT / "search").iterdir() if (p / "__init__.py").is_file()}
    assert folders == {name for layer in LAYERS for name in layer}


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.is_relative_to(ROOT / "search")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_layers_import_only_those_before_them(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    own = layer_of(module)
    package = module.rpartition(".")[0]
    for name in imported_modules(path):
        other = layer_of(name)
        if own is None:
            assert other is None, f"{module} is below every layer and imports {name}"
        elif other is not None and not name.startswith(package):
            assert other < own, f"{module} imports {name}, which is not below it"
        elif other is None and name.startswith("search."):
            assert any(name == base or name.startswith(f"{base}.") for base in BASE), name


def test_errors_module_imports_nothing_of_the_project() -> None:
    assert not imported_packages(ROOT / "servetune" / "errors.py") & {*PACKAGES}


@pytest.mark.parametrize(
    "modules",
    [
        "search.spec.loading, search.spec.preflight",
        "search.report.summary, search.report.compare, search.report.html_report",
        "search.study.outcome, search.trial.ranking, search.study.run_folder",
        "search.answer.pareto, search.answer.gain",
        "search.trial.result, search.trial.judging",
        "servetune",
    ],
)
def test_pure_modules_import_neither_ray_nor_optuna(modules: str) -> None:
    code = f"import sys, {modules}; print(sorted({{'ray', 'optuna'}} & sys.modules.keys()))"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_installed_code_does_not_import_tests_or_benchmarks(path: Path) -> None:
    assert not imported_packages(path) & {"benchmarks", "tests"}


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_libraries_are_imported_only_where_they_belong(library: str) -> None:
    users = {str(p.relative_to(ROOT)) for p in FILES if library in imported_packages(p)}
    assert users == MAY_IMPORT[library]


def test_imports_are_declared() -> None:
    """Every import is of the standard library, the project itself, or declared in setup.cfg."""
    declared = (ROOT / "setup.cfg").read_text().lower()
    module_to_project = {
        "yaml": "pyyaml",
        "optuna_dashboard": "optuna-dashboard",
        "hdrh": "hdrhistogram",
        "kubernetes_validate": "kubernetes-validate",
        "markdown_it": "markdown-it-py",
        "prometheus_client": "prometheus-client",
        "mlflow": "mlflow-skinny",
        "pynvml": "nvidia-ml-py",
        "model_archiver": "torch-model-archiver",
    }
    for path in FILES:
        for name in imported_packages(path) - set(PACKAGES) - set(sys.stdlib_module_names):
            project = module_to_project.get(name, name).lower()
            assert f"\n    {project} " in declared or f"\n    {project}[" in declared, (path, name)


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_pages_for_contributors_name_files_and_names_that_exist(page: str) -> None:
    _, _, changes = (ROOT / page).read_text().partition("make a change")
    changes = changes or (ROOT / page).read_text().partition("## To change X")[2]
    quoted = set(re.findall(r"`([^`\n]+)`", changes))
    paths = {name for name in quoted if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", name)}
    assert paths and not [name for name in paths if not (ROOT / name).exists()]
    code = "".join(path.read_text() for path in FILES)
    names = {
        name for name in quoted if re.fullmatch(r"_?[A-Z]\w*[a-zA-Z](\.\w+)?|[A-Z_]{4,}", name)
    }
    parts = {part for name in names for part in name.split(".")} - {"NAME"}
    assert parts and not [part for part in parts if not re.search(rf"\b{part}\b", code)]


def layout_rows() -> dict[str, str]:
    """Each folder of the layout in docs/architecture.md, with the files of its row."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `([\w/]+/)` \|[^|]*\|(.*)\|$", text, re.MULTILINE)
    return {folder: files for folder, files in rows if (ROOT / folder).is_dir()}


def test_layout_names_every_module_and_no_other() -> None:
    rows = layout_rows()
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in FILES}
    assert folders <= rows.keys(), "each folder has a row"
    for folder in sorted(folders):
        modules = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
        named = set(re.findall(r"`(\w+\.py)`", rows[folder])) - {"__init__.py"}
        assert named <= modules, (folder, named - modules)
        # A row may give examples of modules that are alike.
        assert named == modules or "one module per" in rows[folder], (folder, modules - named)
