"""The process of optuna-dashboard: python -m search.service.study_dashboard PORT.

The storage is in an environment variable, because its URL may contain a password.
"""

from __future__ import annotations

import os
import sys

STORAGE_VARIABLE = "SERVETUNE_STUDY_STORAGE"


def main() -> None:
    """Serve the study on the loopback interface until the process is stopped."""
    from optuna_dashboard import run_server

    run_server(os.environ.pop(STORAGE_VARIABLE), host="127.0.0.1", port=int(sys.argv[1]))


if __name__ == "__main__":
    main()
