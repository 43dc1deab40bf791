"""TLS to the endpoint: which certificates are accepted, and why one is not."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from loadgen.errors import CertificateError

_CONNECT_TIMEOUT_S = 10.0
#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for.
_NO_CHECK_TIME = 0x200000
#: OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_HOST = (62, 64)


@dataclass(frozen=True)
class Tls:
    """How the certificate of an endpoint is checked. Plain data, for processes on other hosts.

    Attributes:
        certificates: certificates in PEM that are trusted; those of the system if empty.
        is_pinned: whether exactly these are accepted, for any host name and at any time: the
            endpoint is known by its certificate alone.
        is_verified: False to accept any certificate.
    """

    certificates: str = ""
    is_pinned: bool = False
    is_verified: bool = True

    @classmethod
    def read(cls, path: Path) -> Tls:
        """Trust the certificates in a PEM file, and no others.

        Raises:
            CertificateError: the file cannot be read, or has no certificate.
        """
        try:
            # Comments between certificates may be in any encoding.
            text = path.read_text("ascii", errors="ignore")
            if "-----BEGIN CERTIFICATE-----" not in text:
                raise ssl.SSLError
            ssl.create_default_context(cadata=text)
        except ssl.SSLError:
            raise CertificateError(f"{path} cannot be read: it has no certificate in PEM") from None
        except OSError as error:
            raise CertificateError(f"{path} cannot be read: {error.strerror}") from None
        return cls(text)

    def context(self) -> ssl.SSLContext:
        """Return the settings of a client's connection."""
        context = ssl.create_default_context(cadata=self.certificates or None)
        if self.is_pinned:
            context.check_hostname = False
            # The server's own certificate is trusted, even if an authority signed it.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        if not self.is_verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def find_tls_problem(url: str, tls: Tls) -> str | None:
    """Return why an https endpoint cannot be talked to, one sentence; None if it can.

    A server that cannot be reached at all is no problem of TLS.

    Args:
        url: a valid URL; see `connection.check_url`.
    """
    address = URL(url)
    if address.scheme != "https":
        return None
    host, port = address.host or "", address.port
    try:
        with socket.create_connection((host, port), _CONNECT_TIMEOUT_S) as connection:
            with tls.context().wrap_socket(connection, server_hostname=host):
                return None
    except ssl.SSLCertVerificationError as error:
        problem = error.verify_message.rstrip(".")
        problem = f"the certificate of {host}:{port} cannot be verified: {problem}"
        if error.verify_code in _OTHER_HOST:
            return f"{problem}; use a host of the certificate, or --insecure to accept any"
        return (
            f"{problem}; pass --ca-file FILE with the certificate of its authority in PEM, or "
            "--insecure to accept any certificate"
        )
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        return f"{host}:{port} does not accept a TLS connection: {reason}; is it http://{host}?"
    except OSError:
        return None
