"""Runs over the wire: hosts with separate addresses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import javaproperties
import pytest

from benchmarks.law import Faults, Law
from search.cluster.folders import HOST_PREFIX
from tests.cluster.conftest import Lab
from tests.real.conftest import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WriteStudy = Callable[..., Path]
#: A window's verdict and the host's share of the noise.
NEAR = 0.25
LOSS = ("-m", "statistic", "--mode", "random", "--probability", "0.01", "-j", "DROP")


def written(study: WriteStudy, lab: Lab, trials: int = 6, keep: bool = True) -> Path:
    """A study for this cluster; its hosts share cores: how fast each looks is chance."""
    return study(
        search={"trials": trials},
        load={"processes": 2, "max_processes": 2},
        cluster={"address": lab.cluster, "heterogeneous_hosts": "keep" if keep else "leave_out"},
    )


def results(tmp_path: Path) -> list[dict[str, Any]]:
    """What the one run has recorded by now."""
    lines = [
        line
        for path in tmp_path.glob("runs/*/trials.jsonl")
        for line in path.read_text().splitlines()
    ]
    return [json.loads(line) for line in lines]


def ended(process: subprocess.Popen[str], seconds: float = 500) -> str:
    said = process.communicate(timeout=seconds)[0]
    assert process.returncode == 0, said
    return said


def test_cluster_runs_trials_on_two_serving_hosts(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    shown = ended(lab.servetune("head", "doctor", "--cluster", lab.cluster), 120)
    assert "10.77.0.11 (serve1)" in shown and "loadgen (2)" in shown
    before = lab.bytes_through("serve1")
    ended(lab.servetune("head", "tune", written(study, lab), "--confirm", "2"))
    (folder,) = (tmp_path / "runs").iterdir()
    found = results(tmp_path)
    assert {r["host"]["address"] for r in found} == {"10.77.0.11", "10.77.0.12"}
    for result in found:
        files = {p.name for p in (folder / "trials" / str(result["number"])).iterdir()}
        assert {"config.properties", "environment", "torchserve.log"} <= files
    confirmed = [json.loads(p.read_text()) for p in folder.glob("confirm/*/*/measurements.json")]
    assert len({c["result"]["host"]["address"] for c in confirmed}) == 1, "on one host"
    now = lab.bytes_through("serve1")
    assert all(b - a > 100_000 for a, b in zip(before, now, strict=True)), "the load crosses"
    assert "on 10.77.0.21 (load1), 10.77.0.22 (load2)" in (folder / "report.md").read_text()


def serving_at(host: str, seconds: float = 300) -> dict[str, int]:
    """The ports of a trial whose server answers on this host; every host sees these files."""

    def found() -> dict[str, int] | None:
        for path in Path("/tmp").glob(f"{HOST_PREFIX}*/trial/config.properties"):
            with suppress(OSError, KeyError):
                held = javaproperties.loads(path.read_text())
                if f"//{host}:" in held["inference_address"]:
                    addresses = ("inference", "management", "metrics")
                    named = {n: held[f"{n}_address"].rsplit(":", 1)[1] for n in addresses}
                    named |= {n: held[f"{n}_port"] for n in ("grpc_inference", "grpc_management")}
                    return {name: int(port) for name, port in named.items()}
        return None

    return dict(wait_for(found, seconds, f"a trial on {host}"))


def reaches(lab: Lab, host: str, port: int) -> bool:
    """Whether another host gets a connection."""
    reach = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    said = lab.start("load1", sys.executable, "-c", reach, host, port).communicate(timeout=20)[0]
    assert not said or "ConnectionRefusedError" in said, said
    return not said


def test_cluster_exposes_only_predictions(lab: Lab, study: WriteStudy) -> None:
    run = lab.servetune("head", "tune", written(study, lab))
    host = lab.address("serve1")

    def tried() -> dict[str, bool]:
        """What is in reach while the server is up, from before the others were tried to after."""
        ports = serving_at(host)
        found = {name: reaches(lab, host, port) for name, port in ports.items()}
        return found if found["inference"] and reaches(lab, host, ports["inference"]) else {}

    found = wait_for(tried, 300, "a server was up all along")
    assert [name for name, reached in found.items() if reached] == ["inference"]
    ended(run)


def test_cluster_that_cannot_place_a_trial_is_refused(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    path = study(load={"max_processes": 9}, cluster={"address": lab.cluster})
    refused = lab.servetune("head", "tune", path)
    said = refused.communicate(timeout=120)[0]
    assert refused.returncode == 2 and "Traceback" not in said
    assert "load.max_processes is 9, but there is room for 4" in said
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
    elsewhere = lab.servetune("head", "tune", path, "--cluster", "10.77.0.99:6379")
    said = elsewhere.communicate(timeout=120)[0]
    assert elsewhere.returncode == 2 and "nothing answers at 10.77.0.99:6379" in said


def cut_off(lab: Lab, host: str) -> None:
    """Take a host's interface down while a trial is measured on it."""
    ports = serving_at(lab.address(host))
    wait_for(lambda: reaches(lab, lab.address(host), ports["inference"]), 60, "its server is up")
    lab.link(host, "down")


def given_back(lab: Lab, host: str) -> None:
    """Bring it up again, and start its node anew."""
    lab.link(host, "up")
    wait_for(lambda: lab.nodes[host].poll() is not None, 120, "its node has given up")
    lab.up(host)


def settings(result: dict[str, Any]) -> str:
    return json.dumps(result["config"], sort_keys=True)


