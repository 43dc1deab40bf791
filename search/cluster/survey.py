"""Examine the hosts of a shared cluster, and prepare them for a run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from loadgen.formatting import format_percent
from search.cluster.folders import packed_archive
from search.cluster.host_actor import HostActor
from search.cluster.host_report import HostReport, find_problems, heterogeneous_hosts
from search.cluster.placement import HostPlacement, Node, Placement, live_nodes, loadgen_nodes
from search.cluster.transfer import CHUNK_BYTES, Inbox
from search.errors import RunError, first_line
from search.trial.host_info import BESIDE_SERVER
from serving.archive import Archive
from serving.archive_files import digest
from serving.ports import LOOPBACK

_ANSWER_TIMEOUT_S, _CLOSE_TIMEOUT_S = 60.0, 5.0


class Survey:
    """The hosts of a shared cluster, each with an actor on it, as a context.

    Args:
        python, java: those of the serving hosts, if the specification names them.

    Attributes:
        reports: one for each host, after entering.
    """

    def __init__(self, python: str | None = None, java: str | None = None):
        self._python, self._java = python, java
        self._actors: dict[str, Any] = {}
        self.reports: list[HostReport] = []

    def __enter__(self) -> Survey:
        answers = []
        for node in live_nodes():
            actor = self._actors[node.id] = _actor_on(node.id, HostActor)
            answers.append((node, actor.report.remote(node.serves, self._python, self._java)))
        for node, answer in answers:
            try:
                report = HostReport(node, **ray.get(answer, timeout=_ANSWER_TIMEOUT_S))
            except RayError as error:
                problem = f"servetune does not run on this host: {first_line(error)}"
                report = HostReport(node, problems=(problem,))
            self.reports.append(report)
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self._actors.values():
            with contextlib.suppress(RayError):
                ray.get(actor.close.remote(), timeout=_CLOSE_TIMEOUT_S)
            ray.kill(actor)

    @property
    def serving(self) -> list[HostReport]:
        """The reports of the serving hosts."""
        return [report for report in self.reports if report.node.serves]

    def check(self, processes: int) -> None:
        """Refuse a cluster that cannot place a trial.

        Args:
            processes: the most load generator processes of a trial.

        Raises:
            RunError: with every problem.
        """
        if problems := find_problems(self.reports, processes):
            listed = "; ".join(map(str, problems))
            raise RunError(f"the cluster cannot place a trial: {listed}")

    def describe(self, processes: int) -> dict[str, Any]:
        """Return what a run's folder records of its hosts.

        Args:
            processes: the most load generator processes of a trial.
        """
        hosts = {str(report.node): dict(report.host) for report in self.serving}
        load = [str(node) for node in self._loadgen_nodes(processes)]
        location = BESIDE_SERVER if set(load) == set(hosts) else f"on {', '.join(load)}"
        return {
            "host": dict(self.serving[0].host),
            "hosts": hosts,
            "versions": dict(self.serving[0].versions),
            "placement": {"load": location},
        }

    def prepare_hosts(
        self,
        archives: Sequence[Archive],
        run_folder: Path,
        keep_heterogeneous: bool,
        processes: int,
    ) -> tuple[Placement, Any]:
        """Lock the serving hosts, choose those that serve, and send them the archives.

        Args:
            archives: of all models, the tuned one first.
            keep_heterogeneous: whether hosts serve that are faster or slower than most.
            processes: the most load generator processes of a trial.

        Returns:
            The placement, and an `Inbox` actor that writes trials' files into the run's folder.

        Raises:
            RunError: another measurement runs on a serving host, or the archive did not arrive.
        """
        self._lock_serving_hosts()
        serving, warnings = self._choose_serving_hosts(keep_heterogeneous)
        driver_id = ray.get_runtime_context().get_node_id()
        others = [node for node in serving if node.id != driver_id]
        sent: list[dict[str, Path]] = []
        for archive in archives:
            with packed_archive(archive) as file:
                folders = self._send_file(others, file) if others else {}
                sent.append({node_id: folder / file.name for node_id, folder in folders.items()})
        placements = {}
        for node in serving:
            address = node.address if len(self.reports) > 1 else LOOPBACK
            path, *more = (
                paths.get(node.id, archive.path)
                for archive, paths in zip(archives, sent, strict=True)
            )
            folder = path.parent if node.id in sent[0] else None
            placements[node.id] = HostPlacement(address, path, folder, tuple(more))
        loadgen = {node.id: node.loadgen for node in self._loadgen_nodes(processes)}
        inbox = _actor_on(driver_id, Inbox, str(run_folder))
        return Placement(placements, loadgen, tuple(warnings)), inbox

    def _loadgen_nodes(self, processes: int) -> list[Node]:
        return loadgen_nodes([report.node for report in self.reports], processes)

    def _lock_serving_hosts(self) -> None:
        """Keep other measurements out of the serving hosts."""
        for report in self.serving:
            answer = self._actors[report.node.id].lock_host.remote()
            if problem := ray.get(answer, timeout=_ANSWER_TIMEOUT_S):
                raise RunError(f"{report.node}: {problem}")

    def _choose_serving_hosts(self, keep_heterogeneous: bool) -> tuple[list[Node], list[str]]:
        """Return the hosts that serve, and a warning for each that differs in speed."""
        speeds = self._measure_speeds() if len(self.serving) > 1 else {}
        heterogeneous = heterogeneous_hosts(speeds)
        chosen, warnings = [], []
        for report in self.serving:
            share = heterogeneous.get(report.node.id)
            if share is None or keep_heterogeneous:
                chosen.append(report.node)
            if share is not None:
                action = "is kept" if keep_heterogeneous else "is left out"
                warnings.append(
                    f"{report.node} has {format_percent(share)} of the others' speed and {action}"
                )
        return chosen, warnings

    def _measure_speeds(self) -> dict[str, float]:
        """Measure all serving hosts at the same time; return their speeds by node id."""
        node_ids = [report.node.id for report in self.serving]
        answers = [self._actors[node_id].speed.remote() for node_id in node_ids]
        return dict(zip(node_ids, ray.get(answers, timeout=_ANSWER_TIMEOUT_S), strict=True))

    def _send_file(self, nodes: Sequence[Node], path: Path) -> Mapping[str, Path]:
        """Send the archive's file to all nodes, chunk by chunk; return its folder by node id."""

        def call(method: str, *arguments: Any) -> dict[str, Any]:
            pending = {n: getattr(self._actors[n.id], method).remote(*arguments) for n in nodes}
            answers = {}
            for node, answer in pending.items():
                try:
                    answers[node.id] = ray.get(answer, timeout=_ANSWER_TIMEOUT_S)
                except RayError as error:
                    cause = first_line(error)
                    raise RunError(f"{node}: the archive could not be sent: {cause}") from None
            return answers

        call("begin_upload", path.name)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                call("write_chunk", ray.put(chunk))
        folders = call("finish_upload", digest(path))
        return {node_id: Path(folder) for node_id, folder in folders.items()}


def _actor_on(node_id: str, actor_class: type, *arguments: Any) -> Any:
    """Start an actor on a node; it takes none of the node's resources."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": strategy}
    return ray.remote(actor_class).options(**options).remote(*arguments)
