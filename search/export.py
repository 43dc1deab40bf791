"""The files that production takes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from search.confirm import Confirmation
from search.errors import RunError
from search.report import confirmed, describe
from search.result import TrialResult
from search.run import Run
from serving.archive import Archive
from serving.server import LOG_CONFIG

#: TorchServe's own ports. Only inference listens beyond the host; tokens are asked for.
PRODUCTION = {
    "inference_address": "http://0.0.0.0:8080",
    "management_address": "http://127.0.0.1:8081",
    "metrics_address": "http://127.0.0.1:8082",
    "grpc_inference_address": "127.0.0.1",
    "grpc_management_address": "127.0.0.1",
    "grpc_inference_port": "7070",
    "grpc_management_port": "7071",
    "disable_token_authorization": "false",
    "disable_system_metrics": "true",
    "metrics_mode": "prometheus",
}

_START = """\
#!/bin/sh
# Starts TorchServe as it was measured: MODEL_STORE=/folder/of/the/archive ./start.sh
set -eu
: "$${MODEL_STORE:?names no folder; it must hold $archive}"
MODEL_STORE="$$(cd "$$MODEL_STORE" && pwd)"
cd "$$(dirname "$$0")"
unset TS_CONFIG_FILE # It would beat --ts-config.
set -a
. ./environment
set +a
exec torchserve --start --foreground --ncs --model-store "$$MODEL_STORE" \\
  --ts-config config.properties --log-config log4j2.xml
"""

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

    MODEL_STORE=/folder/of/$archive ./start.sh

- `config.properties`: the configuration. Inference listens on port 8080 of every address,
  management and metrics on the loopback. Token authorisation is on: TorchServe writes its tokens
  to `key_file.json` here at each start, and clients send `Authorization: Bearer KEY`.
- `environment`: threads and other variables. **They are part of the configuration**: without
  them TorchServe runs another one. `start.sh` reads it; for systemd it is an EnvironmentFile.
- `log4j2.xml`: warnings and the model's own output, as it was measured. TorchServe's own file
  logs each request many times over.
- The archive must be registered as $model, version $version; otherwise the per-model settings
  are silently ignored.
- System metrics are off (`disable_system_metrics`), as they were while measuring.
"""


_UNCONFIRMED = """\
**Unconfirmed**: the rate below was measured
in the search that chose it for being the highest, and is therefore on average too high."""


def export(
    run: Run, result: TrialResult, archive: Archive, confirmation: Confirmation | None = None
) -> Path:
    """Write `best/` for this trial, whole or not at all.

    Raises:
        RunError: the trial sustained no rate.
    """
    if not result.sustained_rps:
        raise RunError(f"trial {result.number} sustained no rate: {result.cause or 'nothing'}")
    is_winner = (
        confirmation is not None
        and confirmation.plan.tasks[confirmation.winner].config == result.config
        and confirmation.is_sure
    )
    spec = run.spec()
    folder, new = run.folder / "best", run.folder / ".best.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    (new / "config.properties").write_text(result.config.properties_text(archive, PRODUCTION))
    (new / "environment").write_text(result.config.environment_text())
    shutil.copy(LOG_CONFIG, new / "log4j2.xml")
    start = new / "start.sh"
    start.write_text(Template(_START).substitute(archive=archive.path.name))
    start.chmod(0o755)
    (new / "README.md").write_text(
        Template(_README).substitute(
            model=archive.name,
            version=archive.version,
            archive=archive.path.name,
            run=run.name,
            how="confirmed" if is_winner else "unconfirmed",
            standing=confirmed(confirmation) if confirmation and is_winner else _UNCONFIRMED,
            number=result.number,
            sustained=f"{result.sustained_rps:.1f}",
            upper=f"{result.upper_rps:.1f} rps" if result.upper_rps else "nothing that was offered",
            requests=result.zero_failures_of,
            bound=f"{result.success_bound or 0:.2%}",
            by_batch=f"{result.success_bound_by_batch or 0:.2%}",
            p50=f"{result.p50_s or 0:.3f}",
            p99=f"{result.p99_s or 0:.3f}",
            arrivals=spec.load.arrivals,
            timeout=f"{spec.load.timeout_s:g}",
            settings=describe(result.config),
            facts=_facts(result.host),
        )
    )
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return folder


def _facts(facts: Mapping[str, Any]) -> str:
    # A host's name says where, which is not for the files that leave it.
    return "\n".join(f"| {name} | {value} |" for name, value in facts.items() if name != "host")
