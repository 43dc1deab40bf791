"""The command dashboard: TensorBoard and optuna-dashboard for a run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from search.cli.console import create_console
from search.errors import RunError, ServiceError

console = create_console(soft_wrap=True)


def dashboard(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="path of the run's folder")],
) -> None:
    """Show a run in TensorBoard and optuna-dashboard, until Ctrl-C."""
    from search.cluster.node import free_ports
    from search.service.jobs import write_json
    from search.service.study_dashboard import STORAGE_VARIABLE
    from search.study.run_folder import STUDY_FILE, Run
    from serving.identity import process_identity

    opened = Run.open(run)
    url = opened.spec().output.storage
    if url is None and not (opened.folder / STUDY_FILE).is_file():
        raise RunError(f"{opened.folder} has no {STUDY_FILE}, which optuna-dashboard shows")
    _check_installed()
    ports = dict(zip(("TensorBoard", "optuna-dashboard"), free_ports(2), strict=True))
    folder = ["--logdir", str(opened.folder)]
    modules = {
        "TensorBoard": ["tensorboard.main", *folder, "--port", str(ports["TensorBoard"])],
        "optuna-dashboard": ["search.service.study_dashboard", str(ports["optuna-dashboard"])],
    }
    # The storage may contain a password, which a command line would show to every user.
    variables = {"optuna-dashboard": {STORAGE_VARIABLE: opened.storage(url)}}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    record = opened.folder / "dashboards.json"
    try:
        for name, module in modules.items():
            processes[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", *module],
                env={**os.environ, **variables.get(name, {})},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        running = {
            name: {
                "url": f"http://127.0.0.1:{ports[name]}",
                "process": process_identity(process.pid),
            }
            for name, process in processes.items()
        }
        write_json(record, running)
        for name, entry in running.items():
            console.print(f"{name}: {entry['url']}")
        while all(process.poll() is None for process in processes.values()):
            time.sleep(0.5)
        ended = next(name for name, process in processes.items() if process.poll() is not None)
        status = processes[ended].returncode
        raise ServiceError(f"{ended} ended unexpectedly with exit status {status}")
    finally:
        record.unlink(missing_ok=True)
        for process in processes.values():
            process.terminate()
            process.wait()


def _check_installed() -> None:
    """Raise ServiceError if one of the dashboards is not installed."""
    packages = {"tensorboard": "tensorboard", "optuna-dashboard": "optuna_dashboard"}
    if missing := [n for n, module in packages.items() if importlib.util.find_spec(module) is None]:
        raise ServiceError(
            f"{' and '.join(missing)} not installed; run make setup in a checkout, otherwise "
            "pip install 'servetune[dashboard]'"
        )
