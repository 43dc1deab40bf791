from __future__ import annotations

from pathlib import Path

import pytest

from serving import oom
from serving.oom import OomWatch


class Host:
    """A host whose time and number of kills the test sets."""

    def __init__(self) -> None:
        self.now_s, self.kills = 100.0, 3


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(oom, "host_oom_kills", lambda: made.kills)
    return made


@pytest.fixture
def watch(host: Host) -> OomWatch:
    """A watch without a cgroup."""
    made = OomWatch(lambda: host.now_s)
    made.start(None)
    return made


def test_observe_attributes_kill_to_killed_server(host: Host, watch: OomWatch) -> None:
    host.kills += 1
    assert watch.observe(killed=True)
    assert watch.observe(killed=False), "the kill is not forgotten"


def test_observe_attributes_kill_to_process_that_vanishes_later(
    host: Host, watch: OomWatch
) -> None:
    host.kills += 1
    assert not watch.observe(killed=False)
    host.now_s += 3
    assert watch.observe(killed=True)


def test_observe_does_not_attribute_kill_of_another_process(host: Host, watch: OomWatch) -> None:
    host.kills += 1
    assert not watch.observe(killed=False)
    host.now_s += 60
    assert not watch.observe(killed=True), "the server's process died of something else"


def test_observe_does_not_attribute_other_deaths(watch: OomWatch) -> None:
    assert not watch.observe(killed=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.events", "low 0\noom 1\noom_kill {}\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
    ],
    ids=["v2", "v1"],
)
def test_observe_counts_kills_of_cgroup_only(
    host: Host, tmp_path: Path, name: str, text: str
) -> None:
    watch = OomWatch(lambda: host.now_s)
    (tmp_path / name).write_text(text.format(0))
    watch.start(tmp_path)
    host.kills += 1
    assert not watch.observe(killed=True), "another process was killed for lack of memory"
    (tmp_path / name).write_text(text.format(1))
    assert watch.observe(killed=False)
