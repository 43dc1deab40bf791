"""Types and helpers that the export formats share."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

import yaml

from search.export.scaling import Resources, Scaling
from serving.archive import Archive
from serving.config import MODEL_KEYS, ServerConfig
from serving.environment import parse_environment
from serving.exported import MODEL_STORE
from serving.model_config import archive_settings, overrides, rebuild_archive
from serving.production import DeploymentTarget

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
        effective: the model's settings as the trial's server described them, by name.
        scaling: what a replica can take.
        resources: what a replica needs.
    """

    folder: Path
    config: ServerConfig
    archive: Archive
    target: DeploymentTarget
    image: str | None
    effective: Mapping[str, int]
    scaling: Scaling
    resources: Resources

    @property
    def container_image(self) -> str:
        """The container image; by default TorchServe's own, of the version that was measured."""
        return self.image or f"pytorch/torchserve:{self.target.version.number}-cpu"

    @property
    def explicit_config(self) -> ServerConfig:
        """The configuration with every setting of the model, for a platform with other defaults."""
        unset: dict[str, Any] = {
            name: self.effective[name]
            for name in MODEL_KEYS
            if getattr(self.config, name) is None and name in self.effective
        }
        return replace(self.config, **unset)

    @property
    def environment(self) -> dict[str, str]:
        """The variables in use and of the configuration, without secrets."""
        return parse_environment(self.target.environment_text(self.config, self.archive))

    @property
    def resource_name(self) -> str:
        """The model's name as a DNS label, which the names of resources must be."""
        name = re.sub(r"[^a-z0-9]+", "-", self.archive.name.lower()).strip("-")[:50].strip("-")
        return name or "model"


@dataclass(frozen=True)
class FormatFiles:
    """The part of an export that depends on the format.

    Attributes:
        properties_text: the content of config.properties; None if the platform writes it.
        properties_path: where config.properties is written.
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
    has_environment: bool = True
    use: str | None = None
    environment_use: str = "`start.sh` reads it; in a systemd unit, use it as EnvironmentFile."
    key_file_place: str = "in its working directory"
    readme_items: str = ""
    notes: tuple[str, ...] = ()


def fill_template(name: str, /, **values: str) -> str:
    """Return `templates/NAME.txt` with its placeholders replaced."""
    return Template((_TEMPLATES / f"{name}.txt").read_text()).substitute(values)


def write_yaml(path: Path, *documents: Mapping[str, Any]) -> None:
    """Write documents to a YAML file."""
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False, width=1000))


def write_archive_if_it_overrides(request: ExportRequest) -> str | None:
    """Write a copy of the archive with the tuned settings if the original would override them.

    Returns:
        A note for the user; None if the original archive is served.

    Raises:
        ArchiveError: the archive's model-config.yaml cannot be changed.
    """
    archive, config = request.archive, request.config
    if not overrides(archive, config):
        return None
    settings = archive_settings(config)
    write_archive(request, settings)
    return (
        "the archive has a model-config.yaml, which takes precedence over config.properties: "
        f"{MODEL_STORE}/{archive.path.name} carries {', '.join(settings)}; deploy it in place of "
        "the original"
    )


def write_archive(request: ExportRequest, settings: Mapping[str, int]) -> str:
    """Write a copy of the archive with these settings, and return its model-config.yaml.

    Raises:
        ArchiveError: the archive's model-config.yaml cannot be changed.
    """
    path = exported_archive(request.folder, request.archive.path.name)
    path.parent.mkdir()
    return rebuild_archive(request.archive, settings, path)


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
            archive=request.archive.path.name,
            otherwise=own if has_archive else "?must name the folder of the archive",
            check=fill_template("check_python") if needs_python else "",
        )
    )
    script.chmod(0o755)
