"""What `servetune measure` prints of several configurations."""

import io

from rich.console import Console

from search.cli.measure import _print_table
from search.confirmation.rounds import Rounds
from tests.results import trial_result

NAMES = [f"runs/quickstart-20261128-17461{n}/best/config.properties" for n in range(3)]


def test_table_of_configurations_fits_80_columns_and_cuts_no_name() -> None:
    rates = ([210.6, 212.4, 242.3, 230.0], [218.4, None, 224.8, 231.0], [None] * 4)
    measured = Rounds(tuple(tuple(trial_result(n, r) for n, r in enumerate(row)) for row in rates))
    out = io.StringIO()
    _print_table(NAMES, measured, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines) and "…" not in out.getvalue()
    assert [line for line in lines if line.startswith("#")] == [
        f"#{number}: {name}" for number, name in enumerate(NAMES, 1)
    ]
    wide = io.StringIO()
    _print_table(NAMES, measured, Console(file=wide, width=160))
    rows = [line.split() for line in wide.getvalue().splitlines() if line.strip()[:1].isdigit()]
    assert rows[0] == ["1", "211,", "212,", "242,", "230"]
    assert rows[1][5:9] == ["1.04,", "0.93,", "1.00", "1.00"] and rows[2][1:] == [
        "–,",
        "–,",
        "–,",
        "–",
    ]
