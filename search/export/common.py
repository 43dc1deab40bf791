"""Types and helpers that the export formats share."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any

import yaml

from search.answer.scaling import Scaling
from search.export.resources import Resources
from serving.archive import Archive
from serving.archive_files import copy_archive
from serving.configuration.config import MODEL_KEYS, ServerConfig
from serving.configuration.environment import parse_environment
from serving.configuration.model_config import archive_settings, overrides, rebuild_archive
from serving.configuration.production import DeploymentTarget
from serving.exported import MODEL_STORE
from serving.limits import Limits

#: The file with the claimed settings and rate, for `servetune verify`.
CLAIM_FILE = "trial.json"
_TEMPLATES = Path(__file__).parent / "templates"


class ExportFormat(enum.StrEnum):
    """The form in which the configuration is exported."""

    PROPERTIES = "properties"
    MODEL_CONFIG = "model-config"
    COMPOSE = "compose"
    DOCKER = "docker"
    SYSTEMD = "systemd"
    SAGEMAKER = "sagemaker"
    KSERVE = "kserve"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and to which folder.

    Attributes:
        target: addresses and existing settings of the deployment.
        image: the container image; None for the format's default.
        effective: each model's settings as the trial's server described them, by model and name.
        scaling: what a replica can take.
        resources: what a replica needs.
        limits: those of the trial.
    """

    folder: Path
    config: ServerConfig
    archive: Archive
    target: DeploymentTarget
    image: str | None
    effective: Mapping[str, Mapping[str, int]]
    scaling: Scaling
    resources: Resources
    limits: Limits = field(default_factory=Limits)

    @property
    def container_image(self) -> str:
        """The container image; by default TorchServe's own, of the version that was measured."""
        return self.image or f"pytorch/torchserve:{self.target.version.number}-cpu"

    @property
    def explicit_config(self) -> ServerConfig:
        """The configuration with every setting of each model, which some platforms need."""
        own = self.effective[self.archive.name]
        unset: dict[str, Any] = {
            name: own[name]
            for name in MODEL_KEYS
            if getattr(self.config, name) is None and name in own
        }
        models = {
            other.name: {**self.effective[other.name], **self.config.models.get(other.name, {})}
            for other in self.target.others
        }
        return replace(self.config, **unset, models=models)

    @property
    def environment(self) -> dict[str, str]:
        """The variables in use and of the configuration, without secrets."""
        return parse_environment(self.target.environment_text(self.config, self.archive))

    @property
    def resource_name(self) -> str:
        """The model's name as a DNS label that begins with a letter, as a Service's must."""
        name = re.sub(r"[^a-z0-9]+", "-", self.archive.name.lower()).strip("-")
        name = name if name[:1].isalpha() else f"model-{name}"
        return name[:50].strip("-")

    @property
    def archives(self) -> tuple[Archive, ...]:
        """The archives of all models, the tuned one first."""
        return (self.archive, *self.target.others)

    def config_of(self, archive: Archive) -> ServerConfig:
        """Return the configuration, or that of another model."""
        return self.config if archive is self.archive else self.config.of_model(archive.name)


@dataclass(frozen=True)
class FormatFiles:
    """The part of an export that depends on the format.

    Attributes:
        properties_text: the content of config.properties; None if the platform writes it.
        properties_path: where config.properties is written.
        manifest: the file that contains the lines of config.properties too; None for none.
        has_environment: whether the files `environment` and `log4j2.xml` are read.
        use: the instructions in the README; None for those of the common files.
        command: the command that starts the server.
        environment_use: a sentence on what reads the file `environment`.
        key_file_place: the place where TorchServe writes its tokens.
        readme_items: more list items for the README.
        notes: what the user must know about this format.
    """

    properties_text: str | None
    command: str
    properties_path: str = "config.properties"
    manifest: str | None = None
    has_environment: bool = True
    use: str | None = None
    environment_use: str = "`start.sh` reads it; in a systemd unit, use it as EnvironmentFile."
    key_file_place: str = "in its working directory"
    readme_items: str = ""
    notes: tuple[str, ...] = ()


def fill_template(name: str, /, **values: str) -> str:
    """Return `templates/NAME.txt` with its placeholders replaced."""
    return Template((_TEMPLATES / f"{name}.txt").read_text()).substitute(values)


class _Dumper(yaml.SafeDumper):
    """Writes what a person reads: no aliases, and texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)


def write_yaml(path: Path, *documents: Mapping[str, Any]) -> None:
    """Write documents to a YAML file."""
    path.write_text(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=1000))


def write_archives_if_one_overrides(request: ExportRequest) -> str | None:
    """Write copies of the archives if the model-config.yaml of one would override its settings.

    Returns:
        A note for the user; None if the original archives are served.

    Raises:
        ArchiveError: an archive's model-config.yaml cannot be changed.
    """
    overriding = [a for a in request.archives if overrides(a, request.config_of(a))]
    if not overriding:
        return None
    store = exported_archive(request.folder, "")
    store.mkdir()
    notes = []
    for archive in request.archives:
        path = store / archive.path.name
        if archive not in overriding:  # The model store of the files has every archive.
            copy_archive(archive.path, {}, path)
            continue
        settings = archive_settings(request.config_of(archive))
        rebuild_archive(archive, settings, path)
        notes.append(
            "the archive has a model-config.yaml, which takes precedence over config.properties: "
            f"{MODEL_STORE}/{path.name} carries {', '.join(settings)}; deploy it in place of the "
            "original"
        )
    return "; ".join(notes)


def write_archives(request: ExportRequest) -> str:
    """Write copies of the archives with their settings; return the tuned model's model-config.yaml.

    Raises:
        ArchiveError: an archive's model-config.yaml cannot be changed.
    """
    store = exported_archive(request.folder, "")
    store.mkdir()
    texts = [
        rebuild_archive(
            archive, archive_settings(request.config_of(archive)), store / archive.path.name
        )
        for archive in request.archives
    ]
    return texts[0]


def exported_archive(folder: Path, name: str) -> Path:
    """Return the path of an archive among exported files, which may not exist."""
    return folder / MODEL_STORE / name


def write_start_script(request: ExportRequest, has_archive: bool) -> None:
    """Write start.sh.

    Args:
        has_archive: whether the archive is among the files; else MODEL_STORE names its folder.
    """
    own = f'-$(dirname "$0")/{MODEL_STORE}'
    # The CPU launcher starts the `python` on PATH; without torch in it, workers run unbound.
    needs_python = request.config.properties.get("cpu_launcher_enable") == "true"
    script = request.folder / "start.sh"
    script.write_text(
        fill_template(
            "start.sh",
            archive=", ".join(archive.path.name for archive in request.archives),
            otherwise=own if has_archive else "?must name the folder of the archive",
            check=fill_template("check_python") if needs_python else "",
        )
    )
    script.chmod(0o755)
