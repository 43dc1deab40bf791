"""The expected values are those of Gson itself, in the model-server.jar of TorchServe 0.12.0."""

from __future__ import annotations

from typing import Any

import pytest

from serving.configuration import gson

ENTRY = '{{"p":{{"1.0":{{"b":{}}}}}}}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{p:{1.0:{b:5}}}", "5"),
        ("{'p':{'1.0':{'b'=>'5'}}}", "5"),
        ('{"p":{"1.0":{"b":5;"c":2};};"q":{}}', None),
        ('{"p":{"1.0":{"b":5;"c":2}};"q":{}}', "5"),
        ('{"p":{"1.0":{"b":5 /* c */}}}', "5"),
        ('// x\n{"p":{#c\n"1.0":{"b":5}}}', "5"),
        (')]}\'\n{"p":{"1.0":{"b":5}}}', "5"),
        ('{"p":{"1.0":{"b":01}}}', "01"),
        ('{"p":{"1.0":{"b":1_000}}}', "1_000"),
        ('{"p":{"1.0":{"b":[1,,]}}}', ["1", None, None]),
        ('{"p":{"1.0":{"b":TRUE}}}', True),
        ('{"p":{"1.0":{"b":it\'s}}}', "it's"),
        ('{"p":{"1.0":{"b":"a\nb"}}}', "a\nb"),
        ('{"p":{"1.0":{"b":"\\ud83d\\ude00"}}}', "\U0001f600"),
        ('{"p":{"1.0":{"b":5,"b":6}}}', "6"),
        ('{"p":{"1.0":{"b":5}}} // x', None),
        ('{"p":{"1.0":{"b":5,}}}', None),
        ('{"p":{"1.0":{"b":5}}}}', None),
        ('{"p":{"1.0":{"b":"\\q"}}}', None),
        ('{"p":{"1.0":{"b":5 6}}}', None),
        ('{"p":{"1.0":{"b":5 /*}}}', None),
        ('{"p":{"1.0":{"b":' + 5000 * "[", None),
    ],
)
def test_parse_reads_as_gson_does(text: str, value: Any) -> None:
    if value is None:
        with pytest.raises(gson.GsonError):
            gson.parse(text)
    else:
        assert gson.parse(text).plain()["p"]["1.0"]["b"] == value


def test_parse_returns_the_place_of_each_value() -> None:
    text = "{ 'p' : [ 1 , {x = yes} ] }"
    value = gson.parse(text).member("p")
    assert value is not None and value.text == "[ 1 , {x = yes} ]"
    assert [item.text for item in value.data] == ["1", "{x = yes}"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("8.7", 8), ("-0", 0), ("1e2", 100), ("1E+2", 100), ("1e-5", 0), ("-3.5", -3)),
        *(("3000000000", -1294967296), ("4294967297", 1), ("99999999999999999999", 1661992959)),
        *(("1e10", 1410065408), ("1e400", 0), ("1e999999999", 0)),
        *((f"1e{'9' * 30}", 0), (f"-1e-{'9' * 30}", 0)),
    ],
)
def test_to_int_overflows_as_java_does(text: str, number: int) -> None:
    assert gson.to_int(gson.Number(text)) == number


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"a":1,"b":2}', ["a", "b"]),
        ('[["a",1],["b",2]]', ["a", "b"]),
        ("[]", []),
        ("[[true,1],[2,1]]", ["true", "2"]),
        ('{"a":1,"a":2}', None),
        ('[["a",1],["a",2]]', None),
        ('[["a",1,2]]', None),
        ("3", None),
    ],
)
def test_as_map_reads_objects_and_pairs(text: str, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(gson.GsonError):
            list(gson.as_map(gson.parse(text)))
    else:
        assert [member.name for member in gson.as_map(gson.parse(text))] == names
