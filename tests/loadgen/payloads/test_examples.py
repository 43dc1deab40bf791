"""The examples in the documentation are requests files; tests/real sends them to TorchServe."""

from pathlib import Path

from loadgen.payloads.line import _KEYS
from tests.examples import PAGE, PICTURE, documented_requests


def test_examples_are_valid_and_cover_every_api(tmp_path: Path) -> None:
    examples = documented_requests(tmp_path)
    payloads = [payload for found in examples.values() for payload in found]
    paths = {(payload.path or "").partition("?")[0] for payload in payloads}
    assert paths >= {
        "",
        "/predictions/pets/1.0",
        "/predictions/pets/1.0/v1/classify",
        "/explanations/pets",
        "/v1/models/pets:predict",
        "/v1/models/pets:explain",
        "/v2/models/pets/infer",
        "/invocations",
        "/models/pets/invoke",
        "/wfpredict/pets_workflow",
    }
    assert {payload.method for payload in payloads} == {"POST", "PUT"}
    assert sum(payload.body == PICTURE for payload in payloads) == 3
    assert any(PICTURE in payload.body and payload.body != PICTURE for payload in payloads)
    assert {payload.weight for payload in examples["A mix"]} == {1.0, 3.0}


def test_examples_page_describes_every_key() -> None:
    page = PAGE.read_text()
    assert [key for key in _KEYS if f"`{key}" not in page and key != "expect"] == []
