"""Read and write the files of a run's folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from search.atomic_files import sync_folder, write_atomically
from search.errors import RunError, SpecError, first_line
from search.formats import SPEC_VERSION, TRIALS_VERSION, check_version
from search.spec.loading import parse_spec
from search.spec.schema import StudySpec
from search.study.baseline_copy import copy_baseline
from search.study.json_lines import append_line, complete_lines, format_line
from search.study.measurements_file import read_measurements
from search.trial.result import TrialResult
from serving.safe_yaml import load_yaml

if TYPE_CHECKING:
    import pandas as pd

    from search.study.frames import FrameKind

#: The study of a run, unless the specification names another storage.
STUDY_FILE = "study.db"


@dataclass(frozen=True)
class Run:
    """The folder of a run."""

    folder: Path

    @property
    def argument(self) -> str:
        """The folder as an argument of a command: relative if it is in the current folder."""
        folder = self.folder.absolute()
        below = folder.is_relative_to(Path.cwd())
        return shlex.quote(str(folder.relative_to(Path.cwd()) if below else folder))

    @classmethod
    def create(cls, spec: StudySpec, recorded: dict[str, Any]) -> Run:
        """Create a folder `NAME-DATE-TIME` with the resolved specification in spec.yaml.

        Args:
            recorded: data about the hosts and versions to keep in spec.yaml.

        Raises:
            RunError: the folder cannot be created.
        """
        root = spec.run_root()
        stem = f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        for n in range(100):
            folder = root / (f"{stem}-{n}" if n else stem)
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise RunError(f"output.folder: cannot create {folder}: {error.strerror}") from None
            break
        cores = recorded["host"]["cores"]
        data = {**spec.resolved(cores), "recorded": {"name": folder.name, **recorded}}
        run = cls(folder)
        in_use = spec.in_use()
        data["serving"]["models"] = {
            **{m.name: None for m in in_use.others if m.name != in_use.archive.name},
            **{archive.name: str(archive.path) for archive in in_use.beside},
        }
        if spec.serving.baseline is not None:
            data["serving"]["baseline"] = copy_baseline(
                spec.serving.baseline, in_use, folder, spec.key_pair()
            )
        run._write(data)
        sync_folder(root)
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Return the run in an existing folder.

        Raises:
            RunError: the folder contains no run.
        """
        if not (folder / "spec.yaml").is_file():
            raise RunError(f"{folder} is not a run folder: it has no spec.yaml")
        if (folder / "job.json").is_file():
            raise RunError(f"{folder} is a job folder: its run is in {folder / 'runs'}")
        return cls(folder.resolve())

    @classmethod
    def around(cls, folder: Path) -> Run | None:
        """Return the run that a folder is in; None if it is in none."""
        parent = folder.resolve().parent
        is_run = all((parent / name).is_file() for name in ("spec.yaml", "trials.jsonl"))
        return cls(parent) if is_run else None

    @property
    def name(self) -> str:
        """The name at the run's creation: of its folder, which may be renamed, and its study."""
        name: str = self.recorded().get("name", self.folder.name)
        return name

    def spec(self) -> StudySpec:
        """Return the resolved specification.

        Raises:
            RunError: spec.yaml cannot be read, or is not valid.
        """
        try:
            return parse_spec(self.specified(), self.folder)
        except SpecError as error:
            raise RunError(f"{self.folder / 'spec.yaml'}: {error}") from None

    def specified(self) -> dict[str, Any]:
        """Return the specification as plain data, as it is in spec.yaml.

        Raises:
            RunError: spec.yaml cannot be read, or a section is no mapping.
        """
        data = self._read()
        data.pop("recorded", None)
        sections = ("model", "serving", "space", "load", "goal", "search", "confirm", "sweep")
        for name in (*sections, "cluster", "output"):
            if not isinstance(data.get(name), dict | None):
                raise RunError(
                    f"{self.folder / 'spec.yaml'} is damaged: {name} is not a mapping; "
                    "restore the file"
                )
        return data

    def extend(self, rounds: int | None = None, **search: float | None) -> None:
        """Change the limits of the run in its specification; None keeps a value.

        Args:
            rounds: the maximum number of rounds of the confirmation; 0 for none.
            search: settings of the section `search`.
        """
        data = self._read()
        data["search"] |= {name: value for name, value in search.items() if value is not None}
        if rounds is not None:
            data["confirm"] = {**(data.get("confirm") or {}), "rounds": rounds}
        self._write(data)

    def recorded(self) -> dict[str, Any]:
        """Return the name, hosts, versions and placement at the run's creation."""
        recorded: dict[str, Any] = self._read().get("recorded", {})
        return recorded

    def _read(self) -> dict[str, Any]:
        path = self.folder / "spec.yaml"
        try:
            data = load_yaml(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"{path} cannot be read: {first_line(str(error))}") from None
        if not isinstance(data, dict):
            raise RunError(f"{path} is not a specification: expected a mapping; restore the file")
        check_version(data, SPEC_VERSION, path)
        return data

    def _write(self, data: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)
        # The URL of a storage may contain a password.
        is_private = bool((data.get("output") or {}).get("storage") or data.get("notify"))
        write_atomically(self.folder / "spec.yaml", text, 0o600 if is_private else 0o666)

    def storage(self, url: str | None) -> str:
        """Return the URL of the study's storage: the given one, else SQLite in the folder."""
        return url or f"sqlite:///{self.folder / STUDY_FILE}"

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial's files."""
        return self.folder / "trials" / str(number)

    def windows(self, number: int) -> list[dict[str, Any]]:
        """Return the windows of a trial as plain data; empty if its files are missing.

        Raises:
            RunError: measurements.json is damaged, or has another format version.
        """
        windows: list[dict[str, Any]] = read_measurements(self.trial_folder(number), "windows")
        return windows

    def probes(self, number: int) -> list[dict[str, Any]]:
        """Return the verdicts on a trial's offered rates; empty if its files are missing.

        Raises:
            RunError: measurements.json is damaged, or has another format version.
        """
        probes: list[dict[str, Any]] = read_measurements(self.trial_folder(number), "probes")
        return probes

    def confirmation_visits(self) -> Iterator[tuple[str, str, TrialResult]]:
        """Yield the plan, the stage and the result of each measurement of a confirmation."""
        for folder in sorted(self.folder.glob("confirm/*/*-*")):
            # A file that another version wrote, or that a killed driver left, is left out.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RunError):
                record = read_measurements(folder, "result")
                if record:
                    stage = folder.name.rpartition("-")[0]
                    yield folder.parent.name, stage, TrialResult.from_dict(record)

    @property
    def noise_path(self) -> Path:
        """The copy of the host's history of noise that the run's confirmation uses."""
        return self.folder / "noise.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run against other drivers.

        Raises:
            RunError: another process has the lock.
        """
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"{self.folder} is in use: another process is running it") from None
            yield

    @contextlib.contextmanager
    def files_locked(self) -> Iterator[None]:
        """Lock the report and the exported files, also in a read-only folder; wait for the lock."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def append(self, result: TrialResult) -> None:
        """Append a line to trials.jsonl, and sync it to disk."""
        append_line(self.folder / "trials.jsonl", TRIALS_VERSION, result.to_dict())

    def rebuild(self, results: list[TrialResult]) -> None:
        """Replace trials.jsonl by a line for each of these results."""
        lines = "".join(format_line(TRIALS_VERSION, result.to_dict()) for result in results)
        write_atomically(self.folder / "trials.jsonl", lines)

    def results(self) -> list[TrialResult]:
        """Return the finished trials from trials.jsonl, by number.

        Raises:
            RunError: a line is damaged, or the file has another format version.
        """
        return ResultReader(self).read()

    def dataframe(self, kind: FrameKind = "trials") -> pd.DataFrame:
        """Return the trials, the windows or the predictions as a typed pandas frame.

        Rates are in requests/s, times in seconds. Columns `setting.NAME` are the settings. Models
        of a mix have `mix.MODEL.p50_s`, `p95_s`, `p99_s`, `rate_rps`, `sent` and `failed`; those of
        the background `background.MODEL.p50_s` and so on.

        Args:
            kind:
                trials: a row for each finished trial, by `number`.
                windows: a row for each measurement window, by `trial` and `window`.
                predictions: a row for each configuration that sustained a rate, by its first
                    `trial`: the mean rate over its measurements, those of the confirmation
                    included, and the 95 % intervals of the mean and of one more measurement.
                    With one measurement there are no intervals.

        Raises:
            RunError: a file of the run is damaged.
            ValueError: the kind is unknown.
        """
        from search.study.frames import frame

        return frame(self, kind)


