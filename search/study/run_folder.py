"""A run's folder: where everything of a run is written and read. Pure file work."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.errors import RunError, SpecError, first_line
from search.formats import SPEC_VERSION, TRIALS_VERSION, check_version
from search.spec.loading import parse_spec
from search.spec.schema import StudySpec
from search.trial.result import TrialResult


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @classmethod
    def create(cls, spec: StudySpec, recorded: dict[str, Any]) -> Run:
        """Make a new folder `NAME-DATE-TIME` with spec.yaml, as resolved."""
        root = spec.run_root()
        stem = f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        for n in range(100):
            folder = root / (f"{stem}-{n}" if n else stem)
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise RunError(
                    f"output.folder: {folder} cannot be made: {error.strerror}"
                ) from None
            break
        cores = recorded["host"]["cores"]
        data = {**spec.resolved(cores), "recorded": recorded}
        run = cls(folder)
        run._write(data)
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run.

        Raises:
            RunError: the folder holds none.
        """
        if not (folder / "spec.yaml").is_file():
            raise RunError(f"{folder} is not a run's folder: it has no spec.yaml")
        if (folder / "job.json").is_file():
            raise RunError(f"{folder} is a job's folder: its run is in {folder / 'runs'}")
        return cls(folder.resolve())

    @property
    def name(self) -> str:
        """The folder's name, which is the study's too."""
        return self.folder.name

    def spec(self) -> StudySpec:
        """The specification as resolved."""
        try:
            return parse_spec(self.specified(), self.folder)
        except SpecError as error:
            raise RunError(f"{self.folder / 'spec.yaml'}: {error}") from None

    def specified(self) -> dict[str, Any]:
        """The specification as it is written."""
        data = self._read()
        data.pop("recorded", None)
        return data

    def extend(self, rounds: int | None = None, **search: float | None) -> None:
        """Change what the specification says of the run's end; None leaves it.

        Args:
            rounds: of the confirmation.
            search: settings of the section of that name.
        """
        data = self._read()
        data["search"] |= {name: value for name, value in search.items() if value is not None}
        if rounds is not None:
            data["confirm"] = {**(data.get("confirm") or {}), "rounds": rounds}
        self._write(data)

    def recorded(self) -> dict[str, Any]:
        """The host and the versions that the run was made with."""
        found: dict[str, Any] = self._read().get("recorded", {})
        return found

    def _read(self) -> dict[str, Any]:
        path = self.folder / "spec.yaml"
        try:
            data = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"{path} cannot be read: {first_line(str(error))}") from None
        if not isinstance(data, dict):
            raise RunError(f"{path} is not a specification; the run cannot be read without it")
        check_version(data, SPEC_VERSION, path)
        return data

    def _write(self, data: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)
        write_whole(self.folder / "spec.yaml", text)

    def storage(self, named: str | None) -> str:
        """The study's storage: the named one, else SQLite in the folder."""
        return named or f"sqlite:///{self.folder / 'study.db'}"

    def trial_folder(self, number: int) -> Path:
        """Where a trial's files are."""
        return self.folder / "trials" / str(number)

    def windows(self, number: int) -> list[dict[str, Any]]:
        """What a trial's windows came to, as they are written; none where its files are gone."""
        return self._measured(number, "windows")

    def probes(self, number: int) -> list[dict[str, Any]]:
        """The verdicts on a trial's windows at an offered rate; none where its files are gone."""
        return self._measured(number, "probes")

    def _measured(self, number: int, part: str) -> list[dict[str, Any]]:
        path = self.trial_folder(number) / "measurements.json"
        if not path.is_file():
            return []
        found: list[dict[str, Any]] = json.loads(path.read_text())[part]
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the run to one driver.

        Raises:
            RunError: another one is at it.
        """
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"{self.folder} is being run by another process") from None
            yield

    def append(self, result: TrialResult) -> None:
        """Add a line to trials.jsonl, on the disk when this returns."""
        with (self.folder / "trials.jsonl").open("a") as lines:
            lines.write(_trial_line(result))
            lines.flush()
            os.fsync(lines.fileno())

    def rebuild(self, results: list[TrialResult]) -> None:
        """Make trials.jsonl hold a line for each of these, whatever it held."""
        lines = "".join(_trial_line(result) for result in results)
        write_whole(self.folder / "trials.jsonl", lines)

    def results(self) -> list[TrialResult]:
        """The finished trials, by number, from trials.jsonl."""
        return Results(self).read()


class Results:
    """The finished trials of a run that goes on: each line of trials.jsonl is read once."""

    def __init__(self, run: Run):
        self._path = run.folder / "trials.jsonl"
        self._file, self._at = 0, 0
        self._known: list[TrialResult] = []

    def read(self) -> list[TrialResult]:
        """All that there are by now, by number."""
        try:
            stat = self._path.stat()
        except OSError:
            return []
        if stat.st_ino != self._file or stat.st_size < self._at:
            # A resumed run writes it anew.
            self._file, self._at, self._known = stat.st_ino, 0, []
        if stat.st_size == self._at:
            return list(self._known)
        with self._path.open("rb") as lines:
            lines.seek(self._at)
            for line in lines:
                # A line without its end is being written, or was when the run was killed.
                if line.endswith(b"\n"):
                    data = json.loads(line)
                    check_version(data, TRIALS_VERSION, self._path)
                    self._known.append(TrialResult.from_dict(data))
                    self._at += len(line)
        self._known.sort(key=lambda result: result.number)
        return list(self._known)


def _trial_line(result: TrialResult) -> str:
    return json.dumps({"format_version": TRIALS_VERSION, **result.to_dict()}) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all, on the disk when this returns."""
    new = path.with_suffix(".new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
