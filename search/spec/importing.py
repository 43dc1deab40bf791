"""Understand the files of a deployment, and write a specification that starts from them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from search.errors import CommandError
from search.spec.config_file import environment_beside, read_config, read_deployment
from search.spec.loading import STARTER_PATH
from serving.archive import Archive
from serving.configuration.deployment import Deployment
from serving.configuration.environment import REDACTED, redacted
from serving.configuration.models import list_models
from serving.configuration.reading import parse_lines
from serving.errors import ConfigError
from serving.limits import Limits
from serving.platforms.files import PlatformFiles, read_bytes_as_text
from serving.platforms.reading import read_manifests
from serving.safe_yaml import load_yaml

_ENVIRONMENT_SUFFIXES = (".json", ".env", ".environment")
_YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class ImportedFiles:
    """A deployment that was read from its files.

    Attributes:
        properties, environment: the paths that were read; at least one of them.
        has_archive: whether the archive was read; else its name and version are the files'.
        is_named: whether an archive or a file names the model.
        platform: the platform's files, if they are of one; `properties` is their path.
    """

    deployment: Deployment
    properties: Path | None
    environment: Path | None
    has_archive: bool
    is_named: bool
    platform: PlatformFiles | None = None

    def notes(self) -> list[str]:
        """Return what the user must know, a sentence each."""
        notes = self.deployment.summary(None)
        if self.platform is not None:
            notes += self.platform.notes
        if not self.has_archive:
            others = (
                "; of several models, this is the first" if self.deployment.other_models else ""
            )
            notes.append(
                "the archive was not read: its model-config.yaml, if it has one, takes "
                f"precedence{others}; pass --archive FILE"
            )
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return all that was understood as JSON data; secrets are named, not shown."""
        deployment = self.deployment
        limits = self.platform.limits if self.platform else Limits()
        return {
            "platform": self.platform.platform if self.platform else None,
            "limits": _limits_section(limits),
            "model": deployment.archive.name if self.is_named else None,
            "version": deployment.archive.version if self.is_named else None,
            "archive": str(deployment.archive.path) if self.has_archive else None,
            "properties": str(self.properties) if self.properties else None,
            "environment": str(self.environment) if self.environment else None,
            "settings": deployment.config.to_dict(),
            "without_effect": redacted(deployment.unused),
            "other_models": list(deployment.other_models),
            "secrets": sorted(deployment.secrets),
            "notes": self.notes(),
        }

    def spec_text(self, folder: Path) -> str:
        """Return a commented specification with this deployment as its baseline.

        Args:
            folder: of the specification; paths are relative to it.
        """

        def relative(path: Path) -> str:
            return os.path.relpath(path.resolve(), folder.resolve())

        archive = self.deployment.archive
        file = relative(archive.path) if self.has_archive else archive.path.name
        given = {"properties": self.properties, "environment": self.environment}
        files = {name: relative(path) for name, path in given.items() if path}
        section: dict[str, Any] = {"baseline": files}
        if self.platform and (limits := _limits_section(self.platform.limits)):
            section["limits"] = limits
        baseline = yaml.safe_dump(section, sort_keys=False, width=1000)
        lines = ["serving:", *[f"  {line}" for line in baseline.splitlines()]]
        text = STARTER_PATH.read_text()
        head, _, rest = text.partition("# serving:\n")
        # The comments on the baseline are replaced by the baseline.
        rest = rest.split("\n", 2)[2]
        head = head.replace("name: my-model", f"name: {_study_name(archive.name)}")
        before, _, after = head.partition("  archive: my-model.mar")
        entry = yaml.safe_dump({"archive": file}, width=1000).strip()
        return f"{before}  {entry}{after}" + "\n".join(lines) + "\n" + rest


def _limits_section(limits: Limits) -> dict[str, float | int]:
    """Return the section `serving.limits` of a specification."""
    section: dict[str, float | int] = {}
    if limits.cpus is not None:
        section["cpus"] = limits.cpus
    if limits.memory_bytes is not None:
        section["memory_mb"] = limits.memory_bytes >> 20
    return section


