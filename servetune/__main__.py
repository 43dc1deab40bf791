"""The command `servetune`, also as `python -m servetune`."""

from __future__ import annotations

import sys

from servetune.packages import ShadowedPackageError, check_packages


def main() -> None:
    """Run the command line of this process."""
    try:
        check_packages()
    except ShadowedPackageError as error:
        print(f"servetune: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    from search.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
