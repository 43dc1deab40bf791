"""The loads of a sweep."""

from pathlib import Path

from tests.sweeps import sweep_spec


def test_sweep_loads_have_names_with_units(tmp_path: Path) -> None:
    sweep = sweep_spec(tmp_path).sweep
    assert sweep is not None
    assert [load.name for load in sweep.sweep_loads()] == [
        "100 requests at once",
        "5 requests one after another",
        "50 rps for 2 s",
        "4 users for 1 s",
        "the sustained rate",
    ]
