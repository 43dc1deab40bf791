"""The file of events."""

from pathlib import Path

import pytest

from search.service.events import EventLog


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    log = EventLog(tmp_path / "events.jsonl")
    for number in range(5):
        log.append("phase", number=number, name="ä" * number)
    return log


def test_event_log_read_continues_after_any_event(log: EventLog) -> None:
    events = log.read()
    assert [event.data["number"] for event in events] == [0, 1, 2, 3, 4]
    for index, event in enumerate(events):
        assert log.read(event.id) == events[index + 1 :]
        assert log.is_event_id(event.id) and not log.is_event_id(event.id - 1)
    assert log.is_event_id(0) and not log.is_event_id(-1) and not log.is_event_id(10**30)


def test_event_log_ignores_incomplete_line(log: EventLog) -> None:
    before = log.read()
    with log.path.open("a") as file:
        file.write('{"kind": "half')
    assert log.read() == before and log.tail() == before


def test_event_log_tail_starts_with_complete_event(log: EventLog) -> None:
    events = log.read()
    size = log.path.stat().st_size
    assert log.tail(size) == events
    assert log.tail(size - 1) == events[1:]
    assert log.tail(size - events[1].id + 1) == events[2:], (
        "the last byte of a line is not an event"
    )


def test_event_log_without_file_is_empty(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "none")
    assert log.read() == log.tail() == [] and log.is_event_id(0) and not log.is_event_id(5)


def test_event_log_reads_and_continues_after_a_partial_line(log: EventLog) -> None:
    whole = log.path.read_bytes().splitlines(keepends=True)[0]
    with log.path.open("ab") as file:
        # As a full disk left it, and an earlier version continued it.
        file.write(whole[:30] + whole + b'{"kind": "ha\n' + b"[]\n{}\n" + whole[:40])
    log.append("phase", number=9)
    assert [event.data["number"] for event in log.read()] == [0, 1, 2, 3, 4, 0, 9]
    assert [event.data["number"] for event in log.tail()] == [0, 1, 2, 3, 4, 0, 9]
    assert all(log.is_event_id(event.id) for event in log.read())


def test_event_log_read_passes_any_amount_of_damaged_lines(log: EventLog) -> None:
    last = log.read()[-1].id
    with log.path.open("ab") as file:
        file.write((b"x" * 99 + b"\n") * 20 + b"x" * 5000 + b"\n")
    log.append("phase", number=9)
    assert [event.data["number"] for event in log.read(last, max_bytes=256)] == [9]
