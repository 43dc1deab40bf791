"""Versions of the files that servetune writes, and the check on reading them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.errors import RunError

#: spec.yaml of a run.
#: 1: the specification with every default written out, and `recorded`.
#: 2: `cluster.heterogeneous_hosts` instead of `unlike_hosts`; `recorded.host` unchanged.
SPEC_VERSION = 2
#: trials.jsonl, a line for each finished trial.
#: 1: one flat record.
#: 2: nested records `rate`, `latency`, `server`, `host`, `timing`; `failure`, `origin`, `warnings`.
TRIALS_VERSION = 2
#: events.jsonl of a job.
#: 1: `why` and `narrowing`.
#: 2: `origin` and `bracketing`.
EVENTS_VERSION = 2
#: trial.json, what exported files claim.
#: 1: no version.
#: 2: unchanged but for the version.
CLAIM_VERSION = 2
#: measurements.json of a trial: `result`, `probes`, `windows`.
#: 1: no version, `result` flat.
#: 2: `result` as in trials.jsonl, version 2.
MEASUREMENTS_VERSION = 2


def check_version(data: Mapping[str, Any], known: int, what: object) -> None:
    """Refuse data of another version.

    Args:
        data: carries its version as `format_version`; without one it is of version 1.
        known: the version that this servetune reads.
        what: the file, for the message.

    Raises:
        RunError: another version.
    """
    found = data.get("format_version", 1)
    if found != known:
        raise RunError(
            f"{what} has format_version {found!r}, and this servetune reads {known}; "
            "use the servetune that wrote it"
        )
