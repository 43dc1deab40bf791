"""The process of optuna-dashboard: python -m search.service.study_dashboard PORT.

The storage is in an environment variable, because its URL may contain a password.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import make_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

STORAGE_VARIABLE = "SERVETUNE_STUDY_STORAGE"


def main() -> None:
    """Serve the study on the loopback interface until the process is stopped."""
    from optuna_dashboard import wsgi

    app = only_local(wsgi(os.environ.pop(STORAGE_VARIABLE)))
    make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()


def only_local(app: WSGIApplication) -> WSGIApplication:
    """Return an application that refuses requests under other names than the loopback's.

    The dashboard can delete a study, and the DNS of any site may point its name at the loopback.
    """

    def check(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        if re.fullmatch(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", host, re.IGNORECASE):
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"Use http://127.0.0.1 and the port of the dashboard.\n"]

    return check


if __name__ == "__main__":
    main()
