"""Generated deployments: a config.properties in one of the forms that people write."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.archive import Archive
from serving.configuration.config import ServerConfig

#: Lines that servetune does not tune: comments, other properties, keys that TorchServe ignores.
UNTUNED_LINES = (
    "# file d'attente r\xe9gl\xe9e",
    "! another comment",
    "",
    "   ",
    "inference_address=http://0.0.0.0:8085",
    "management_address : http://127.0.0.1:8081",
    "grpc_inference_port 7070",
    "enable_metrics_api=true",
    "metrics_format=prometheus",
    "NUM_WORKERS=1",
    "prefer_direct_buffer=True",
    "install_py_dep_per_model = FALSE",
    "cors_allowed_origin=http://caf\xe9.example",
    "cors_allowed_methods=GET, POST, \\\n  PUT",
    "max_request_size=655350000",
    "default_response_timeout=90",
    "model_store=/mnt/models/model-store",
    "workflow_store=C\\:\\\\models",
    "token_expiration_min=0.25",
    "unregister_model_timeout=+120",
)
_LINE_ENDS = ("\n", "\n", "\r\n", "\r")


@dataclass(frozen=True)
class Generated:
    """A deployment and a configuration to export into it.

    Attributes:
        text: the config.properties, decoded as Latin-1.
        untuned: its lines that must stay, with their line ends.
        form: how the model's settings are written.
    """

    text: str
    untuned: tuple[str, ...]
    archive: Archive
    tuned: ServerConfig
    form: str


def generate(seed: int, path: Path) -> Generated:
    """Return a deployment of the archive `path`, whose model is called by the file's stem."""
    source = random.Random(seed)
    form = source.choice(["models", "snapshot", "alias", "alias and models", "default", "all"])
    name = "parrot" if form.startswith("alias") else path.stem
    entry = _entry(source, full=form == "snapshot")
    others = {"zoo": {"1.0": _entry(source, full=True) | {"marName": "zoo.mar"}}}
    lines = [(line, True) for line in source.sample(UNTUNED_LINES, source.randint(0, 8))]
    if form == "snapshot":
        models = {name: {"1.0": {"marName": path.name, "defaultVersion": True, **entry}}}
        data = {"name": "s.cfg", "modelCount": 1, "models": models}
        lines.append((f"model_snapshot={_json(source, data)}", False))
    else:
        load_models = {"alias": f"parrot={path.name}", "all": "ALL"}
        loaded = load_models.get(form.split(" ")[0], path.name)
        lines.append((f"load_models={loaded}", True))
        if form in ("models", "alias and models"):
            models = {name: {"1.0": entry}, **(others if source.random() < 0.3 else {})}
            lines.append((f"models={_json(source, models)}", False))
    if form == "default":
        lines.append((f"default_workers_per_model={source.randint(1, 4)}", True))
    for key in ("number_of_netty_threads", "netty_client_threads", "job_queue_size"):
        if source.random() < 0.4:
            lines.append(
                (f"{key}{source.choice(['=', ' = ', ':'])}{source.randint(1, 400)}", False)
            )
    if source.random() < 0.3:
        lines.append((source.choice(["vmargs=-Xmx1g  -server", 'vmargs=-Dname="a"']), False))
    source.shuffle(lines)
    end = source.choice(_LINE_ENDS)
    written = [line.replace("\n", end) + end for line, _ in lines]
    if source.random() < 0.3:
        written[-1] = written[-1].removesuffix(end)
    mark = "\xef\xbb\xbf# settings" + end if source.random() < 0.1 else ""
    untuned = tuple(text for text, (_, stays) in zip(written, lines, strict=True) if stays)
    archive = Archive(path, path.stem, "1.0")
    return Generated(mark + "".join(written), untuned, archive, _tuned(source), form)


def _entry(source: random.Random, full: bool) -> dict[str, Any]:
    workers = source.randint(1, 3)
    entry: dict[str, Any] = {
        **{"minWorkers": workers, "maxWorkers": workers, "batchSize": source.randint(1, 9)},
        **{"maxBatchDelay": source.randint(1, 99), "responseTimeout": source.randint(60, 200)},
    }
    if not full:
        entry = {key: value for key, value in entry.items() if source.random() < 0.7}
        for key in list(entry):
            form = source.random()
            entry[key] = str(entry[key]) if form < 0.2 else entry[key]
            entry[key] = float(entry[key]) if 0.2 < form < 0.3 else entry[key]
        if source.random() < 0.2:
            entry["unknownKey"] = "x"
    return entry


def _json(source: random.Random, data: dict[str, Any]) -> str:
    """Return the JSON on one line, on several with backslashes, or with single quotes."""
    form = source.randint(0, 2)
    if form == 0:
        return json.dumps(data)
    if form == 1:
        return json.dumps(data, indent=2).replace("\n", "\\\n")
    return json.dumps(data, separators=(",", ":")).replace('"', "'")


def _tuned(source: random.Random) -> ServerConfig:
    """Return a configuration with all settings that a default search varies, and some more."""
    more: dict[str, Any] = {}
    if source.random() < 0.3:
        more["job_queue_size"] = source.randint(10, 1000)
    if source.random() < 0.3:
        more["response_timeout_s"] = source.randint(60, 300)
    if source.random() < 0.3:
        more["jvm"] = {"-Xmx": "512m", "-XX:ParallelGCThreads": "1"}
    if source.random() < 0.3:
        more["properties"] = {"prefer_direct_buffer": source.choice(["true", "false"])}
    return ServerConfig(
        workers=source.randint(1, 2),
        batch_size=source.randint(1, 16),
        max_batch_delay_ms=source.randint(1, 60),
        netty_threads=source.randint(1, 3),
        netty_client_threads=source.randint(1, 3),
        mkl_threads=1,
        **more,
    )
