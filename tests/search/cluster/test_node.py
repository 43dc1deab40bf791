"""Roles and options of a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cluster.node import NodeOptions, parse_roles
from search.errors import CommandError


def test_parse_roles_returns_serving_and_processes() -> None:
    assert parse_roles([], None) == (False, 0)
    assert parse_roles(["serving"], None) == (True, 0)
    assert parse_roles(["serving", "loadgen"], 3) == (True, 3)


@pytest.mark.parametrize(
    ("roles", "processes", "message"),
    [
        pytest.param(
            ["gpu"], None, r"^--role must be serving or loadgen \(got 'gpu'\)$", id="role"
        ),
        pytest.param([], 2, "^--processes 2 needs --role loadgen too$", id="processes alone"),
    ],
)
def test_parse_roles_refuses(roles: list[str], processes: int | None, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        parse_roles(roles, processes)


def test_node_options_become_rays_options(tmp_path: Path) -> None:
    head = NodeOptions(None, "10.0.0.1", False, 0, 6379, tmp_path).command(tmp_path)
    assert head[1] == "-P", "the working directory may contain modules"
    assert "--head" in head and "--resources={}" in head and "--node-manager-port=6380" in head
    joined = NodeOptions("10.0.0.1:6379", None, True, 2, 6379, tmp_path).command(tmp_path)
    assert '--resources={"serving_host": 1, "loadgen": 2}' in joined
    assert "--address=10.0.0.1:6379" in joined and "--head" not in joined
