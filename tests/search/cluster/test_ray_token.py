"""The file with a cluster's token."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cluster.ray_token import cluster_token_file
from search.errors import CommandError


def test_cluster_token_file_is_created_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret" / "token"
    assert cluster_token_file(path, create=True) == path
    token = path.read_text()
    assert len(token) == 64 and path.stat().st_mode & 0o777 == 0o600
    assert cluster_token_file(path, create=True).read_text() == token


def test_cluster_token_file_takes_permissions_from_other_users(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("created by Ray")
    path.chmod(0o644)
    assert cluster_token_file(path, create=True).stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "created by Ray"


def test_cluster_token_file_refuses_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"there is no cluster token at .*; copy the head's"):
        cluster_token_file(tmp_path / "token", create=False)


def test_cluster_token_file_refuses_path_below_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch()
    with pytest.raises(CommandError, match=r"cannot be created: .*File exists"):
        cluster_token_file(path / "below", create=True)
