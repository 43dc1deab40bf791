"""Find what overrides a setting in the files of a deployment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import javaproperties

from search.cluster.doctor import Finding
from search.export.common import CLAIM_FILE
from search.export.exported_files import ExportedFiles, compare_settings
from search.export.schema_check import check_schemas
from search.spec.config_file import read_files
from search.spec.importing import import_files
from serving.configuration.config import MODEL_KEYS, SERVER_KEYS
from serving.configuration.deployment import Deployment
from serving.configuration.environment import redacted
from serving.configuration.reading import VARIABLES
from serving.errors import ArchiveError
from serving.platforms.files import PlatformFiles, config_path, option_values

_TUNED_KEYS = {*SERVER_KEYS.values(), *(key for keys in MODEL_KEYS.values() for key in keys)}
#: Platforms whose files have the command; that of the others is fixed.
_OWN_COMMANDS = ("compose", "docker", "kubernetes", "systemd")


def check_deployment(path: Path, archive: Path | None = None) -> list[Finding]:
    """Check the files of a deployment, or those that `servetune export` wrote.

    Args:
        path: a folder or a file of a platform, or a config.properties.
        archive: the model archive; None if it is not known.

    Raises:
        CommandError, ConfigError, ArchiveError: the files cannot be read.
    """
    imported = import_files([path], archive)
    platform = imported.platform.platform if imported.platform else "properties"
    findings = [Finding("deployment", f"{platform}, model {imported.deployment.archive.name}")]
    text, variables = read_files(imported.properties, imported.environment)
    findings += _overrides(text or "", variables, imported.deployment)
    if imported.platform is not None:
        findings += _command_overrides(imported.platform)
        findings += [
            Finding(check.what, check.found, "correct the file")
            for check in check_schemas(imported.platform)[0]
            if not check.passed
        ]
    if (path / CLAIM_FILE).is_file():
        findings += _differences(path, archive)
    findings += [Finding("note", note) for note in imported.notes()]
    return findings


def _overrides(
    text: str, variables: Mapping[str, str], deployment: Deployment
) -> Iterator[Finding]:
    lines = javaproperties.loads(text)
    if deployment.reads_variables:
        for key, name in VARIABLES.items():
            if key in lines and name in variables and lines[key] != variables[name]:
                shown = redacted({key: lines[key], name: variables[name]})
                yield Finding(
                    key,
                    f"the variable {name}={shown[name]} overrides the line {key}={shown[key]}",
                    f"remove {name} from the environment, or give it the same value",
                )
    if "model_snapshot" in lines and "models" in lines:
        yield Finding(
            "models",
            "model_snapshot takes precedence, so that the property models is never read",
            "move the settings into model_snapshot, or remove it",
        )
    for key, value in deployment.unused.items():
        if key in _TUNED_KEYS and key in deployment.archive.overridden_keys | {"job_queue_size"}:
            yield Finding(
                key,
                f"the archive's model-config.yaml overrides {key}={value}",
                "change it there: servetune export writes such an archive",
            )


def _command_overrides(platform: PlatformFiles) -> Iterator[Finding]:
    """Find what the command `torchserve` overrides in its config.properties."""
    arguments = platform.arguments
    lines = javaproperties.loads(platform.properties or "")
    models = ",".join(option_values(arguments, "--models"))
    if models and "load_models" in lines and lines["load_models"] != models:
        yield Finding(
            "load_models",
            f"the option --models {models} overrides the line load_models={lines['load_models']}",
            "remove the option, or give it the same value",
        )
    has_config = config_path(arguments, platform.environment) is not None
    takes_snapshots = not {"--ncs", "--no-config-snapshots"} & {*arguments}
    if platform.platform in _OWN_COMMANDS and arguments and not has_config and takes_snapshots:
        yield Finding(
            "snapshot",
            "without --ts-config and --ncs, TorchServe starts from its last snapshot, if there is "
            "one in its folder of logs",
            "add --ncs, or name config.properties with --ts-config",
        )


def _differences(folder: Path, archive: Path | None) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="servetune-doctor-") as scratch:
        store = archive.parent if archive else None
        try:
            files = ExportedFiles.read(folder, store, Path(scratch))
        except ArchiveError:
            if archive is not None:
                raise
            yield Finding("note", "not compared with the trial, which needs the archive")
            return
        for check in compare_settings(files, files.claim["settings"]):
            if not check.passed:
                yield Finding(check.what, check.found, "export again, or undo the change")
