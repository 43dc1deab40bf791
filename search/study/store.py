"""The trials of a run, stored as an Optuna study."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState as OptunaTrialState

from loadgen.rate.goal import Depth
from search.environment import log_level
from search.errors import first_line
from search.sampler.earlier_run import earlier_records
from search.sampler.importance import importance_of
from search.sampler.observations import observations_of
from search.sampler.probing import distrusted_kinds
from search.sampler.sampler import distributions
from search.sampler.search_model import SearchModel
from search.sampler.widening import edge_notes, memory_share, widened_highs
from search.spec.space import Space
from search.study.run_state import RunState
from search.study.storage import open_storage
from search.study.trial_queue import TrialQueue
from search.trial.objective import Figures, Objective
from search.trial.prediction import PredictedRate
from search.trial.ranking import (
    RATE,
    best_of,
    finalists,
    rate_of,
)
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult, TrialState
from servetune.errors import is_memory
from serving.configuration.config import ServerConfig

#: Number of proposals of the sampler before an untried point is drawn at random.
_MAX_PROPOSALS = 20
#: Number of configurations that are ranked at the end of a search.
_NOMINATED = 10
#: What other tools call the value of a trial, by objective.
_METRICS = {"rate": "sustained_rps", "latency": "p99_s", "footprint": "memory_mb"}


class StudyStore(RunState):
    """Stores the trials of a run, and proposes the next configuration.

    Args:
        space: the search space.
        storage: an SQLAlchemy URL, the path of an SQLite file, or an Optuna storage.
        name: the study's name in the storage.
        seed: of the sampler.
        baseline: the configuration in use today; measured right after TorchServe's default,
            or instead of it if both are equal.
        incumbent_every: number of trials after which the best configuration is measured again.
        points: of a sweep: only these are measured, in this order, repetitions included.
        objective: what is optimized, under which limits.
        screen_references: measure the references as briefly as other trials, because a confirmation
            measures them again.
    """

    def __init__(
        self,
        space: Space,
        storage: str | Path | BaseStorage,
        name: str,
        seed: int = 0,
        baseline: ServerConfig | None = None,
        incumbent_every: int = 8,
        points: Sequence[ServerConfig] | None = None,
        objective: Objective = RATE,
        screen_references: bool = False,
    ):
        self._initial_space, self._points = space, points
        self._incumbent_every, self.objective = incumbent_every, objective
        self._screen_references = screen_references
        with log_level(["optuna"], logging.WARNING), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if not isinstance(storage, BaseStorage):
                storage = open_storage(storage)
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize" if objective.maximizes_rate else "minimize",
                load_if_exists=True,
            )
            if study.metric_names is None:
                study.set_metric_names([_METRICS[objective.kind]])
        super().__init__(study)
        trials = self._study.get_trials(deepcopy=False)
        # The seed depends on the finished trials, so that a resumed run does not repeat its draws.
        finished = len([t for t in trials if t.state.is_finished()])
        self._results = [
            TrialResult.from_dict(t.user_attrs["result"])
            for t in trials
            if "result" in t.user_attrs
        ]
        self.model = SearchModel(space, seed + 1000 * finished, self._results, objective)
        self._study.sampler = self.model.sampler
        self._queue = TrialQueue(self._study)
        self._baseline = baseline
        self._running: dict[int, TrialRequest] = {}
        self.model.widen(self._study.user_attrs.get("highs", {}))
        if records := self._study.user_attrs.get("earlier"):
            self.model.use_earlier(records)
        self._identities: dict[str, str] = {}
        self._next_number = 1 + max((t.user_attrs.get("number", -1) for t in trials), default=-1)

    def begin(
        self,
        warm_start: Sequence[ServerConfig] = (),
        earlier: Sequence[TrialResult] = (),
    ) -> None:
        """Prepare for `ask`: enqueue the starting points, close the trials of a killed driver.

        Only the driver of a run may call this; a reader of the store must not.

        Args:
            warm_start: an earlier run's best configurations. A new study measures them before
                the recommended starting points.
            earlier: all trials of that run; they guide the search by as much as they predict the
                trials of this one.
        """
        if earlier:
            records = earlier_records(observations_of(earlier, self.space))
            self._study.set_user_attr("earlier", records)
            self.model.use_earlier(records)
        trials = self._study.get_trials(deepcopy=False)
        for frozen in trials:
            if frozen.state is OptunaTrialState.RUNNING:
                trial = optuna.trial.Trial(self._study, frozen._trial_id)
                if "result" in frozen.user_attrs:
                    self._close(trial, TrialResult.from_dict(frozen.user_attrs["result"]))
                else:
                    self.abandon(trial)
        self._study.set_user_attr("end_reason", None)
        self._queue.put_references_first()
        if not self._study.user_attrs.get("begun", False):
            # An earlier driver may have been killed after it enqueued some of the points.
            configs = [t.user_attrs["config"] for t in trials if "config" in t.user_attrs]
            enqueued = Counter(ServerConfig(**config).digest for config in configs)
            for origin, config in self._starting_points(warm_start):
                if enqueued[config.digest]:
                    enqueued[config.digest] -= 1
                else:
                    self._queue.enqueue(origin, config, self.space)
            self._study.set_user_attr("begun", True)

    def restore(self, results: Sequence[TrialResult]) -> None:
        """Add results that the storage lacks, from the run's trials.jsonl; call before `begin`."""
        stored = {result.number for result in self._results}
        missing = [result for result in results if result.number not in stored]
        if missing:
            self._queue.discard_incomplete_restoration()
        for result in missing:
            self._queue.enqueue(result.origin, result.config, self.space, retry=True, restored=True)
            trial = self._queue.take(self.space)
            trial.set_user_attr("number", result.number)
            self.tell(trial, result)
            self._next_number = max(self._next_number, result.number + 1)

    def _starting_points(
        self, warm_start: Sequence[ServerConfig]
    ) -> Iterator[tuple[TrialOrigin, ServerConfig]]:
        if self._points is not None:
            yield from ((TrialOrigin.SWEEP, config) for config in self._points)
            return
        default = self.space.default_config
        # One trial is enough for a file that changes nothing: what is in use is the reference.
        if self._baseline is None or self._baseline.digest != default.digest:
            yield TrialOrigin.DEFAULT, default
        if self._baseline is not None:
            yield TrialOrigin.BASELINE, self._baseline
        for config in warm_start:
            if (nearest := self.space.nearest_config(config)) is not None:
                yield TrialOrigin.WARM_START, nearest
        few_workers = self.objective.kind == "footprint"
        for point in self.space.recommended_points(few_workers):
            yield TrialOrigin.GUIDE, self.space.config(point)

    @property
    def space(self) -> Space:
        """The search space with the widened ranges."""
        return self.model.space

    # --- results ---------------------------------------------------------------------

    @property
    def results(self) -> list[TrialResult]:
        """All finished trials, by number."""
        return sorted(self._results, key=lambda result: result.number)

    @property
    def best(self) -> TrialResult | None:
        """The newest measurement of the best configuration that meets the limits.

        During a search, by the median of its measurements; at its end, by the expected score.
        """
        nominated = (
            finalists(self._results, 1, self.nominated, self.objective) if self.nominated else []
        )
        measured = [
            r for r in self.results if r.config in nominated and r.state is TrialState.COMPLETE
        ]
        return measured[-1] if measured else best_of(self._results, self.objective)

    @property
    def rate_to_beat(self) -> float | None:
        """The rate below which a trial is pruned, requests/s: the needed or the incumbent's."""
        if self.objective.maximizes_rate:
            return self.incumbent_rps
        return self.objective.required_rps

    @property
    def incumbent_rps(self) -> float | None:
        """The median rate of the best configuration, requests/s."""
        best = self.best
        return rate_of(self._results, best.config) if best else None

    def improvement_probability(self) -> float | None:
        """Return the probability that an untried configuration is more than 3 % faster.

        None in a sweep, and while a configuration waits that is measured in any case.
        """
        if self._points is not None or self._queue.is_waiting:
            return None
        self._widen_best()
        return self.model.improvement_probability()

    def importance(self) -> dict[str, float]:
        """Return the share of the variance that each setting explains; see `importance_of`."""
        return importance_of(self._study, distributions(self.space), self.objective)

    # --- trials ----------------------------------------------------------------------

    def ask(self, may_probe: bool = False) -> tuple[optuna.trial.Trial, TrialRequest] | None:
        """Return a request for the next trial, and the Optuna trial to pass to `tell`.

        None if no untried configuration is left.

        Args:
            may_probe: whether there is time to probe other configurations in the trial's server.
        """
        if self._is_incumbent_due() and (best := self.best) is not None:
            self._queue.enqueue(TrialOrigin.INCUMBENT, best.config, self.space)
        if self._points is not None and not self._queue.is_waiting:
            return None
        self._widen_best()
        configs = [result.config for result in self._results]
        configs += [request.config for request in self._running.values()]
        tried_identities = {self._identity(config) for config in configs}
        tried_digests = {config.digest for config in configs}
        proposals = 0
        while True:
            # A driver that was killed at its start may have enqueued a point many times.
            proposals += not self._queue.is_waiting
            if proposals > _MAX_PROPOSALS:
                # The sampler repeats itself: draw at random.
                point = self.space.draw_untried(tried_identities, self._next_number)
                if point is None:
                    return None
                self._study.enqueue_trial(point, user_attrs={"origin": TrialOrigin.SAMPLED})
            trial = self._queue.take(self.space)
            attributes = trial.user_attrs
            config = (
                ServerConfig(**attributes["config"])
                if "config" in attributes
                else self.space.config(trial.params)
            )
            origin = TrialOrigin(attributes.get("origin", TrialOrigin.SAMPLED))
            may_repeat = attributes.get("retry", False) or origin in (
                TrialOrigin.INCUMBENT,
                TrialOrigin.SWEEP,
            )
            if origin.is_reference:
                # A reference is measured even if another configuration gives the same server.
                is_tried = config.digest in tried_digests
            else:
                is_tried = self._identity(config) in tried_identities
            lacks_memory = origin is TrialOrigin.GUIDE and self._is_too_large(config)
            if (is_tried and not may_repeat) or lacks_memory:
                why = "lacks memory" if lacks_memory else "proposed again"
                trial.set_user_attr("reason", f"not measured: {why}")
                self._study.tell(trial, state=OptunaTrialState.FAIL)
                continue
            number = self._next_number
            self._next_number += 1
            trial.set_user_attr("number", number)
            trial.set_user_attr("origin", origin)
            trial.set_user_attr("config", config.to_dict())
            # References and the incumbent are never pruned.
            never_pruned = origin.is_reference or origin is TrialOrigin.INCUMBENT
            rate_to_beat = None if never_pruned else self.rate_to_beat
            # The finalists are measured thoroughly in the confirmation.
            is_reference = origin.is_reference and not self._screen_references
            is_thorough = is_reference or origin is TrialOrigin.SWEEP
            depth = Depth.FULL if is_thorough else Depth.SCREEN
            # If the next trials are fixed, nothing is learned for them.
            may_learn = self._points is None and not self._queue.is_waiting
            probes = self.model.plan_probes(config) if may_probe and may_learn else ()
            request = TrialRequest(
                number, origin, config, rate_to_beat, depth=depth, server_probes=probes
            )
            self._running[number] = request
            predicted = self.model.predict([config])[0] if self._points is None else None
            if predicted is not None:
                trial.set_user_attr("predicted", asdict(predicted))
            return trial, request

    def tell(self, trial: optuna.trial.Trial, result: TrialResult) -> TrialResult:
        """Record a finished trial; return the result with the rate predicted before the trial."""
        if (predicted := trial.user_attrs.get("predicted")) is not None:
            result = replace(result, predicted=PredictedRate(**predicted))
        trial.set_user_attr("state", result.state)
        missed = self.objective.shortfalls(Figures.of([result]))
        if result.state is not TrialState.COMPLETE or missed:
            reason = first_line(result.cause) or "; ".join(map(str, missed))
            trial.set_user_attr("reason", reason)
        trial.set_user_attr("too_large", is_memory(result.failure))
        # How much a trial misses each limit, for other tools: above 0 if it does.
        excesses = {shortfall.limit: shortfall.excess for shortfall in missed}
        for name, value in {"limits": result.latency.limit_excess, **excesses}.items():
            trial.set_constraint(name, value)
        trial.set_user_attr("result", result.to_dict())
        self._close(trial, result)
        self._results.append(result)
        self._running.pop(result.number, None)
        return result

    def _close(self, trial: optuna.trial.Trial, result: TrialResult) -> None:
        if result.host_fault:
            # The configuration did not cause the failure: measure it once more. Enqueue it
            # first: if the driver is killed in between, the trial is repeated, not lost.
            if not trial.user_attrs.get("retry", False):
                self._queue.enqueue(result.origin, result.config, self.space, retry=True)
            self._study.tell(trial, state=OptunaTrialState.FAIL)
        elif (value := self._value(result)) is not None:
            self._study.tell(trial, value)
        else:
            # An estimate or a 0 in place of a value would be drawn as one by other tools.
            is_pruned = result.state in (TrialState.PRUNED, TrialState.COMPLETE)
            state = OptunaTrialState.PRUNED if is_pruned else OptunaTrialState.FAIL
            self._study.tell(trial, state=state)

    def abandon(self, trial: optuna.trial.Trial) -> None:
        """Close a trial that was stopped without a result; a resumed run measures it."""
        attributes = trial.user_attrs
        self._running.pop(attributes.get("number", -1), None)
        if "config" in attributes:
            config = ServerConfig(**attributes["config"])
            origin = TrialOrigin(attributes["origin"])
            self._queue.enqueue(origin, config, self.space, attributes.get("retry", False))
        self._study.tell(trial, state=OptunaTrialState.FAIL)

    # --- state of the run ------------------------------------------------------------

    def close_search(self, reason: str) -> None:
        """Record that the search has ended, and what to confirm.

        A resumed run does not continue the search.
        """
        if self._points is None:
            nominated = [config.digest for config in self.model.nominees(_NOMINATED)]
            self._study.set_user_attr("nominated", nominated)
        self._study.set_user_attr("search_end_reason", reason)

    def reopen_search(self) -> None:
        """Record that the search continues."""
        self._study.set_user_attr("nominated", [])
        self._study.set_user_attr("search_end_reason", None)

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the hosts and the baseline, and about the edges of the space."""
        notes = self.recorded_notes
        notes += tuple(str(d) for d in distrusted_kinds(self._results, self.space).values())
        best = self.best
        values = self.space.values(best.config) if best and self._points is None else None
        if values is None:
            return notes
        return (*notes, *edge_notes(self._initial_space, self.space, values))

    # --- internals -------------------------------------------------------------------

    def _widen_best(self) -> None:
        """Widen the ranges on whose edge the best configuration is."""
        best = self.best
        values = self.space.values(best.config) if best and not self._queue.is_waiting else None
        if best is None or values is None or self._points is not None:
            return
        if highs := widened_highs(self.space, values, memory_share(best)):
            highs = {**self._study.user_attrs.get("highs", {}), **highs}
            self._study.set_user_attr("highs", highs)
            self.model.widen(highs)

    def _value(self, result: TrialResult) -> float | None:
        """Return what the run optimizes, for other tools; None if the trial did not measure it."""
        if result.state is not TrialState.COMPLETE:
            return None
        if self.objective.maximizes_rate:
            return result.sustained_rps or 0.0
        score = self.objective.score(Figures.of([result]))
        return 1 / score if score else None

    def _identity(self, config: ServerConfig) -> str:
        if config.digest not in self._identities:
            self._identities[config.digest] = self.space.identity(config)
        return self._identities[config.digest]

    def _is_too_large(self, config: ServerConfig) -> bool:
        """Whether a configuration with no more workers and no larger batches lacked memory."""

        def sizes(config: ServerConfig) -> list[int]:
            models = (None, *self.space.tuned_models)
            return [number for model in models for number in self.space.size(config, model)]

        failed = [sizes(r.config) for r in self._results if is_memory(r.failure)]
        return any(all(f <= n for f, n in zip(each, sizes(config), strict=True)) for each in failed)

    def _is_incumbent_due(self) -> bool:
        best = self.best
        if best is None or self._queue.is_waiting:
            return False
        repeats = [r.number for r in self._results if r.origin is TrialOrigin.INCUMBENT]
        repeats += [r.number for r in self._running.values() if r.origin is TrialOrigin.INCUMBENT]
        return self._next_number - max(best.number, *repeats, 0) >= self._incumbent_every
