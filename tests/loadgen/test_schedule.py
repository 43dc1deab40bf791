import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.backlog import UNKNOWN, overload
from loadgen.errors import PayloadError
from loadgen.histogram import Histogram
from loadgen.payloads import Payload, mix, read_payloads
from loadgen.schedule import Burst, Closed, Constant, Poisson, Share, due_times


def test_the_shares_of_a_constant_schedule_interleave() -> None:
    whole = list(due_times(Constant(100), 1.0))
    parts = [list(due_times(Constant(100), 1.0, Share(i, 3))) for i in range(3)]
    assert len(whole) == 100
    assert sorted(itertools.chain(*parts)) == whole
    assert parts[1][0] == pytest.approx(0.01)


def test_poisson_shares_are_independent_and_add_up() -> None:
    parts = [np.array(list(due_times(Poisson(300, 1), 20.0, Share(i, 3)))) for i in range(3)]
    counts = [len(part) for part in parts]
    assert sum(counts) == pytest.approx(6000, rel=0.05)
    assert not set(parts[0]) & set(parts[1])
    gaps = np.diff(parts[0])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)
    assert list(due_times(Poisson(300, 1), 1.0)) == list(due_times(Poisson(300, 1), 1.0))
    assert list(due_times(Poisson(300, 1), 1.0)) != list(due_times(Poisson(300, 2), 1.0))


def test_a_burst_is_due_at_once_and_split_whole() -> None:
    parts = [list(due_times(Burst(10), 5.0, Share(i, 3))) for i in range(3)]
    assert [len(part) for part in parts] == [4, 3, 3]
    assert set(itertools.chain(*parts)) == {0.0}


def test_a_long_schedule_is_drawn_as_it_goes() -> None:
    """A million requests need no million numbers in memory: the first comes at once."""
    assert next(due_times(Poisson(1e6, 0), 1e6)) < 1
    assert next(due_times(Constant(1e6), 1e9)) == 0


@pytest.mark.parametrize("make", [lambda: Constant(0), lambda: Poisson(-1), lambda: Closed(0)])
def test_an_impossible_schedule_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"must be positive|at least one"):
        make()  # type: ignore[operator]


def test_quantiles_are_the_librarys() -> None:
    histogram = Histogram()
    for i in range(1, 2001):
        histogram.record(i / 1000)
    for q in (0.001, 0.5, 0.9, 0.99, 1.0):
        library = histogram._counts.get_value_at_percentile(100 * q) / 1e6
        assert histogram.quantile(q) == library
    assert histogram.mean() == pytest.approx(1.0005, rel=1e-3)


@given(st.lists(st.floats(-1, 5000), min_size=1, max_size=50))
def test_many_durations_count_as_each_would(durations: list[float]) -> None:
    each, together = Histogram(), Histogram()
    for duration in durations:
        each.record(duration)
    together.record_all(np.array(durations))
    assert together.encode() == each.encode()
    assert len(together) == len(each) == len(durations)
    assert together.quantile(1.0) == each.quantile(1.0)
    together.record_all(np.array([]))
    assert len(together) == len(durations)


def test_histograms_merge_and_travel() -> None:
    one, other = Histogram(), Histogram()
    one.record(0.5)
    other.record(2.0, 3)
    one.add(pickle.loads(pickle.dumps(other)))
    assert len(one) == 4
    assert one.quantile(1.0) == pytest.approx(2.0, rel=1e-3)
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean() is None


BIN_S = 0.02


def outstanding(
    growth_rps: float, seconds: float, noise: float = 0.0, saw: float = 0.0
) -> np.ndarray:
    time = np.arange(0, seconds, BIN_S)
    generator = np.random.default_rng(1)
    return (
        growth_rps * time
        + saw * (np.arange(time.size) % 20) / 20
        + noise * generator.normal(size=time.size)
        + 20
    )


@pytest.mark.parametrize("growth", [0.0, 0.02, 0.1])
def test_the_overload_is_the_backlogs_growth(growth: float) -> None:
    found = overload(outstanding(100 * growth, 10, noise=2, saw=30), BIN_S, 100, 0.4)
    assert found.fraction == pytest.approx(growth, abs=0.003)
    assert found.low <= found.fraction <= found.high < found.low + 0.01


def test_a_saw_within_a_cycle_is_no_growth() -> None:
    found = overload(outstanding(0, 8, saw=64), BIN_S, 160, 0.4)
    assert found.high < 0.01


def test_the_bounds_hold_their_level() -> None:
    """Of windows without growth, about one in ten has it excluded: a bound of 5 % each side."""
    generator = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        found = overload(20 + 3 * generator.normal(size=400), BIN_S, 100, 0.2)
        wrong += not found.low <= 0 <= found.high
    assert 4 <= wrong <= 36


def test_a_short_window_tells_nothing() -> None:
    assert overload(outstanding(50, 1), BIN_S, 100, 0.4) is UNKNOWN


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_a_requests_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8")
    path = write(
        tmp_path / "requests.jsonl",
        {"body": {"a": 1}, "expect": {"contains": "x", "matches": "^y"}, "headers": {"X": "1"}},
        {"body": "text"},
        {"file": "cat.jpg", "content_type": "image/jpeg"},
    )
    json_, text, binary = read_payloads(path)
    assert (json_.body, json_.headers) == (
        b'{"a": 1}',
        {"Content-Type": "application/json", "X": "1"},
    )
    assert text.headers["Content-Type"] == "text/plain"
    assert (binary.body, binary.headers["Content-Type"]) == (b"\xff\xd8", "image/jpeg")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"boddy": 1}, "line 2: unknown key 'boddy'"),
        ({}, "line 2: either 'body' or 'file'"),
        ({"file": "missing.bin"}, "line 2: .*missing.bin"),
        ({"body": "a", "expect": {"status": 200}}, "unknown key expect.status"),
        ({"body": "a", "expect": {"matches": "("}}, "is not a regular expression"),
        ([1], "line 2"),
    ],
)
def test_a_wrong_request_is_named_by_its_line(tmp_path: Path, line: object, sentence: str) -> None:
    path = write(tmp_path / "requests.jsonl", {"body": "fine"}, line)
    with pytest.raises(PayloadError, match=sentence):
        read_payloads(path)


def test_an_empty_or_missing_requests_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match="holds no request"):
        read_payloads(write(tmp_path / "empty.jsonl"))
    with pytest.raises(PayloadError, match="cannot be read"):
        read_payloads(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("payload", "answer", "good"),
    [
        (Payload(b""), b"anything", True),
        (Payload(b"", contains="cat"), b"a cat", True),
        (Payload(b"", contains="cat"), b"a dog", False),
        (Payload(b"", matches="c.t$"), b"a cat", True),
        (Payload(b"", contains="a", matches="dog"), b"a cat", False),
    ],
)
def test_a_good_answer(payload: Payload, answer: bytes, good: bool) -> None:
    assert payload.accepts(answer) is good


def test_every_window_draws_the_same_mix() -> None:
    payloads = [Payload(str(i).encode()) for i in range(10)]
    first = [next(m).body for m in [mix(payloads, Share())] for _ in range(30)]
    again = [next(m).body for m in [mix(payloads, Share())] for _ in range(30)]
    other = [next(m).body for m in [mix(payloads, Share(1, 2))] for _ in range(30)]
    assert first == again != other
    assert sorted(first[:10]) == sorted(p.body for p in payloads)
