"""Copy the baseline's files into a run's folder, so that the run does not depend on them."""

from __future__ import annotations

from pathlib import Path

import javaproperties

from search.spec.config_file import environment_beside, read_files
from search.spec.serving_section import BaselineSection
from serving.config import format_environment
from serving.deployment import Deployment
from serving.editing import edit_properties
from serving.environment import REDACTED, is_secret
from serving.errors import ConfigError
from serving.key_pair import PASSWORD, KeyPair

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
    section = {}
    text, variables = read_files(files.properties, files.environment)
    if text is not None:
        secrets = {k: v for k, v in javaproperties.loads(text).items() if is_secret(k, v)}
        # A run may be resumed in another folder.
        paths = key_pair.lines if key_pair else {}
        copied = edit_properties(text, {**dict.fromkeys(secrets, REDACTED), **paths})
        (folder / _PROPERTIES).write_bytes(copied.encode("latin-1"))
        section["properties"] = _PROPERTIES
    environment = files.environment or environment_beside(files.properties)
    if files.secrets is not None and any(is_secret(k, v) for k, v in variables.items()):
        # Only one file of secrets can be named.
        section["environment"] = str(environment)
    elif variables or in_use.secrets:
        redacted = dict.fromkeys(in_use.secrets, REDACTED)
        (folder / _ENVIRONMENT).write_text(format_environment({**variables, **redacted}))
        section["environment"] = _ENVIRONMENT
    if in_use.secrets:
        section["secrets"] = str(files.secrets or environment)
    if key_pair is not None and key_pair.variables():
        if in_use.secrets:
            # Only one file of secrets can be named.
            raise ConfigError(
                f"{files.properties}: the environment has secrets too; write {PASSWORD}="
                "$$KEYSTORE_PASS$$, and KEYSTORE_PASS with them"
            )
        section["secrets"] = str(files.properties)
    return section
