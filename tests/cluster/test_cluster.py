"""Runs on a cluster whose hosts communicate over a network."""

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
from tests.cluster.conftest import ROOT, Lab
from tests.real.conftest import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WriteStudy = Callable[..., Path]
#: Accepted relative error of a rate: the width of a verdict and the noise of the host.
RATE_TOLERANCE = 0.25
PACKET_LOSS = ("-m", "statistic", "--mode", "random", "--probability", "0.01", "-j", "DROP")


def write_study(study: WriteStudy, lab: Lab, trials: int = 6, keep: bool = True) -> Path:
    """Write a study for the cluster; return its file.

    Args:
        keep: whether to keep heterogeneous hosts. The hosts share this machine's cores, so that
            their measured speeds differ by chance.
    """
    return study(
        search={"trials": trials, "min_improvement_probability": 0},
        load={"processes": 2, "max_processes": 2},
        cluster={"address": lab.cluster, "heterogeneous_hosts": "keep" if keep else "leave_out"},
    )


def read_records(tmp_path: Path) -> list[dict[str, Any]]:
    """Return the records of the trials that have ended."""
    lines = [
        line
        for path in tmp_path.glob("runs/*/trials.jsonl")
        for line in path.read_text().splitlines()
    ]
    return [json.loads(line) for line in lines]


def address(record: dict[str, Any]) -> str:
    """Return the address of the host on which a trial was measured."""
    return str(record["host"]["facts"]["address"])


def wait_for_success(process: subprocess.Popen[str], timeout_s: float = 500) -> str:
    """Wait for the end of a command that succeeds; return its output."""
    output = process.communicate(timeout=timeout_s)[0]
    assert process.returncode == 0, output
    return output


