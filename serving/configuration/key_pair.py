"""The key pair of a deployment whose inference address is https.

Source: ConfigManager.getSslContext: a keystore wins over a pair of files, and without either
TorchServe makes a certificate. A relative path is resolved against the server's working folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from serving.configuration.environment import REDACTED, escaped, secret_variable
from serving.errors import ConfigError

PASSWORD = "keystore_pass"
#: The variable that holds the password, so that no file of a trial contains it.
_VARIABLE = secret_variable(PASSWORD)
_PATHS = ("keystore", "private_key_file", "certificate_file")
_BEGIN = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class KeyPair:
    """The lines of config.properties that name a key pair.

    Attributes:
        lines: without the password.
        password: of the keystore; empty for TorchServe's default.
    """

    lines: Mapping[str, str] = field(default_factory=dict)
    password: str = field(default="", repr=False)

    @classmethod
    def take(cls, properties: dict[str, str]) -> KeyPair | None:
        """Take the lines that count out of a deployment's; None if it does not speak https."""
        if not properties.get("inference_address", "").lower().startswith("https:"):
            return None
        if "keystore" in properties:
            keys = ["keystore", "keystore_type"]
        elif "private_key_file" in properties and "certificate_file" in properties:
            keys = ["private_key_file", "certificate_file"]
        else:
            return cls()
        lines = {key: properties.pop(key) for key in keys if key in properties}
        return cls(lines, properties.pop(PASSWORD, "") if "keystore" in lines else "")

    def candidates(self, folders: Sequence[Path]) -> dict[str, list[Path]]:
        """Return the paths that each file may have, by key, the likeliest first.

        Args:
            folders: those that a relative path may be in, the likeliest first.
        """
        return {
            key: list(dict.fromkeys(folder / self.lines[key] for folder in folders))
            for key in _PATHS
            if key in self.lines
        }

    def resolved(self, folders: Sequence[Path]) -> KeyPair:
        """Return the same with absolute paths.

        Args:
            folders: those that a relative path may be in, the likeliest first.

        Raises:
            ConfigError: a file does not exist.
        """
        lines = dict(self.lines)
        for key, candidates in self.candidates(folders).items():
            path = Path(lines[key])
            found = [candidate for candidate in candidates if candidate.is_file()]
            if not found:
                hint = (
                    ""
                    if path.is_absolute()
                    else f" in {folders[0]}: TorchServe resolves a relative path against its "
                    "working folder; start servetune there, or write an absolute path"
                )
                raise ConfigError(f"{key}={path} does not exist{hint}")
            lines[key] = str(found[0].resolve())
        return replace(self, lines=lines)

    def properties(self) -> dict[str, str]:
        """Return the lines for a trial, in which a variable stands for the password."""
        if not self.password:
            return dict(self.lines)
        is_variable = re.fullmatch(r"\$\$\w+\$\$", self.password)
        return {**self.lines, PASSWORD: self.password if is_variable else f"$${_VARIABLE}$$"}

    def variables(self) -> dict[str, str]:
        """Return the variable with the password.

        Raises:
            ConfigError: the password is not known.
        """
        if self.password == REDACTED:
            raise ConfigError(
                f"the value of {PASSWORD} is not known: it is a secret, and the config.properties "
                "that it was read from is missing"
            )
        if not self.password or re.fullmatch(r"\$\$\w+\$\$", self.password):
            return {}
        return {_VARIABLE: escaped(self.password)}

    def certificate(self) -> str:
        """Return the certificate in PEM; empty if it is in a keystore or in another form."""
        path = self.lines.get("certificate_file")
        if path is None:
            return ""
        text = Path(path).read_text("latin-1")
        return text[text.index(_BEGIN) :] if _BEGIN in text else ""

    def describe(self) -> str:
        """Return how trials use it, in a sentence."""
        source = self.lines.get("keystore") or self.lines.get("certificate_file")
        return (
            f"inference_address is https: each trial serves over https with {source}"
            if source
            else "inference_address is https without a key pair: TorchServe makes a certificate"
        )
