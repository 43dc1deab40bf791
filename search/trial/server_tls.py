"""How the load generator checks the certificate of a trial's server."""

from __future__ import annotations

from loadgen.tls import Tls
from serving.server import TorchServe


def server_tls(server: TorchServe) -> Tls | None:
    """Return the check of the server's certificate; None if it does not speak TLS.

    A trial's address is not the deployment's, so that host names are not compared: the server must
    have the deployment's certificate, if that is known in PEM.
    """
    certificate = server.certificate
    if certificate is None:
        return None
    return Tls(certificate, is_pinned=True) if certificate else Tls(is_verified=False)
