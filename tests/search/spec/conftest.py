from pathlib import Path

import pytest

from tests.specifications import make_model_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model archive and a requests file."""
    return make_model_files(tmp_path)
