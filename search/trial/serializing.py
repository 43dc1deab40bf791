"""How a configuration is written into JSON: only the settings that are set."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainSerializer

from serving.config import ServerConfig

#: A `ServerConfig` field of a dataclass that pydantic reads and writes.
JsonConfig = Annotated[ServerConfig, PlainSerializer(ServerConfig.to_dict)]
