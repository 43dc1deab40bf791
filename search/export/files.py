"""The files that production takes, in three formats."""

from __future__ import annotations

import difflib
import enum
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import javaproperties
import yaml

from search.errors import RunError
from search.report.summary import confirmed, describe
from search.study.confirm import Confirmation
from search.study.intervals import prediction_interval
from search.study.run_folder import Run
from search.trial.result import TrialResult
from serving.archive import Archive
from serving.config import ServerConfig
from serving.production import DeploymentTarget, beside_archive, edited, in_archive, rebuild
from serving.server import LOG_CONFIG

IMAGE = "pytorch/torchserve:0.12.0-cpu"
#: What the files say of themselves, for `servetune verify`.
CLAIM = "trial.json"


class ExportFormat(enum.StrEnum):
    """What carries the configuration."""

    PROPERTIES = "properties"
    MODEL_CONFIG = "model-config"
    COMPOSE = "compose"


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        folder: where.
        notes: what the reader must know besides.
        diff: how the config.properties in use was changed; empty without one.
    """

    folder: Path
    notes: tuple[str, ...]
    diff: str


_START = """\
#!/bin/sh
# Starts TorchServe as it was measured; MODEL_STORE is the folder of $archive.
set -eu
MODEL_STORE="$${MODEL_STORE:$otherwise}"
MODEL_STORE="$$(cd "$$MODEL_STORE" && pwd)"
cd "$$(dirname "$$0")"
unset TS_CONFIG_FILE # It would beat --ts-config.
set -a
. ./environment
set +a
${check}exec torchserve --start --foreground --ncs --model-store "$$MODEL_STORE" \\
  --ts-config config.properties --log-config log4j2.xml
"""
#: What the CPU launcher starts is the `python` on PATH; without torch in it, workers run unbound.
_LAUNCHER = """\
python -c 'import torch' || {
  echo "cpu_launcher_enable needs a command python with torch on PATH" >&2
  exit 1
}
"""
#: Where MODEL_STORE is not set: the archive lies beside the script, or it must be named.
_BESIDE, _NAMED = '-$(dirname "$0")', "?names no folder; the archive must lie in it"

_README = """\
# TorchServe configuration for $model $version: $how

Found by servetune in the run $run, trial $number. $standing

| | |
|---|---|
| sustained at 100 % success, in the search | $sustained rps (not sustained: $upper) |
| requests without a failure | $requests: success ≥ $bound at 95 % confidence, $by_batch by batch |
| latency from the due time | p50 $p50 s, p99 $p99 s |
| arrivals, time-out | $arrivals, $timeout s |
| settings | $settings |
$facts

## Use

    $command

- `config.properties`: the configuration. Inference listens on $inference, management on
  $management, metrics on $metrics. $tokens
- `environment`: threads and other variables. **They are part of the configuration**: without
  them TorchServe runs another one. $reader
- `log4j2.xml`: warnings and the model's own output, as it was measured. TorchServe's own file
  logs each request many times over.
- The archive must be registered as $model, version $version; otherwise the per-model settings
  are silently ignored.
