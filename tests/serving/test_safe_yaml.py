"""Limits of YAML that others wrote."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from serving.safe_yaml import LimitError, check_yaml, load_documents, load_yaml

DOUBLED = "x0: &a0 [1]\n" + "".join(f"x{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
MERGED = "x0: &a0 {k: 1}\n" + "".join(
    f"x{n}: &a{n} {{p{n}: *a{n - 1}, <<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 30)
)
CHAIN = "x0: &a0 [1]\n" + "".join(f"x{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(DOUBLED, "more than 30000 values", id="doubled aliases"),
        pytest.param(MERGED, "more than 30000 values", id="merged aliases"),
        pytest.param(CHAIN, "more than 100 levels", id="chain of aliases"),
        pytest.param("&a [*a]", "contains itself", id="a list in itself"),
        pytest.param("&a {b: [1, *a]}", "contains itself", id="a mapping in itself"),
        pytest.param("[" + "1," * 30_001 + "]", "more than 30000 values", id="many values"),
        pytest.param("---\na: 1\n" * 20_000, "more than 30000 values", id="many documents"),
        pytest.param("[" * 200_000, "more than 100 levels", id="deep lists"),
        pytest.param("{a: " * 200_000, "more than 100 levels", id="deep mappings"),
        pytest.param("- " * 200_000, "more than 100 levels", id="deep blocks"),
        pytest.param("a: " + "1:" * 90_000 + "1", "180001 characters", id="sexagesimal"),
        pytest.param("a: -0x" + "f" * 90_000, "a number has", id="hexadecimal"),
        pytest.param("0b" + "1" * 90_000 + ": a", "a number has", id="binary key"),
        pytest.param("a: " + "9" * 301, "a number has 301 characters", id="decimal"),
    ],
)
def test_load_yaml_refuses_what_would_exhaust_python(text: str, problem: str) -> None:
    for data in (text, text.encode()):
        with pytest.raises(LimitError) as caught:
            load_yaml(data)
        assert problem in str(caught.value.problem)
    with pytest.raises(LimitError):
        list(load_documents(text))


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: &x [1, 2]\nb: *x\nc: {<<: {d: *x}}", {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}),
        ("a: " + "9" * 300, {"a": int("9" * 300)}),
        (f"a: '{'9' * 400}'", {"a": "9" * 400}),
        ("a: " + "0ab" * 400, {"a": "0ab" * 400}),
        ("", None),
    ],
)
def test_load_yaml_reads_what_is_within_the_limits(text: str, data: Any) -> None:
    assert load_yaml(text) == data


def test_check_yaml_can_refuse_every_alias() -> None:
    check_yaml("a: &x 1\nb: *x")
    with pytest.raises(LimitError, match="repeat the value"):
        check_yaml("a: &x 1\nb: *x", allow_aliases=False)


@pytest.mark.parametrize(
    "text",
    [
        *("a: [", "a: *none", "\0", "a: b: c"),
        *("a: 2026-13-45", "a: 0b_", "a: !!int x", "a: !!bool x", "a: !!timestamp x"),
    ],
)
def test_load_yaml_reports_what_is_not_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        load_yaml(text)
    assert not isinstance(caught.value, LimitError)
    with pytest.raises(yaml.YAMLError):
        list(load_documents(text))


def test_load_documents_yields_each_document() -> None:
    assert list(load_documents("a: 1\n---\n- b\n---\n")) == [{"a": 1}, ["b"], None]
