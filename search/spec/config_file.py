"""Read a config.properties and the file `environment` in its folder."""

from __future__ import annotations

from pathlib import Path

from serving.archive import Archive
from serving.config import ServerConfig, parse_environment
from serving.errors import ConfigError


def read_config(path: Path, archive: Archive) -> tuple[ServerConfig, dict[str, str]]:
    """Read a config.properties, and the file `environment` in its folder if it exists.

    Returns:
        The configuration, and the properties of the file that servetune sets itself.

    Raises:
        ConfigError: a file cannot be read, or TorchServe would not start with it.
    """
    try:
        text = path.read_text("latin-1")  # As Java reads it.
        environment = path.with_name("environment")
        variables = parse_environment(environment.read_text()) if environment.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        return ServerConfig.parse(text, archive, variables)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