def _study_name(model: str) -> str:
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in model)
    return name.lstrip(".") or "study"


def import_files(paths: Sequence[Path], archive: Path | None) -> ImportedFiles:
    """Read the files of a deployment.

    Args:
        paths: a config.properties, an environment file, or both; a model-config.yaml if the
            archive is not given; or one folder or the YAML files of a platform.
        archive: the model archive; None to take its name from the files.

    Raises:
        CommandError: the files are not those of one deployment.
        ConfigError, ArchiveError: a file cannot be read, or TorchServe would not start with it.
    """
    if platform := _read_platform(paths):
        return _import_platform(platform, paths, archive)
    by_kind: dict[str, list[Path]] = {"properties": [], "environment": [], "model-config": []}
    for path in paths:
        by_kind[_kind(path)].append(path)
    for kind, found in by_kind.items():
        if len(found) > 1:
            names = " and ".join(map(str, found))
            raise CommandError(f"{names} are both read as {kind}; pass one of them")
    settings = by_kind["model-config"]
    if settings and archive is not None:
        raise CommandError(f"the archive has its own settings; leave out {settings[0]}")
    properties = next(iter(by_kind["properties"]), None)
    environment = next(iter(by_kind["environment"]), environment_beside(properties))
    named = Archive.read(archive) if archive else _named_archive(properties)
    model = named or Archive(Path("my-model.mar"), "my-model", "1.0")
    for path in settings:
        model = replace(model, settings=_read_settings(path))
    if properties is None and environment is None:
        deployment = Deployment.of_archive(model)
    else:
        deployment = read_config(properties, model, environment)
    is_named = named is not None
    return ImportedFiles(deployment, properties, environment, archive is not None, is_named)


def _read_platform(paths: Sequence[Path]) -> PlatformFiles | None:
    """Read the files of a platform; None if they are of none."""
    if len(paths) > 1:
        are_yaml = all(path.name.lower().endswith(_YAML_SUFFIXES) for path in paths)
        return read_manifests(paths) if are_yaml else None
    return read_deployment(paths[0])


def _import_platform(
    platform: PlatformFiles, paths: Sequence[Path], archive: Path | None
) -> ImportedFiles:
    named = Archive.read(archive) if archive else None
    properties = platform.effective_properties
    if named is None and properties is not None:
        named = _first_archive(properties, paths[0])
    model = named or Archive(Path("my-model.mar"), "my-model", "1.0")
    variables = {**platform.environment, **dict.fromkeys(platform.secrets, REDACTED)}
    try:
        deployment = Deployment.read(properties, variables, model)
    except ConfigError as error:
        raise ConfigError(f"{paths[0]}: {error}") from None
    # Files in several places are read again as their folder.
    path = paths[0] if len(paths) == 1 else paths[0].parent
    is_environment = platform.properties is None
    return ImportedFiles(
        deployment,
        None if is_environment else path,
        platform.sources[0] if is_environment else None,
        archive is not None,
        named is not None,
        platform,
    )


def _kind(path: Path) -> str:
    name = path.name.lower()
    if name.endswith(_YAML_SUFFIXES):
        return "model-config"
    if name.endswith(".properties"):
        return "properties"
    if name.endswith(_ENVIRONMENT_SUFFIXES) or "env" in name:
        return "environment"
    text = read_bytes_as_text(path)
    keys = [line.partition("=")[0].strip() for line in text.splitlines() if "=" in line]
    is_environment = text.lstrip().startswith("{") or (keys and all(k.isupper() for k in keys))
    return "environment" if is_environment else "properties"


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = load_yaml(path.read_text()) or {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must be a mapping of settings")
    return settings


def _named_archive(properties: Path | None) -> Archive | None:
    """Return the first archive that a config.properties names; None if it names none."""
    return _first_archive(read_bytes_as_text(properties), properties) if properties else None


def _first_archive(text: str, path: Path) -> Archive | None:
    try:
        models = list_models(parse_lines(text))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not models:
        return None
    name, version, file = models[0]
    return Archive(Path(file), name, version)
