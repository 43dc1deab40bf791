"""A trial as Ray Tune runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
from typing import Any

from ray import tune

from search.cluster.trial_actor import HEARTBEAT_S, TrialActor, TrialSetup
from search.trial.observation import Phase, WindowSummary
from search.trial.request import TrialRequest


class TuneTrial(tune.Trainable):
    """Tune's view of a trial.

    The trial runs in a thread with an event loop of its own; each `step` returns its next
    phase, or a sign of life, so that Tune can show it and stop it.
    """

    def setup(self, config: dict[str, Any], setup: TrialSetup | None = None) -> None:
        """Make the load processes, which serve one trial after another."""
        assert setup is not None
        self._bench = TrialActor(setup)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._task: Any = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next configuration without a new process."""
        self._stop()
        return True

    def step(self) -> dict[str, Any]:
        """The trial's next phase; with its last step, its result."""
        if self._task is None:
            self._phase = Phase("start")
            self._phases: queue.Queue[Phase | WindowSummary | None] = queue.Queue()
            coroutine = self._bench.run(
                TrialRequest.from_dict(self.config), self.config["folder"], self._phases.put
            )
            self._task = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._task.add_done_callback(lambda _: self._phases.put(None))
        seen: dict[str, str] = {}
        with contextlib.suppress(queue.Empty):
            phase = self._phases.get(timeout=HEARTBEAT_S)
            if phase is None:
                result = self._task.result()
                rate = result.sustained_rps or 0.0
                return {"sustained_rps": rate, "record": json.dumps(result.to_dict()), "done": True}
            if isinstance(phase, WindowSummary):
                seen = {"window": json.dumps(vars(phase))}
            else:
                self._phase = phase
        told = {"phase": self._phase.name, "rate_rps": self._phase.rate_rps, **seen}
        return {"sustained_rps": 0.0, **told}

    def cleanup(self) -> None:
        """Stop the server, the load processes and the thread."""
        self._stop()
        self._bench.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            ended = asyncio.run_coroutine_threadsafe(_others_done(), self._loop)
            with contextlib.suppress(TimeoutError):
                ended.result(timeout=30)
            self._task = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the study is what a run is resumed from."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the study is what a run is resumed from."""


async def _others_done() -> None:
    """Wait for every other task of this loop: a cancelled trial still stops its server."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)
