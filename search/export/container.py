"""What the exports for containers share."""

from __future__ import annotations

import re
from collections.abc import Mapping

from serving.exported import MODEL_STORE

HOME = "/home/model-server"
TORCHSERVE_COMMAND = (
    *("torchserve", "--start", "--foreground", "--ncs"),
    *("--model-store", f"{HOME}/{MODEL_STORE}"),
    *("--ts-config", f"{HOME}/config.properties"),
    *("--log-config", f"{HOME}/log4j2.xml"),
)
_PATH_PROPERTIES = ("keystore", "private_key_file", "certificate_file", "plugins_path")


def kubernetes_environment(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the `env` of a container; Kubernetes would expand `$(NAME)` and `$$`."""
    return [
        {"name": name, "value": re.sub(r"\$(?=[$(])", "$$", text)}
        for name, text in variables.items()
    ]


def container_notes(image: str, properties: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the user must know about a configuration in a container."""
    return (
        f"the image {image} has different versions of Python, torch and Java: measure whether it "
        "sustains the same rate",
        "management and metrics listen only inside the container",
        *(
            f"{key}={path} is a path in the container: mount it"
            for key, path in properties.items()
            if key in _PATH_PROPERTIES
        ),
    )
