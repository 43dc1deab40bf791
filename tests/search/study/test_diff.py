"""Differences between specifications."""

from search.study.diff import changes


def test_changes_lists_old_and_new_values_by_path() -> None:
    before = {"goal": {"width": 0.05}, "search": {"trials": 3}, "model": {"archive": "a"}}
    now = {"goal": {"width": 0.1}, "search": {"trials": 9, "seed": 1}, "model": {"archive": "a"}}
    assert changes(before, now) == {
        "goal.width": "0.05 → 0.1",
        "search.seed": "nothing → 1",
        "search.trials": "3 → 9",
    }
    assert changes(now, now) == {}