def test_cluster_runs_trials_on_two_serving_hosts(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    hosts = wait_for_success(lab.servetune("head", "doctor", "--cluster", lab.cluster), 120)
    assert "10.77.0.11 (serve1)" in hosts and "loadgen (2)" in hosts
    before = lab.bytes_through("serve1")
    wait_for_success(lab.servetune("head", "tune", write_study(study, lab), "--confirm", "2"))
    (folder,) = (tmp_path / "runs").iterdir()
    records = read_records(tmp_path)
    assert {address(record) for record in records} == {"10.77.0.11", "10.77.0.12"}
    for record in records:
        files = {p.name for p in (folder / "trials" / str(record["number"])).iterdir()}
        assert {"config.properties", "environment", "torchserve.log"} <= files
    confirmed = [json.loads(p.read_text()) for p in folder.glob("confirm/*/*/measurements.json")]
    assert len({address(data["result"]) for data in confirmed}) == 1, "confirm on one host"
    after = lab.bytes_through("serve1")
    assert all(b - a > 100_000 for a, b in zip(before, after, strict=True)), (
        "the load crosses the network"
    )
    assert "on 10.77.0.21 (load1), 10.77.0.22 (load2)" in (folder / "report.md").read_text()


def wait_for_ports(host: str, timeout_s: float = 300) -> dict[str, int]:
    """Wait for a trial on a host; return its server's ports by name.

    All hosts share `/tmp`, so that its configuration can be read here.
    """

    def read_ports() -> dict[str, int] | None:
        for path in Path("/tmp").glob(f"{HOST_PREFIX}*/trial/config.properties"):
            with suppress(OSError, KeyError):
                properties = javaproperties.loads(path.read_text())
                if f"//{host}:" in properties["inference_address"]:
                    ports = {
                        name: properties[f"{name}_address"].rsplit(":", 1)[1]
                        for name in ("inference", "management", "metrics")
                    }
                    ports |= {
                        n: properties[f"{n}_port"] for n in ("grpc_inference", "grpc_management")
                    }
                    return {name: int(port) for name, port in ports.items()}
        return None

    return dict(wait_for(read_ports, timeout_s, f"a trial on {host}"))


def accepts_connections(lab: Lab, host: str, port: int) -> bool:
    """Return whether another host can connect to a port."""
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    process = lab.start("load1", sys.executable, "-P", "-c", code, host, port)
    output = process.communicate(timeout=20)[0]
    assert not output or "ConnectionRefusedError" in output, output
    return not output


def test_cluster_exposes_only_predictions(lab: Lab, study: WriteStudy) -> None:
    run = lab.servetune("head", "tune", write_study(study, lab))
    host = lab.address("serve1")

    def try_ports() -> dict[str, bool]:
        """Return which ports accept connections; empty unless the server ran all the time."""
        ports = wait_for_ports(host)
        accepted = {name: accepts_connections(lab, host, port) for name, port in ports.items()}
        still_runs = accepted["inference"] and accepts_connections(lab, host, ports["inference"])
        return accepted if still_runs else {}

    accepted = wait_for(try_ports, 300, "a server ran while all ports were tried")
    assert [name for name, accepts in accepted.items() if accepts] == ["inference"]
    wait_for_success(run)


def test_cluster_that_cannot_place_a_trial_is_refused(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    path = study(load={"max_processes": 9}, cluster={"address": lab.cluster})
    run = lab.servetune("head", "tune", path)
    output = run.communicate(timeout=120)[0]
    assert run.returncode == 2 and "Traceback" not in output
    assert "may need 9 load generator processes" in output
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
    run = lab.servetune("head", "tune", path, "--cluster", "10.77.0.99:6379")
    output = run.communicate(timeout=120)[0]
    assert run.returncode == 2 and "nothing answers at 10.77.0.99:6379" in output


def disconnect_during_trial(lab: Lab, host: str) -> None:
    """Take a host's interface down while a trial is measured on it."""
    ports = wait_for_ports(lab.address(host))
    wait_for(
        lambda: accepts_connections(lab, lab.address(host), ports["inference"]),
        60,
        "its server accepts connections",
    )
    lab.set_link(host, "down")


def reconnect(lab: Lab, host: str) -> None:
    """Bring a host's interface up, and start its node again."""
    lab.set_link(host, "up")
    wait_for(lambda: lab.nodes[host].poll() is not None, 120, "the end of its node")
    lab.start_node(host)


def test_cluster_survives_the_loss_of_a_serving_host(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    run = lab.servetune("head", "tune", write_study(study, lab, trials=10))
    wait_for(lambda: len(read_records(tmp_path)) > 1, 300, "two trials")
    disconnect_during_trial(lab, "serve1")
    wait_for(lambda: any(r["host_fault"] for r in read_records(tmp_path)), 120, "a host fault")
    # The run does not use the host again: its archive was removed.
    reconnect(lab, "serve1")
    hosts = wait_for_success(lab.servetune("head", "doctor", "--cluster", lab.cluster), 120)
    assert "10.77.0.11 (serve1)" in hosts
    output = wait_for_success(run, 600)
    records = read_records(tmp_path)
    (lost,) = [record for record in records if record["host_fault"]]
    assert "process lost" in lost["cause"], output
    same_config = [record for record in records if record["config"] == lost["config"]]
    assert len(same_config) >= 2 and not same_config[-1]["host_fault"], "the trial is repeated"


def test_cluster_without_a_serving_host_ends_the_run(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    stop_node(lab, "serve2")
    run = lab.servetune("head", "tune", write_study(study, lab, trials=3), "--confirm", "2")
    wait_for(lambda: read_records(tmp_path), 300, "a trial")
    disconnect_during_trial(lab, "serve1")
    output = run.communicate(timeout=400)[0]
    assert run.returncode == 1 and "Traceback" not in output, output
    assert "no longer has room for a trial: no serving host is left" in output
    reconnect(lab, "serve1")
    (folder,) = (tmp_path / "runs").iterdir()
    run = lab.servetune("head", "resume", folder)
    wait_for(lambda: list(folder.glob("confirm/*/*/measurements.json")), 400, "a confirmation")
    disconnect_during_trial(lab, "serve1")
    output = run.communicate(timeout=400)[0]
    assert run.returncode == 1 and "Traceback" not in output, output
    assert "10.77.0.11 (serve1)" in output and "earlier results are kept" in output
    reconnect(lab, "serve1")
    assert "sustains" in wait_for_success(lab.servetune("head", "resume", folder), 600)
    assert len([r for r in read_records(tmp_path) if not r["host_fault"]]) == 3


def stop_node(lab: Lab, host: str) -> None:
    """End a host's node gracefully, and wait until the head has noticed."""
    lab.nodes[host].send_signal(signal.SIGTERM)
    lab.nodes[host].wait(60)

    def has_left() -> bool:
        process = lab.servetune("head", "doctor", "--cluster", lab.cluster)
        return lab.address(host) not in process.communicate(timeout=120)[0]

    wait_for(has_left, 120, f"{host} leaves the cluster")


def test_cluster_leaves_out_a_slow_host(lab: Lab, study: WriteStudy, tmp_path: Path) -> None:
    stop_node(lab, "serve2")
    lab.start_node("serve2", cores="0")
    study_path = write_study(study, lab, trials=3, keep=False)
    wait_for_success(lab.servetune("head", "tune", study_path))
    assert {address(record) for record in read_records(tmp_path)} == {"10.77.0.11"}
    (report,) = tmp_path.glob("runs/*/report.md")
    warning = r"10\.77\.0\.12 \(serve2\) has \d+% of the others' speed and is left out"
    assert re.search(warning, report.read_text())


def test_cluster_survives_the_loss_of_a_load_generator_host(
    lab: Lab, study: WriteStudy, tmp_path: Path
) -> None:
    stop_node(lab, "serve2")  # The load of the only trial then comes from one host.
    run = lab.servetune("head", "tune", write_study(study, lab, trials=4))
    wait_for(lambda: read_records(tmp_path), 300, "a trial")
    wait_for_ports(lab.address("serve1"))
    loaded = [host for host in ("load1", "load2") if lab.bytes_through(host)[1] > 1_000_000]
    lab.set_link(loaded[0] if loaded else "load1", "down")
    output = wait_for_success(run, 800)
    records = read_records(tmp_path)
    lost = [record for record in records if record["host_fault"]]
    assert lost and all("lost" in record["cause"] for record in lost), output
    assert len([record for record in records if not record["host_fault"]]) >= 3


def test_cluster_measures_network_delay_and_keeps_the_rate(lab: Lab, tmp_path: Path) -> None:
    if shutil.which("iptables") is None:
        pytest.skip("no iptables on PATH")
    law = Law(workers=1, batch=8, service_s=0.1, queue=1000)
    options = json.dumps({"law": asdict(law), "faults": asdict(Faults()), "seed": 0})
    python = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-P")
    server = lab.start("serve1", *python, "-m", "benchmarks.stub", options, stdin=subprocess.PIPE)
    assert server.stdout is not None
    stub_port = int(server.stdout.readline())
    requests = lab.home / "requests.jsonl"
    requests.write_text('{"body": {"a": 1}}\n')

    def measure(relay_port: int, delay_s: float) -> dict[str, Any]:
        """Measure the stub through a relay that adds a delay in each direction."""
        script = Path(__file__).with_name("relay.py")
        arguments = (lab.address("serve1"), relay_port, stub_port, delay_s)
        relay = lab.start("serve1", sys.executable, "-P", script, *arguments)
        assert relay.stdout is not None and relay.stdout.readline() == "ready\n"
        url = f"http://{lab.address('serve1')}:{relay_port}/predictions/stub"
        process = lab.servetune("load1", "measure", "--url", url, "--requests", requests, "--json")
        rate: dict[str, Any] = json.loads(wait_for_success(process, 200).splitlines()[-1])
        return rate

    near, far = measure(9001, 0.0), measure(9002, 0.02)
    assert far["p50_s"] - near["p50_s"] > 0.03, "the delay counts in both directions"
    # Packets are lost in both directions: with losses in one, the p99 latency is chance.
    for chain, port_option in (("INPUT", "--dport"), ("OUTPUT", "--sport")):
        lab.run("serve1", "iptables", "-A", chain, "-p", "tcp", port_option, "9003", *PACKET_LOSS)
    lossy = measure(9003, 0.0)
    assert lossy["p99_s"] > near["p99_s"] + 0.1, "TCP retransmits after 200 ms"
    for rate in (near, far, lossy):
        assert rate["sustained_rps"] == pytest.approx(80, rel=RATE_TOLERANCE)
