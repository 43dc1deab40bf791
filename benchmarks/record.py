"""Record a surface of a real TorchServe: `python -m benchmarks.record HANDLER FILE.csv`.

Measures each configuration of a grid, in random order, in a fresh server: closed-loop throughput in
a window after a warm-up.
"""

from __future__ import annotations

import asyncio
import csv
import itertools
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from PIL import Image
from rich.console import Console

from benchmarks.law import Law
from benchmarks.stub import running_stub
from benchmarks.surfaces import SURFACE_SETTINGS
from loadgen.errors import GeneratorLostError
from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.measurement import Load
from loadgen.payloads import read_payloads
from loadgen.schedule import Closed
from search.trial.host_lock import exclusive_host
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.demo.build import pack_archive
from serving.errors import ServerError
from serving.installation import find_installation
from serving.server import TorchServe
from serving.site import Site

HANDLERS = Path(__file__).parent / "handlers"
GRID = {
    "workers": (1, 2, 4),
    "batch_size": (1, 4, 16, 64),
    "max_batch_delay_ms": (10, 100),
    "mkl_threads": (1, 2),
}
#: What the handler `calls` calls: 60 ms for each call, 24 at once.
SERVICE = Law(workers=24, service_s=0.06)
WARMUP_S, WINDOW_S = 3.0, 4.0
TIMEOUT_S = 20.0
COLUMNS = ("pass", *SURFACE_SETTINGS, "ready_s", "closed_rps", "p50_s", "p99_s", "failures")


def pack_handler(handler: str, folder: Path) -> Archive:
    """Pack a handler of `benchmarks/handlers` into an archive in this folder."""
    content = folder / "content"
    content.mkdir()
    shutil.copy(HANDLERS / f"{handler}.py", content)
    return Archive.read(pack_archive(handler, f"{handler}.py:handle", content, folder))


@contextmanager
def service_of(handler: str) -> Iterator[dict[str, str]]:
    """Run the service that a handler calls, if any; yield the variables of its servers."""
    if handler != "calls":
        yield {}
        return
    with running_stub(SERVICE) as stub:
        yield {"SERVICE_URL": stub.url}


def write_requests(handler: str, folder: Path) -> Path:
    """Write a request for a handler of `benchmarks/handlers`; return the path of the file."""
    line: dict[str, Any] = {"body": {"n": 1}}
    if handler == "classifier":
        line = {"file": "picture.jpg", "content_type": "image/jpeg"}
        # A camera's picture has noise, which a JPEG file stores in full.
        pixels = random.Random(0).randbytes(512 * 384 * 3)
        Image.frombytes("RGB", (512, 384), pixels).save(folder / "picture.jpg", quality=75)
    path = folder / "requests.jsonl"
    path.write_text(json.dumps(line) + "\n")
    return path


def write_study(handler: str, folder: Path, **sections: Any) -> Path:
    """Write a specification for a handler; return its path. Its runs are in FOLDER/runs."""
    archive = pack_handler(handler, folder)
    model = {"archive": str(archive.path), "requests": write_requests(handler, folder).name}
    output = {"folder": str(folder / "runs")}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({"model": model, "output": output, **sections}))
    return path


async def record(config: ServerConfig, site: Site, fleet: Fleet, folder: Path) -> dict[str, Any]:
    """Measure a configuration; return its columns, 0 and one failure if it cannot serve."""
    users = max(48, 2 * (config.workers or 1) * (config.batch_size or 1))
    server = TorchServe(config, site, folder)
    try:
        async with server:
            await fleet.set_target(server.url)
            for seconds in (WARMUP_S, WINDOW_S):
                load = Load(Closed(users), seconds, TIMEOUT_S)
                measurement = await server.guard(fleet.measure(load))
    except (ServerError, GeneratorLostError):
        return {"ready_s": 0, "closed_rps": 0, "p50_s": 0, "p99_s": 0, "failures": 1}
    return {
        "ready_s": round(server.ready_s, 2),
        "closed_rps": round(measurement.goodput_rps, 3),
        "p50_s": round(measurement.service.quantile(0.5) or 0.0, 4),
        "p99_s": round(measurement.service.quantile(0.99) or 0.0, 4),
        "failures": measurement.failed,
    }


async def _record_all(handler: str, path: Path, passes: int, console: Console) -> None:
    shuffler = random.Random(0)
    with (
        exclusive_host(),
        tempfile.TemporaryDirectory(prefix="servetune-record-") as temporary,
        service_of(handler) as environment,
    ):
        folder = Path(temporary)
        site = Site(pack_handler(handler, folder), find_installation())
        fleet = Fleet(local_processes(read_payloads(write_requests(handler, folder))))
        try:
            with path.open("w", newline="") as file:
                rows = csv.DictWriter(file, COLUMNS)
                rows.writeheader()
                for number in range(1, passes + 1):
                    points = list(itertools.product(*GRID.values()))
                    shuffler.shuffle(points)
                    for point in points:
                        values: dict[str, Any] = dict(zip(GRID, point, strict=True))
                        config = ServerConfig(
                            netty_threads=2,
                            netty_client_threads=2,
                            job_queue_size=1000,
                            environment=environment,
                            **values,
                        )
                        measured = await record(config, site, fleet, folder / "server")
                        rows.writerow({"pass": number, **values, **measured})
                        file.flush()
                        console.print(f"{values}: {measured['closed_rps']} rps", highlight=False)
        finally:
            fleet.close()


def main(
    handler: Annotated[
        str, typer.Argument(help="One of calls, classifier, fixed, memory and waits.")
    ],
    path: Annotated[Path, typer.Argument(help="CSV file to write.")],
    passes: Annotated[int, typer.Option(min=1, help="Passes over the grid.")] = 2,
) -> None:
    """Record the closed-loop throughput of a grid of configurations."""
    if not (HANDLERS / f"{handler}.py").is_file():
        known = ", ".join(sorted(file.stem for file in HANDLERS.glob("*.py")))
        raise typer.BadParameter(f"unknown handler {handler!r}; choose from {known}")
    asyncio.run(_record_all(handler, path, passes, Console()))


if __name__ == "__main__":
    typer.run(main)