def test_cluster_survives_the_loss_of_a_serving_host(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    run = lab.servetune("head", "tune", written(study, lab, trials=10))
    wait_for(lambda: len(results(tmp_path)) > 1, 300, "trials were measured")
    cut_off(lab, "serve1")
    wait_for(lambda: any(r["host_fault"] for r in results(tmp_path)), 120, "it is missed")
    given_back(lab, "serve1")  # The run goes on without it: it has no archive any more.
    shown = ended(lab.servetune("head", "doctor", "--cluster", lab.cluster), 120)
    assert "10.77.0.11 (serve1)" in shown
    said = ended(run, 600)
    found = results(tmp_path)
    (lost,) = [r for r in found if r["host_fault"]]
    assert "process lost" in lost["cause"], said
    again = [r for r in found if settings(r) == settings(lost)]
    assert len(again) >= 2 and not again[-1]["host_fault"], "it was repeated"


def test_cluster_without_a_serving_host_ends_the_run(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    leave(lab, "serve2")
    run = lab.servetune("head", "tune", written(study, lab, trials=3), "--confirm", "2")
    wait_for(lambda: results(tmp_path), 300, "a trial was measured")
    cut_off(lab, "serve1")
    said = run.communicate(timeout=400)[0]
    assert run.returncode == 1 and "Traceback" not in said, said
    assert "no longer has room for a trial: no host that served is left" in said
    given_back(lab, "serve1")
    (folder,) = (tmp_path / "runs").iterdir()
    run = lab.servetune("head", "resume", folder)
    wait_for(lambda: list(folder.glob("confirm/*/*/measurements.json")), 400, "it confirms")
    cut_off(lab, "serve1")
    said = run.communicate(timeout=400)[0]
    assert run.returncode == 1 and "Traceback" not in said, said
    assert "10.77.0.11 (serve1)" in said and "earlier results are kept" in said
    given_back(lab, "serve1")
    assert "sustains" in ended(lab.servetune("head", "resume", folder), 600)
    found = results(tmp_path)
    assert len([r for r in found if not r["host_fault"]]) == 3


def leave(lab: Lab, host: str) -> None:
    """End a host's node in order."""
    lab.nodes[host].send_signal(signal.SIGTERM)
    lab.nodes[host].wait(60)

    def shown() -> str:
        asked = lab.servetune("head", "doctor", "--cluster", lab.cluster)
        return str(asked.communicate(timeout=120)[0])

    wait_for(lambda: lab.address(host) not in shown(), 120, "the head has seen it leave")


def test_cluster_leaves_out_a_slow_host(lab: Lab, study: WriteStudy, tmp_path: Path) -> None:
    leave(lab, "serve2")
    lab.up("serve2", cores="0")
    ended(lab.servetune("head", "tune", written(study, lab, trials=3, keep=False)))
    assert {r["host"]["address"] for r in results(tmp_path)} == {"10.77.0.11"}
    (report,) = tmp_path.glob("runs/*/report.md")
    expected = r"10\.77\.0\.12 \(serve2\) has \d+% of the others' speed and is left out"
    assert re.search(expected, report.read_text())


def test_cluster_survives_the_loss_of_a_load_host(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    leave(lab, "serve2")  # The one trial's load is then on one host.
    run = lab.servetune("head", "tune", written(study, lab, trials=4))
    wait_for(lambda: results(tmp_path), 300, "a trial was measured")
    serving_at(lab.address("serve1"))
    with_load = [host for host in ("load1", "load2") if lab.bytes_through(host)[1] > 1_000_000]
    lab.link(with_load[0] if with_load else "load1", "down")
    said = ended(run, 800)
    found = results(tmp_path)
    lost = [r for r in found if r["host_fault"]]
    assert lost and all("lost" in r["cause"] for r in lost), said
    assert len([r for r in found if not r["host_fault"]]) >= 3


def test_cluster_measures_network_delay_and_keeps_the_verdict(lab: Lab, tmp_path: Path) -> None:
    if shutil.which("iptables") is None:
        pytest.skip("no iptables on PATH")
    law = Law(workers=1, batch=8, service_s=0.1, queue=1000)
    expected = json.dumps({"law": asdict(law), "faults": asdict(Faults()), "seed": 0})
    server = lab.start(
        "serve1", sys.executable, "-m", "benchmarks.stub", expected, stdin=subprocess.PIPE
    )
    assert server.stdout is not None
    port = int(server.stdout.readline())
    requests = lab.home / "requests.jsonl"
    requests.write_text('{"body": {"a": 1}}\n')

    def measured(relayed: int, delay_s: float) -> dict[str, Any]:
        script = Path(__file__).with_name("relay.py")
        arguments = (lab.address("serve1"), relayed, port, delay_s)
        relay = lab.start("serve1", sys.executable, script, *arguments)
        assert relay.stdout is not None and relay.stdout.readline() == "relays\n"
        url = f"http://{lab.address('serve1')}:{relayed}/predictions/stub"
        asked = lab.servetune("load1", "measure", "--url", url, "--requests", requests, "--json")
        expected: dict[str, Any] = json.loads(ended(asked, 200).splitlines()[-1])
        return expected

    near, far = measured(9001, 0.0), measured(9002, 0.02)
    assert far["p50_s"] - near["p50_s"] > 0.03, "there and back"
    for chain, port_of in (("INPUT", "--dport"), ("OUTPUT", "--sport")):  # Else p99 is chance.
        lab.inside("serve1", "iptables", "-A", chain, "-p", "tcp", port_of, "9003", *LOSS)
    lossy = measured(9003, 0.0)
    assert lossy["p99_s"] > near["p99_s"] + 0.1, "what is lost is sent again after 200 ms"
    for each in (near, far, lossy):
        assert each["sustained_rps"] == pytest.approx(80, rel=NEAR)
