"""The requests of a run in the form in which a platform sends them to TorchServe."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from loadgen.payloads import Payload
from serving.config import ServerConfig
from serving.platforms.files import PlatformFiles
from serving.platforms.kserve import ENVELOPES

T = TypeVar("T")


def platform_payloads(
    payloads: Sequence[Payload], platform: PlatformFiles, config: ServerConfig
) -> list[Payload]:
    """Return the requests as the platform sends them.

    Requests for a prediction take the platform's path. KServe's protocol v1 sends each body as one
    of `instances`, binary ones in base64, unless the requests have its form already.
    """
    if platform.platform not in ("kserve", "sagemaker"):
        return list(payloads)
    has_envelope = config.properties.get("service_envelope") in ENVELOPES.values()
    wraps = platform.platform == "kserve" and not has_envelope
    return [_sent_by_platform(payload, wraps) for payload in payloads]


def _sent_by_platform(payload: Payload, wraps: bool) -> Payload:
    if payload.path is not None and not payload.path.startswith("/predictions/"):
        return payload
    payload = replace(payload, path=None)
    return _as_instance(payload) if wraps else payload


def _as_instance(payload: Payload) -> Payload:
    try:
        instance = json.loads(payload.body)
    except ValueError:
        try:
            instance = {"data": payload.body.decode()}
        except UnicodeDecodeError:
            instance = {"data": base64.b64encode(payload.body).decode()}
    return replace(
        payload,
        body=json.dumps({"instances": [instance]}).encode(),
        fields=_in_predictions(payload.fields),
        field_matches=_in_predictions(payload.field_matches),
    ).with_headers({"Content-Type": "application/json"})


def _in_predictions(fields: Mapping[str, T]) -> dict[str, T]:
    return {f"/predictions/0{pointer}": value for pointer, value in fields.items()}
