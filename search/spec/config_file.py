"""Read the files of a deployment: config.properties and environment, or those of a platform."""

from __future__ import annotations

import contextlib
from pathlib import Path

from serving.archive import Archive
from serving.configuration.deployment import Deployment
from serving.configuration.environment import REDACTED
from serving.configuration.key_pair import KeyPair
from serving.configuration.secret_lines import secret_values
from serving.errors import ConfigError
from serving.platforms.files import PlatformFiles, read_bytes_as_text, read_environment
from serving.platforms.reading import read_platform

#: The file of variables in the folder of a config.properties.
ENVIRONMENT = "environment"


def read_config(
    path: Path | None,
    archive: Archive,
    environment: Path | None = None,
    secrets: Path | None = None,
    original: Path | None = None,
) -> Deployment:
    """Read a config.properties and an environment file, either of which may be missing.

    Args:
        path: of the config.properties, or of a platform's file or folder; None if only the
            environment is known.
        environment: of the environment file; None for the file `environment` in the folder of
            the config.properties if it exists.
        secrets: of an environment file whose variables are all secrets.
        original: of the config.properties that `path` is a copy of, without its secrets.

    Raises:
        ConfigError: a file cannot be read, or TorchServe would not start with it.
    """
    text, variables = read_files(path, environment)
    in_lines: dict[str, str] = {}
    if original:
        # The file may have changed since; the run is read all the same, without its secrets.
        with contextlib.suppress(ConfigError):
            lines, known = read_files(original)
            in_lines = secret_values(lines or "", known)
    more_secrets = read_environment_file(secrets)
    try:
        return Deployment.read(text, variables, archive, more_secrets, in_lines)
    except ConfigError as error:
        raise ConfigError(f"{path or environment}: {error}") from None


def find_key_pair(deployment: Deployment, properties: Path | None) -> KeyPair | None:
    """Return a deployment's key pair with absolute paths; None if it is not https.

    Args:
        properties: the config.properties; a relative path in it that is not in the current folder
            may be in its folder.

    Raises:
        ConfigError: a file does not exist, or the keystore's password is not known.
    """
    if deployment.key_pair is None:
        return None
    key_pair = deployment.key_pair.resolved(key_folders(properties))
    key_pair.variables()
    return key_pair


def key_folders(properties: Path | None) -> list[Path]:
    """Return the folders that a relative path of a key pair may be in; see `find_key_pair`."""
    return [Path.cwd(), *([properties.parent] if properties else [])]


def read_deployment(path: Path) -> PlatformFiles | None:
    """Read the file or folder of a platform; None for a file of no platform.

    Raises:
        ConfigError: it cannot be read, or it is a folder without files of a deployment.
    """
    platform = read_platform(path)
    if platform is None and path.is_dir():
        raise ConfigError(
            f"{path} has no files of a deployment: no config.properties, manifest, compose "
            "file, unit, Dockerfile, environment.json or create_model.json"
        )
    return platform


def read_files(
    path: Path | None, environment: Path | None = None
) -> tuple[str | None, dict[str, str]]:
    """Return the text of a config.properties and the variables of its server; see `read_config`.

    The text is None if there is none, or if the platform writes it from the variables.

    Raises:
        ConfigError: a file cannot be read.
    """
    platform = read_deployment(path) if path is not None else None
    if platform is not None:
        hidden = dict.fromkeys(platform.secrets, REDACTED)
        variables = {**platform.environment, **hidden, **read_environment_file(environment)}
        return platform.effective_properties, variables
    variables = read_environment_file(environment or environment_beside(path))
    return None if path is None else read_bytes_as_text(path), variables


def environment_beside(properties: Path | None) -> Path | None:
    """Return the file `environment` in the folder of a config.properties; None without one."""
    if properties is None or properties.is_dir():
        return None
    path = properties.with_name(ENVIRONMENT)
    return path if path.is_file() else None


def read_environment_file(path: Path | None) -> dict[str, str]:
    """Return the variables in an environment file; none without one.

    Raises:
        ConfigError: the file cannot be read, or is no environment file.
    """
    return {} if path is None else read_environment(path)
