"""Key pairs for tests of TLS, made with the command openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KeyPair:
    """The paths of a private key and of its certificate, both in PEM."""

    key: Path
    certificate: Path


def make_authority(folder: Path) -> KeyPair:
    """Make a self-signed authority."""
    pair = KeyPair(folder / "authority.key", folder / "authority.pem")
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=authority of a test"),
        *("-keyout", pair.key, "-out", pair.certificate),
    )
    return pair


def make_key_pair(folder: Path, authority: KeyPair, host: str, is_expired: bool = False) -> KeyPair:
    """Make a key and a certificate of the authority for a host name; the key is PKCS #8."""
    pair = KeyPair(folder / "server.key", folder / "server.pem")
    request, extensions = folder / "server.csr", folder / "extensions"
    extensions.write_text(f"subjectAltName=DNS:{host}\n")
    _openssl(
        *("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}"),
        *("-keyout", pair.key, "-out", request),
    )
    _openssl(
        *("x509", "-req", "-in", request, "-CA", authority.certificate, "-CAkey", authority.key),
        *("-CAcreateserial", "-extfile", extensions, "-out", pair.certificate),
        *("-days", "-1" if is_expired else "2"),
    )
    return pair


def make_keystore(pair: KeyPair, path: Path, password: str) -> Path:
    """Write a PKCS #12 keystore with a key pair."""
    _openssl(
        *("pkcs12", "-export", "-inkey", pair.key, "-in", pair.certificate, "-out", path),
        *("-name", "server", "-passout", f"pass:{password}"),
    )
    return path


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
