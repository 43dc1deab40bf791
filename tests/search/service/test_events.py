"""The file of events: whole lines, from any of them on."""

from pathlib import Path

import pytest

from search.service.events import EventLog


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    found = EventLog(tmp_path / "events.jsonl")
    for number in range(5):
        found.append("phase", number=number, name="ä" * number)
    return found


def test_events_are_read_on_from_any_of_them(log: EventLog) -> None:
    events = log.read()
    assert [event.data["number"] for event in events] == [0, 1, 2, 3, 4]
    for index, event in enumerate(events):
        assert log.read(event.id) == events[index + 1 :]
        assert log.is_event_id(event.id) and not log.is_event_id(event.id - 1)
    assert log.is_event_id(0) and not log.is_event_id(-1) and not log.is_event_id(10**30)


def test_half_a_line_is_not_there_yet(log: EventLog) -> None:
    before = log.read()
    with log.path.open("a") as file:
        file.write('{"kind": "half')
    assert log.read() == before and log.tail() == before


def test_the_tail_begins_with_a_whole_event(log: EventLog) -> None:
    events = log.read()
    size = log.path.stat().st_size
    assert log.tail(size) == events
    assert log.tail(size - 1) == events[1:]
    assert log.tail(size - events[1].id + 1) == events[2:], "of a line's last byte nothing is left"


def test_no_file_is_no_event(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "none")
    assert log.read() == log.tail() == [] and log.is_event_id(0) and not log.is_event_id(5)
