"""The versions of the files that servetune writes, and the check when they are read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.errors import RunError

#: spec.yaml of a run.
#: 1: the specification with every default written out, and `recorded`.
#: 2: `cluster.heterogeneous_hosts` instead of `unlike_hosts`; `recorded.host` unchanged.
#: 3: `serving.limits.memory_mb` instead of `serving.memory_limit_mb`; `serving.limits.cpus`.
#: 4: no `goal.windows`: no window with a failure is outvoted.
#: 5: `goal.objective`, `for_rps`, `headroom` and `limits`; `goal.limits.p99_s` instead of
#: `goal.p99_s`.
SPEC_VERSION = 5
#: trials.jsonl, one line for each finished trial. Records that earlier servetunes did not write are
#: empty when they are read: `background`, `predicted`, `mix`.
#: 1: one flat record.
#: 2: nested records `rate`, `latency`, `server`, `host`, `timing`; `failure`, `origin`, `warnings`.
#: 3: `server.peak_memory_mb` (PSS) instead of `peak_rss_mb` (sum of RSS).
#: 4: `rate.estimate`; `latency.p90_s` and `curve`; `stop_reason` of the search that verifies an
#: estimate; the success bounds count every window at the rate.
#: 5: `latency.target`, `p95_s` and `limit_excess` instead of `p99_excess`; `rate.unlimited_rps`.
#: 6: `server_probes`.
TRIALS_VERSION = 6
#: events.jsonl of a job.
#: 1: `why` and `narrowing`.
#: 2: `origin` and `bracketing`.
EVENTS_VERSION = 2
#: trial.json, the measured figures beside exported files.
#: 1: no version.
#: 2: the same with a version.
#: 3: `kept` holds settings instead of lines.
#: 4: `expected_rps`, `batch_capacity`, `scaling`; other models; `kept` holds all that is added.
#: 5: `limits` of the trial.
CLAIM_VERSION = 5
#: measurements.json of a trial: `result`, `probes`, `windows`.
#: 1: no version, `result` flat.
#: 2: `result` as in trials.jsonl, version 2.
#: 3: `result` as in trials.jsonl, version 3.
#: 4: `result` as in trials.jsonl, version 4.
#: 5: `result` as in trials.jsonl, version 5.
#: 6: `result` as in trials.jsonl, version 6.
MEASUREMENTS_VERSION = 6
#: recheck.jsonl, one line for each measurement of exported files.
#: 1: `time_s`, `estimate_rps`; the first lines have no version.
RECHECK_VERSION = 1
#: The body of a webhook.
#: 1: `event`, and `run` or `job` with the figures of the result.
NOTIFICATION_VERSION = 1
#: noise.json of a run and of the user's cache folder: the noise of earlier confirmations.
#: 1: `hosts`, with the variances of their runs.
NOISE_VERSION = 1


def check_version(data: Mapping[str, Any], known: int, source: object) -> None:
    """Check the version of data that was read.

    Args:
        data: the data; its version is `format_version`, or 1 without this key.
        known: the version that this servetune reads.
        source: the file, for the message.

    Raises:
        RunError: the data has another version.
    """
    version = data.get("format_version", 1)
    if version != known:
        raise RunError(
            f"{source} has format_version {version!r}, but this servetune reads {known}; "
            "use the version of servetune that wrote it"
        )
