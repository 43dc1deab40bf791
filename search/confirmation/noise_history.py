"""The noise of earlier confirmations on each host, in the user's cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Collection, Iterator
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.atomic_files import write_atomically
from search.confirmation.noise import Variance, prior_of
from search.errors import RunError, first_line
from search.formats import NOISE_VERSION, check_version
from search.trial.result import TrialResult

#: Runs of a host that are kept.
_KEPT_RUNS = 30


class NoiseEntry(BaseModel):
    """The variance of the logarithm of a visit's rate, within the configurations of a run."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    run: str
    variance: float = Field(ge=0)
    dof: float = Field(gt=0)


class NoiseHistory(BaseModel):
    """The entries of each host, the oldest first."""

    model_config = ConfigDict(frozen=True)

    hosts: dict[str, list[NoiseEntry]] = {}

    def prior(self, host: str) -> Variance | None:
        """Return what the host's earlier runs say about the variance of the next."""
        return prior_of([Variance(e.variance, e.dof) for e in self.hosts.get(host, [])])

    def with_entry(self, host: str, entry: NoiseEntry) -> NoiseHistory:
        """Return the history with the entry of a run, instead of an earlier one of the same run."""
        others = [e for e in self.hosts.get(host, []) if e.run != entry.run]
        return NoiseHistory(hosts={**self.hosts, host: [*others, entry][-_KEPT_RUNS:]})


def host_key(result: TrialResult) -> str:
    """Return the name by which a history knows the host of a measurement."""
    facts = result.host.facts
    return (
        f"{facts.get('host', 'unknown')}, {facts.get('cpu', 'unknown')}, {result.host.cores} cores"
    )


def history_path() -> Path:
    """Return the file of the history; it may be missing."""
    return platformdirs.user_cache_path("servetune") / "noise.json"


def read_history(path: Path) -> NoiseHistory:
    """Read a history; an empty one if there is no file.

    Raises:
        RunError: the file cannot be read, is damaged, or has another version.
    """
    try:
        data = json.loads(path.read_text())
        if not isinstance(data, dict):
            raise ValueError(f"expected an object (got {type(data).__name__})")
        check_version(data, NOISE_VERSION, path)
        return NoiseHistory.model_validate(data)
    except FileNotFoundError:
        return NoiseHistory()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{path} is damaged: {place}: {first['msg']}; remove it") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {first_line(error)}; remove it") from None


def write_history(path: Path, history: NoiseHistory) -> None:
    """Write a history.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"format_version": NOISE_VERSION, **history.model_dump(mode="json")}
    write_atomically(path, json.dumps(data, indent=1) + "\n")


def copy_history(source: Path, target: Path, hosts: Collection[str]) -> str | None:
    """Copy what is known of these hosts, so that a run does not depend on later changes.

    Returns:
        Why the history is not used, else None; a history that is missing is an empty one.

    Raises:
        OSError: the copy cannot be written.
    """
    history, problem = NoiseHistory(), None
    try:
        history = read_history(source)
    except RunError as error:
        problem = f"the history of the host's noise is not used: {error}"
    write_history(
        target, NoiseHistory(hosts={h: e for h, e in history.hosts.items() if h in hosts})
    )
    return problem


def add_to_history(path: Path, host: str, entry: NoiseEntry) -> str | None:
    """Add the noise of a run to the history; return why this was not possible, else None.

    A history that cannot be read stays as it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            write_history(path, read_history(path).with_entry(host, entry))
    except (OSError, RunError) as error:
        return f"the noise of this run was not added to the history of the host: {error}"
    return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
