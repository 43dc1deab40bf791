"""The requests of a run in the form in which a platform sends them to TorchServe."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar
from urllib.parse import unquote

from loadgen.payloads import Payload
from serving.configuration.config import ServerConfig
from serving.platforms.files import PlatformFiles
from serving.platforms.kserve import ENVELOPES, prediction_path

T = TypeVar("T")
_PREDICTION = re.compile("/predictions/([^/?]+)")


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
    envelope = platform.environment.get("TS_SERVICE_ENVELOPE", "")

    def sent_by_platform(payload: Payload) -> Payload:
        prediction = _PREDICTION.match(payload.path or "")
        if payload.path is not None and prediction is None:
            return payload
        path = None  # That of the tuned model.
        if prediction is not None and platform.platform == "kserve":
            path = prediction_path(unquote(prediction[1]), envelope)
        payload = replace(payload, path=path)
        return _as_instance(payload) if wraps else payload

    return [sent_by_platform(payload) for payload in payloads]


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
