"""Fixtures of other tests, for a browser."""

from tests.real.conftest import study  # noqa: F401
from tests.real.test_service import service  # noqa: F401
from tests.search.service.conftest import (  # noqa: F401
    client,
    queue,
    root,
    runner,
    spec,
    store,
)