$more- `trial.json`: what is claimed, for `servetune verify`.
"""
_TOKENS = """Token authorisation is on: TorchServe writes its tokens
  to `key_file.json`, $there, at each start, and clients send
  `Authorization: Bearer KEY`."""
_THERE = "in the folder that it is started in"
_IN_CONTAINER = "in the container (`docker compose exec torchserve cat key_file.json`)"

_UNCONFIRMED = """\
**Unconfirmed**: the rate below was measured
in the search that chose it for being the highest, and is therefore on average too high."""


def export(
    run: Run,
    result: TrialResult,
    archive: Archive,
    confirmation: Confirmation | None = None,
    form: ExportFormat = ExportFormat.PROPERTIES,
    target: DeploymentTarget | None = None,
    image: str = IMAGE,
) -> ExportResult:
    """Write `best/` for this trial, or `best-FORMAT/`, whole or not at all.

    Args:
        target: where the files will serve; TorchServe's own ports where not given.
        image: of the compose file.

    Raises:
        RunError: the trial sustained no rate.
        ConfigError, ArchiveError: the target's own files, or the archive's, cannot be changed so.
    """
    if not result.sustained_rps:
        raise RunError(f"trial {result.number} sustained no rate: {result.cause or 'nothing'}")
    target = target or DeploymentTarget()
    is_winner = (
        confirmation is not None
        and confirmation.plan.requests[confirmation.winner].config == result.config
        and confirmation.is_sure
    )
    name = "best" if form is ExportFormat.PROPERTIES else f"best-{form}"
    folder, new = run.folder / name, run.folder / f".{name}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        notes, diff, told = _write(new, form, result.config, archive, target, image)
        (new / "environment").write_text(result.config.environment_text())
        shutil.copy(LOG_CONFIG, new / "log4j2.xml")
        surely = confirmation if is_winner else None
        claim = _claim(run, result, archive, surely, form)
        claim["kept"] = target.kept(result.config)
        if form is ExportFormat.MODEL_CONFIG:
            claim["archive_sha256"] = Archive.read(new / archive.path.name).sha256
        (new / CLAIM).write_text(json.dumps(claim, indent=2) + "\n")
        readme = {**_figures(run, result, archive, surely), **told}
        (new / "README.md").write_text(Template(_README).substitute(readme))
    except BaseException:
        shutil.rmtree(new)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return ExportResult(folder, tuple(notes), diff)


def _write(
    folder: Path,
    form: ExportFormat,
    config: ServerConfig,
    archive: Archive,
    target: DeploymentTarget,
    image: str,
) -> tuple[list[str], str, dict[str, str]]:
    """The format's own files; returns the notes, the difference, and the README's own words."""
    notes = target.notes(config, archive)
    carried = config
    more, reader = "", "`start.sh` reads it; for systemd it is an EnvironmentFile."
    command = f"MODEL_STORE=/folder/of/{archive.path.name} ./start.sh"
    if form is ExportFormat.MODEL_CONFIG:
        carried, command = beside_archive(config), "./start.sh"
        inside = rebuild(archive, in_archive(config), folder / archive.path.name)
        (folder / "model-config.yaml").write_text(inside)
        more = (
            f"- `{archive.path.name}`: the archive with `model-config.yaml` inside, which beats\n"
            "  what any config.properties says of the model. The file is here to be read, too.\n"
        )
        alone = replace(carried, job_queue_size=None)  # That is in the archive, too.
        rest = describe(alone)
        if alone != ServerConfig():
            notes.append(
                f"an archive cannot carry {rest}: whoever ships it alone leaves these to TorchServe"
            )
    elif form is ExportFormat.COMPOSE:
        reader = "`compose.yaml` reads it."
        command = f"MODEL_STORE=/folder/of/{archive.path.name} docker compose up"
        notes.append(
            f"the image {image} has a Python, a torch and a Java of its own: a measurement tells "
            "whether the rate holds there"
        )
    text = target.properties_text(carried, archive)
    if form is ExportFormat.COMPOSE:
        text = _composed(folder, text, image, archive, notes)
    else:
        otherwise = _BESIDE if form is ExportFormat.MODEL_CONFIG else _NAMED
        start = folder / "start.sh"
        launches = config.properties.get("cpu_launcher_enable") == "true"
        check = _LAUNCHER if launches else ""
        names = {"archive": archive.path.name, "otherwise": otherwise, "check": check}
        start.write_text(Template(_START).substitute(names))
        start.chmod(0o755)
    (folder / "config.properties").write_text(text)
    diff = ""
    if target.base is not None:
        lines = (target.base.splitlines(keepends=True), text.splitlines(keepends=True))
        diff = "".join(difflib.unified_diff(*lines, "in use", "config.properties"))
        (folder / "changes.diff").write_text(diff)
        more += "- `changes.diff`: what was changed in the config.properties that is in use.\n"
    more += "".join(f"- Note: {note}.\n" for note in notes)
    there = _IN_CONTAINER if form is ExportFormat.COMPOSE else _THERE
    return notes, diff, {**_places(text, there), "command": command, "reader": reader, "more": more}


def _composed(folder: Path, text: str, image: str, archive: Archive, notes: list[str]) -> str:
    """Write compose.yaml; returns config.properties as it must be in a container."""
    held = javaproperties.loads(text)
    address = urlsplit(held.get("inference_address", "http://127.0.0.1:8080"))
    port = address.port or (443 if address.scheme == "https" else 80)
    inside = f"{address.scheme}://0.0.0.0:{port}"
    published = f"{port}:{port}"
    if address.hostname != "0.0.0.0":
        # Docker wants an address here.
        host = "127.0.0.1" if address.hostname == "localhost" else address.hostname
        published = f"{host}:{published}"
    home = "/home/model-server"
    service = {
        "image": image,
        "entrypoint": [
            *("torchserve", "--start", "--foreground", "--ncs"),
            *("--model-store", f"{home}/model-store"),
            *("--ts-config", f"{home}/config.properties"),
            *("--log-config", f"{home}/log4j2.xml"),
        ],
        "working_dir": home,
        "env_file": ["environment"],
        "ports": [published],
        "volumes": [
            f"./config.properties:{home}/config.properties:ro",
            f"./log4j2.xml:{home}/log4j2.xml:ro",
            f"${{MODEL_STORE:?names no folder; it must hold {archive.path.name}}}"
            f":{home}/model-store:ro",
        ],
        "init": True,
        "restart": "unless-stopped",
    }
    written = yaml.safe_dump({"services": {"torchserve": service}}, sort_keys=False, width=1000)
    (folder / "compose.yaml").write_text(written)
    notes.append(
        "management and metrics listen inside the container alone: docker compose exec reaches them"
    )
    notes += [
        f"{key}={path} is a path of the container: mount it"
        for key, path in held.items()
        if key in ("keystore", "private_key_file", "certificate_file", "plugins_path")
    ]
    return edited(text, {"inference_address": inside})


def _places(text: str, there: str) -> dict[str, str]:
    """Where it listens and where its tokens are, as the README says it."""
    held = javaproperties.loads(text)
    found = {
        name: held.get(f"{name}_address", f"http://127.0.0.1:{port}")
        for name, port in (("inference", 8080), ("management", 8081), ("metrics", 8082))
    }
    tokens = Template(_TOKENS).substitute(there=there)
    is_open = held.get("disable_token_authorization", "").lower() == "true"
    return {**found, "tokens": "**Token authorisation is off.**" if is_open else tokens}


def _claim(
    run: Run, result: TrialResult, archive: Archive, surely: Confirmation | None, form: ExportFormat
) -> dict[str, Any]:
    """What is claimed of these files, as plain JSON data."""
    spec = run.spec()
    expected = prediction_interval(surely.rounds.served(surely.winner)) if surely else None
    return {
        "format": form,
        "run": run.name,
        "trial": result.number,
        "model": archive.name,
        "version": archive.version,
        "archive": archive.path.name,
        "archive_sha256": archive.sha256,
        "settings": result.config.to_dict(),
        "claimed_rps": expected.low if expected else result.sustained_rps,
        "claimed_by": (
            "the confirmation: the lower end of the 95 % prediction interval"
            if expected
            else "the search alone, which is on average too high"
        ),
        "p99_s": result.p99_s,
        "arrivals": spec.load.arrivals,
        "timeout_s": spec.load.timeout_s,
    }


def _figures(
    run: Run, result: TrialResult, archive: Archive, surely: Confirmation | None
) -> dict[str, str]:
    """The README's figures, by their places."""
    load = run.spec().load
    return {
        "model": archive.name,
        "version": archive.version,
        "run": run.name,
        "how": "confirmed" if surely else "unconfirmed",
        "standing": confirmed(surely) if surely else _UNCONFIRMED,
        "number": str(result.number),
        "sustained": f"{result.sustained_rps:.1f}",
        "upper": f"{result.rate.upper_rps:.1f} rps"
        if result.rate.upper_rps
        else "nothing that was offered",
        "requests": str(result.rate.requests_without_failure),
        "bound": f"{result.rate.success_bound or 0:.2%}",
        "by_batch": f"{result.rate.success_bound_by_batch or 0:.2%}",
        "p50": f"{result.latency.p50_s or 0:.3f}",
        "p99": f"{result.p99_s or 0:.3f}",
        "arrivals": load.arrivals,
        "timeout": f"{load.timeout_s:g}",
        "settings": describe(result.config),
        "facts": _facts(result.host.facts),
    }


def _facts(facts: Mapping[str, Any]) -> str:
    # A host's name says where, which is not for the files that leave it.
    return "\n".join(f"| {name} | {value} |" for name, value in facts.items() if name != "host")
