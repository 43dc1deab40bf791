"""Read a config.properties and the environment beside it."""

from __future__ import annotations

from pathlib import Path

from serving.archive import Archive
from serving.config import ServerConfig, parse_environment
from serving.errors import ConfigError


def read_config(path: Path, archive: Archive) -> tuple[ServerConfig, dict[str, str]]:
    """Read a config.properties, and the file `environment` beside it where there is one.

    Returns:
        The configuration, and the lines of the file that servetune sets itself.

    Raises:
        ConfigError: unreadable, or holding what TorchServe does not know.
    """
    try:
        text = path.read_text()
        beside = path.with_name("environment")
        variables = parse_environment(beside.read_text()) if beside.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        return ServerConfig.parse(text, archive, variables)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
