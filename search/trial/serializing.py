"""The JSON form of a configuration: only the settings that are set."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainSerializer

from serving.configuration.config import ServerConfig

#: The type of a `ServerConfig` field in a dataclass that pydantic reads and writes.
JsonConfig = Annotated[ServerConfig, PlainSerializer(ServerConfig.to_dict)]
