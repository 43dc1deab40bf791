"""Read exported files back, and compare their settings with those of the trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from search.errors import RunError
from search.export.common import CLAIM_FILE, exported_archive
from search.formats import CLAIM_VERSION, check_version
from search.study.diff import flat
from serving.archive import Archive
from serving.archive_files import digest
from serving.configuration.config import ServerConfig
from serving.configuration.deployment import Deployment
from serving.configuration.environment import REDACTED
from serving.configuration.production import RATE_PROPERTIES
from serving.errors import ArchiveError, ConfigError
from serving.limits import Limits
from serving.platforms.files import PlatformFiles
from serving.platforms.reading import read_platform
from serving.sagemaker_archive import MODEL_TAR, unpack_model_tar

#: Platforms whose files have the limits of the container or unit.
_WITH_LIMITS = ("compose", "systemd", "kserve", "kubernetes")
#: Properties that change the rate, or the form of the requests.
_COMPARED_PROPERTIES = RATE_PROPERTIES | {"service_envelope"}


@dataclass(frozen=True)
class Check:
    """The result of one comparison.

    Attributes:
        what: the setting or property.
        passed: whether it is as claimed.
        found: the actual value, and the claimed one if they differ.
    """

    what: str
    passed: bool
    found: str


@dataclass(frozen=True)
class ExportedFiles:
    """Exported files.

    Attributes:
        claim: the content of trial.json.
        archive: the model archive that they serve.
        platform: what the files give to TorchServe.
        archive_sha256: the digest of the archive, as the claim has it.
        others: archives of the models beside it.
    """

    folder: Path
    claim: dict[str, Any]
    archive: Archive
    platform: PlatformFiles
    archive_sha256: str
    others: tuple[Archive, ...] = ()

    @classmethod
    def read(
        cls,
        folder: Path,
        model_store: Path | None,
        scratch: Path,
        stores: Mapping[str, Path] = MappingProxyType({}),
    ) -> ExportedFiles:
        """Read a folder that `servetune export` wrote.

        Args:
            model_store: the folder of the archives, unless they are among the files.
            scratch: an existing folder into which a model.tar.gz is unpacked.
            stores: paths of archives elsewhere, by model.

        Raises:
            RunError: the folder has no valid trial.json, or one of another version.
            ArchiveError: the archive is missing.
        """
        path = folder / CLAIM_FILE
        try:
            claim = json.loads(path.read_text())
            names = {claim["model"]: claim["archive"]}
            names |= {name: model["archive"] for name, model in claim.get("models", {}).items()}
        except OSError as error:
            raise RunError(
                f"{folder} contains no files exported by servetune: {CLAIM_FILE} cannot be read: "
                f"{error.strerror}"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{folder} contains no files exported by servetune: {CLAIM_FILE}: {error}"
            ) from None
        check_version(claim, CLAIM_VERSION, path)
        platform = read_platform(folder)
        if platform is None:
            raise RunError(f"{folder} has no config.properties and no files of a platform")
        if (model_tar := folder / MODEL_TAR).is_file():
            archive = unpack_model_tar(model_tar, scratch / "model")
            return cls(folder, claim, archive, platform, digest(model_tar))
        archives = []
        for name, file in names.items():
            exported = exported_archive(folder, file)
            given = stores.get(name) or (model_store or folder) / file
            if model_store is None and not (exported.exists() or given.exists()):
                raise ArchiveError(
                    f"{folder} does not contain the archive {file}; pass --against RUN or "
                    "--model-store FOLDER"
                )
            archive = Archive.read(exported if exported.exists() else given)
            archives.append(archive.registered_as(name))
        archive, *others = archives
        return cls(folder, claim, archive, platform, archive.sha256, tuple(others))

    @property
    def kept(self) -> ServerConfig:
        """Settings of the config.properties in use that stayed, although the trial lacked them."""
        return ServerConfig(**self.claim["kept"])

    @property
    def limits(self) -> Limits:
        """The limits under which the platform runs the files.

        Those of a platform whose files have none, such as a host or an instance type, are in the
        claim.
        """
        if self.platform.platform in _WITH_LIMITS:
            return self.platform.limits
        given = self.claim["limits"]
        memory_mb = given["memory_mb"]
        return Limits(given["cpus"], None if memory_mb is None else memory_mb << 20)

    @property
    def deployment(self) -> Deployment:
        """The configuration in the files, including the archive's own settings.

        Raises:
            ConfigError: TorchServe cannot read a file.
        """
        try:
            deployment = Deployment.read(
                self.platform.effective_properties,
                self.platform.environment,
                self.archive,
                dict.fromkeys(self.claim.get("secrets", ()), REDACTED),
            )
            return deployment.with_models(self.others)
        except ConfigError as error:
            raise ConfigError(f"{self.folder}: {error}") from None


def compare_settings(files: ExportedFiles, claimed: dict[str, Any]) -> list[Check]:
    """Compare the archive and every setting of the files with those of the trial."""
    checks = [_check_archive("archive", files.archive_sha256, files.claim)]
    checks += [
        _check_archive(f"archive of {other.name}", other.sha256, files.claim["models"][other.name])
        for other in files.others
    ]
    checks += _check_limits(files)
    actual, kept = flat(files.deployment.config.to_dict()), flat(files.kept.to_dict())
    expected = flat(claimed)
    for path in sorted({*expected, *actual, *kept}):
        value, expected_value = actual.get(path), expected.get(path)
        if path in expected:
            is_same = value == expected_value
            found = str(value) if is_same else f"{value}; the trial had {expected_value}"
            checks.append(Check(path, is_same, found))
        elif (
            not path.startswith("properties.")
            or path.removeprefix("properties.") in _COMPARED_PROPERTIES
            or path in kept
        ):
            # The export noted what its files add to the trial.
            found = f"{value}; the trial did not set it"
            if path in kept and kept[path] != value:
                found = f"{value}; the export wrote {kept[path]}"
            checks.append(Check(path, kept.get(path) == value, found))
    return checks


def _check_limits(files: ExportedFiles) -> list[Check]:
    """Compare the limits with those of the trial; those that the trial did not have are free."""
    found, given = files.limits, files.claim["limits"]
    actual: dict[str, float | None] = {
        "cpus": found.cpus,
        "memory_mb": None if found.memory_bytes is None else found.memory_bytes >> 20,
    }
    checks = []
    for name, value in given.items():
        if value is not None:
            # Platforms round cores to a thousandth.
            number = actual[name]
            is_same = number is not None and abs(number - value) < 0.001
            text = f"{number}" if is_same else f"{number}; the trial had {value}"
            checks.append(Check(f"limit {name}", is_same, text))
    return checks


def _check_archive(what: str, digest: str, claim: Mapping[str, Any]) -> Check:
    is_same = digest == claim["archive_sha256"]
    found = "as exported" if is_same else f"a different archive: SHA-256 {digest[:12]}…"
    return Check(what, is_same, found)


def added_settings(config: ServerConfig, trial: ServerConfig) -> ServerConfig:
    """Return the settings of a configuration that the trial did not set."""
    added: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        given = getattr(trial, name)
        if name == "models":
            models = {
                model: {k: v for k, v in settings.items() if k not in given.get(model, {})}
                for model, settings in value.items()
            }
            added[name] = {model: settings for model, settings in models.items() if settings}
        elif isinstance(value, dict):
            added[name] = {k: v for k, v in value.items() if k not in given}
        elif given is None:
            added[name] = value
    return ServerConfig(**added)
