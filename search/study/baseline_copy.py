"""Copy the baseline's files into a run's folder, so that the run does not depend on them."""

from __future__ import annotations

from pathlib import Path

from search.spec.config_file import environment_beside, read_files
from search.spec.serving_section import BaselineSection
from serving.configuration.config import format_environment
from serving.configuration.deployment import Deployment
from serving.configuration.editing import edit_properties
from serving.configuration.environment import REDACTED, is_secret
from serving.configuration.key_pair import KeyPair
from serving.configuration.reading import VARIABLES
from serving.configuration.secret_lines import redacted_text, secret_values

_PROPERTIES, _ENVIRONMENT = "baseline.properties", "baseline.environment"


def copy_baseline(
    files: BaselineSection, in_use: Deployment, folder: Path, key_pair: KeyPair | None = None
) -> dict[str, str]:
    """Copy the files without the values of secrets.

    Args:
        key_pair: the deployment's, with absolute paths.

    Returns:
        The section `baseline` for the run's spec.yaml, with paths relative to the folder.

    Raises:
        ConfigError: a file cannot be read.
    """
    section: dict[str, str] = {}
    in_lines: dict[str, str] = {}
    text, variables = read_files(files.properties, files.environment)
    if text is not None:
        # A run may be resumed in another folder.
        paths = key_pair.lines if key_pair else {}
        lines = {**paths, **in_use.from_secrets}
        copied = edit_properties(redacted_text(text), lines)
        (folder / _PROPERTIES).write_bytes(copied.encode("latin-1"))
        section["properties"] = _PROPERTIES
        if in_lines := secret_values(text, variables):
            section["original"] = str(files.original or files.properties)
    # The copy is read without the secrets that set these.
    for key, value in in_use.from_secrets.items():
        name = VARIABLES.get(key, "")
        if name in variables or text is None:
            variables[name] = value
    environment = files.environment or environment_beside(files.properties)
    secrets = {name for name, value in variables.items() if is_secret(name, value)}
    secrets |= in_use.secrets.keys() - in_lines.keys()
    if files.secrets is not None and any(is_secret(k, v) for k, v in variables.items()):
        # Only one file of secrets can be named.
        section["environment"] = str(environment)
    elif variables or secrets:
        redacted = dict.fromkeys(secrets, REDACTED)
        (folder / _ENVIRONMENT).write_text(format_environment({**variables, **redacted}))
        section["environment"] = _ENVIRONMENT
    if secrets and (source := files.secrets or environment):
        section["secrets"] = str(source)
    return section
