"""How many generated inputs of each kind the tests try: `FUZZ_EXAMPLES`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
#: Limit of a test that tries them, seconds.
TIMEOUT_S = 300 + EXAMPLES / 10
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
