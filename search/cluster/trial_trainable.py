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

_STOP_TIMEOUT_S, _THREAD_TIMEOUT_S = 30.0, 5.0


class TuneTrial(tune.Trainable):
    """Adapter of a trial to Tune.

    The trial runs in an event loop in a separate thread. Each `step` returns its next event, or
    its current phase after `HEARTBEAT_S`, so that Tune can show and stop it.
    """

    def setup(self, config: dict[str, Any], setup: TrialSetup | None = None) -> None:
        """Create the trial actor, which measures one trial after another."""
        assert setup is not None
        self._trial_actor = TrialActor(setup)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._measurement: Any = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept the next configuration without a new process."""
        self._stop()
        return True

    def step(self) -> dict[str, Any]:
        """Return the trial's phase and, if there is one, its next window; at last its result."""
        if self._measurement is None:
            self._phase = Phase("start")
            self._events: queue.Queue[Phase | WindowSummary | None] = queue.Queue()
            coroutine = self._trial_actor.run(
                TrialRequest.from_dict(self.config), self.config["folder"], self._events.put
            )
            self._measurement = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._measurement.add_done_callback(lambda _: self._events.put(None))
        window: dict[str, str] = {}
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=HEARTBEAT_S)
            if event is None:
                result = self._measurement.result()
                return {"record": json.dumps(result.to_dict()), "done": True}
            if isinstance(event, WindowSummary):
                window = {"window": json.dumps(vars(event))}
            else:
                self._phase = event
        now = self._phase
        phase = {"phase": now.name, "rate_rps": now.rate_rps, "left_s": now.left_s or 0.0}
        return {**phase, **window}

    def cleanup(self) -> None:
        """Stop the server, the load generator processes and the thread."""
        self._stop()
        self._trial_actor.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_THREAD_TIMEOUT_S)

    def _stop(self) -> None:
        if self._measurement is not None:
            self._measurement.cancel()
            ended = asyncio.run_coroutine_threadsafe(_wait_for_other_tasks(), self._loop)
            with contextlib.suppress(TimeoutError):
                ended.result(timeout=_STOP_TIMEOUT_S)
            self._measurement = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: a run is resumed from its study."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing: a run is resumed from its study."""


async def _wait_for_other_tasks() -> None:
    """Wait for every other task of this loop: a cancelled trial still stops its server."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)