class ResultReader:
    """Reads the finished trials of a running run; parses each line of trials.jsonl once."""

    def __init__(self, run: Run):
        self._path = run.folder / "trials.jsonl"
        self._inode, self._offset = 0, 0
        self._results: list[TrialResult] = []

    def read(self) -> list[TrialResult]:
        """Return all results so far, by number.

        Raises:
            RunError: a line is damaged, or the file has another format version.
        """
        try:
            stat = self._path.stat()
        except OSError:
            return []
        if stat.st_ino != self._inode or stat.st_size < self._offset:
            # A resumed run replaces the file.
            self._inode, self._offset, self._results = stat.st_ino, 0, []
        if stat.st_size == self._offset:
            return list(self._results)
        with self._path.open("rb") as lines:
            lines.seek(self._offset)
            # An incomplete last line is being written, or its writer was killed.
            for line, data in complete_lines(lines.read()):
                self._results.append(self._parse(line, data))
                self._offset += len(line)
        self._results.sort(key=lambda result: result.number)
        return list(self._results)

    def _parse(self, line: bytes, data: Any) -> TrialResult:
        try:
            data = json.loads(line) if data is None else data
            check_version(data, TRIALS_VERSION, self._path)
            return TrialResult.from_dict(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self._path}: line {len(self._results) + 1} is damaged: {first_line(error)}; "
                "restore or remove the line"
            ) from None
