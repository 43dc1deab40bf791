"""What is asked of a cluster's hosts, without one."""

from pathlib import Path

import pytest

from search.cluster import placement
from search.cluster.node import NodeOptions, role_of
from search.cluster.placement import ClusterMonitor, HostPlacement, Node, Placement, load_hosts
from search.cluster.ray_token import cluster_token
from search.cluster.survey import HostReport, heterogeneous_hosts, lacking
from search.cluster.transfer import Inbox, files_of
from search.errors import CommandError

VERSIONS = {"servetune": "1", "torchserve": "0.12.0", "python": "3.11", "torch": "2", "java": "17"}


def look(last: int, serves: bool = False, loadgen: int = 0, **more: object) -> HostReport:
    node = Node(f"node{last}", f"10.0.0.{last}", f"host{last}", serves, loadgen)
    given = {"versions": VERSIONS if serves else {}, **more}
    return HostReport(node, {"cores": 2}, **given)  # type: ignore[arg-type]


SERVING, LOADGEN = look(1, serves=True), look(2, loadgen=2)


def test_a_cluster_that_can_place_a_trial_lacks_nothing() -> None:
    assert lacking([SERVING, LOADGEN], 2) == []
    assert lacking([look(1, serves=True, loadgen=64)], 4) == []


@pytest.mark.parametrize(
    ("looks", "processes", "told"),
    [
        ([LOADGEN], 2, r"no host has the resource serving_host \(10.0.0.2 \(host2\)\)"),
        ([SERVING], 1, r"asks for 1 load processes and there is room for 0 \(0 on 10.0.0.1"),
        ([SERVING, LOADGEN], 3, r"asks for 3 .* room for 2 .*servetune up --join"),
        (
            [SERVING, LOADGEN, look(3, serves=True, versions={**VERSIONS, "torch": "3"})],
            *(2, r"differ in torch: 2 on 10.0.0.1 \(host1\), 3 on 10.0.0.3 \(host3\)"),
        ),
        (
            [SERVING, LOADGEN, look(3, serves=True, versions={}, lacks=("no TorchServe",))],
            *(2, r"10.0.0.3 \(host3\): no TorchServe"),
        ),
    ],
)
def test_what_a_cluster_lacks_is_said(looks: list[HostReport], processes: int, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        assert "; ".join(lacking(looks, processes)) == ""


def test_the_host_that_differs_is_the_one_alone() -> None:
    assert heterogeneous_hosts({}) == {}
    assert heterogeneous_hosts({"a": 100.0, "b": 95.0}) == {}
    assert heterogeneous_hosts({"a": 100.0, "b": 104.0, "c": 80.0}).keys() == {"c"}
    assert heterogeneous_hosts({"a": 100.0, "b": 200.0, "c": 103.0}).keys() == {"b"}
    assert heterogeneous_hosts({"a": 100.0, "b": 50.0}) == {"b": 0.5}, "of two the slower"


def test_load_is_beside_no_server_where_that_can_be() -> None:
    both, load = look(1, serves=True, loadgen=4).node, look(2, loadgen=2).node
    assert load_hosts([both, load], 2) == [load]
    assert load_hosts([both, load], 3) == [both, load]
    assert load_hosts([both], 2) == [both]


def places(**load: int) -> Placement:
    return Placement({"node1": HostPlacement("10.0.0.1", Path("a.mar"))}, load)


def test_as_many_trials_run_at_once_as_there_is_room_for() -> None:
    assert places(node2=4).at_once(2) == 1
    two = {name: HostPlacement(name, Path("a.mar")) for name in ("a", "b")}
    assert Placement(two, {"c": 4}).at_once(2) == 2
    assert Placement(two, {"c": 3}).at_once(2) == 1


def test_a_cluster_that_lost_its_hosts_is_given_up_after_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, live = 0.0, [SERVING.node, LOADGEN.node]
    monkeypatch.setattr(placement.time, "monotonic", lambda: now)
    monkeypatch.setattr(placement, "nodes", lambda: live)
    watch = ClusterMonitor(places(node2=2), 2)
    seen = {}
    for now in range(0, 600, 5):
        live = {100: [], 140: [SERVING.node, LOADGEN.node], 300: [LOADGEN.node]}.get(now, live)
        live = [SERVING.node] if now == 450 else live
        seen[now] = watch.lost()
    assert {why for second, why in seen.items() if second <= 355} == {None}
    assert seen[400] == "no host that served is left"
    assert seen[595] == "there is room for 0 of 2 load processes"


def test_files_arrive_in_the_runs_folder_alone(tmp_path: Path) -> None:
    there, run = tmp_path / "there", tmp_path / "run"
    (there / "deep").mkdir(parents=True)
    (there / "torchserve.log").write_text("log")
    (there / "deep" / "file").write_bytes(b"\x00")
    inbox = Inbox(str(run))
    inbox.deliver(str(run / "trials" / "3"), files_of(there))
    assert files_of(run / "trials" / "3") == files_of(there)
    for name in ("../../../outside", "/etc/outside"):
        with pytest.raises(ValueError, match="is not in"):
            inbox.deliver(str(run / "trials" / "3"), {name: b""})
    assert not (tmp_path / "outside").exists()


def test_roles_become_rays_resources(tmp_path: Path) -> None:
    assert role_of([], None) == (False, 0)
    assert role_of(["serving"], None) == (True, 0)
    assert role_of(["serving", "loadgen"], 3) == (True, 3)
    for roles, processes, told in ((["gpu"], None, "got 'gpu'"), ([], 2, "name --role loadgen")):
        with pytest.raises(CommandError, match=told):
            role_of(roles, processes)
    head = NodeOptions(None, "10.0.0.1", False, 0, 6379, tmp_path).command(tmp_path)
    assert "--head" in head and "--resources={}" in head and "--node-manager-port=6380" in head
    joined = NodeOptions("10.0.0.1:6379", None, True, 2, 6379, tmp_path).command(tmp_path)
    assert '--resources={"serving_host": 1, "loadgen": 2}' in joined
    assert "--address=10.0.0.1:6379" in joined and "--head" not in joined


def test_a_clusters_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret" / "token"
    with pytest.raises(CommandError, match="copy the head's"):
        cluster_token(path, make=False)
    assert cluster_token(path, make=True) == path
    text = path.read_text()
    assert len(text) == 64 and path.stat().st_mode & 0o777 == 0o600
    assert cluster_token(path, make=True).read_text() == text
    path.chmod(0o644)
    assert cluster_token(path, make=True).stat().st_mode & 0o777 == 0o600, "as Ray makes it"
    with pytest.raises(CommandError, match=r"cannot be made: .*File exists"):
        cluster_token(path / "below", make=True)
