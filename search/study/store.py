"""The Optuna study: the only truth of a run."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState as OptunaTrialState

from search.spec.space import Space, torchserve_defaults
from search.study.ranking import best_of, rate_of, sampler_value
from search.study.sampler import CapacitySampler, distributions
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult
from servetune.errors import is_memory
from serving.config import ServerConfig

#: The sampler's tries at something new.
_TRIES = 20
_LOCKED_S = 60.0

#: What a study raises whose storage cannot be written.
STORAGE_ERRORS = (StorageInternalError,)


class StudyStore:
    """The trials of a run: proposes the next, hears what became of it, knows the best.

    Args:
        space: what may be proposed.
        storage: an SQLAlchemy URL, or what Optuna keeps studies in.
        name: the study's name in the storage.
        seed: of the sampler.
        baseline: the configuration in use today; tried right after TorchServe's default.
        incumbent_every: the best configuration is measured again after so many trials.
        points: of a sweep: these alone are measured, in this order, however often they occur.
    """

    def __init__(
        self,
        space: Space,
        storage: str | BaseStorage,
        name: str,
        seed: int = 0,
        baseline: ServerConfig | None = None,
        incumbent_every: int = 8,
        points: Sequence[ServerConfig] | None = None,
    ):
        self.space, self._points = space, points
        self._incumbent_every = incumbent_every
        if isinstance(storage, str):
            storage = RDBStorage(storage, engine_kwargs=_patient(storage))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
            )
        trials = self._study.get_trials(deepcopy=False)
        # Seeded by what was already told, so that a resumed run does not repeat its draws.
        done = len([t for t in trials if t.state.is_finished()])
        self._study.sampler = CapacitySampler(space, seed + 1000 * done)
        self._baseline = baseline
        self._results = [
            TrialResult.from_dict(t.user_attrs["result"])
            for t in trials
            if "result" in t.user_attrs
        ]
        self._open: dict[int, TrialRequest] = {}
        self._identities: dict[str, str] = {}
        self._next = 1 + max((t.user_attrs.get("number", -1) for t in trials), default=-1)

    def begin(self, warm: Sequence[ServerConfig] = ()) -> None:
        """Make ready to ask: enqueue the first points, close what a killed driver left open.

        Of a new study, `warm` are an earlier run's best: they come before the guide's points.
        Only the one driver of a run may call this; whoever looks on must not.
        """
        trials = self._study.get_trials(deepcopy=False)
        for frozen in trials:
            if frozen.state is OptunaTrialState.RUNNING:
                trial = optuna.trial.Trial(self._study, frozen._trial_id)
                if "result" in frozen.user_attrs:
                    self._close(trial, TrialResult.from_dict(frozen.user_attrs["result"]))
                else:
                    self.abandon(trial)
        self._study.set_user_attr("ended", None)
        self._put_references_first()
        if not self._study.user_attrs.get("begun", False):
            # Killed while it enqueued, it takes up where it was.
            configs = [t.user_attrs["config"] for t in trials if "config" in t.user_attrs]
            known = Counter(ServerConfig(**config).digest for config in configs)
            for kind, config in self._first(warm):
                if known[config.digest]:
                    known[config.digest] -= 1
                else:
                    self._enqueue(kind, config)
            self._study.set_user_attr("begun", True)

    def restore(self, results: Sequence[TrialResult]) -> None:
        """Take up what a storage that is gone knew, from a run's own record; before `begin`."""
        known = {result.number for result in self._results}
        missing = [result for result in results if result.number not in known]
        if missing:
            self._drop_what_was_not_restored()
        for result in missing:
            self._enqueue(result.origin, result.config, retry=True, restored=True)
            trial = self._study.ask()
            if not trial.user_attrs["outside"]:
                self._suggest(trial)
            trial.set_user_attr("number", result.number)
            self.tell(trial, result)
            self._next = max(self._next, result.number + 1)

    def _drop_what_was_not_restored(self) -> None:
        """Killed while it restored, it begins anew with the one that was under way."""
        for trial in self._study.get_trials(deepcopy=False):
            given = trial.user_attrs
            if given.get("restored") and "result" not in given and not trial.state.is_finished():
                self._study._storage.set_trial_state_values(trial._trial_id, OptunaTrialState.FAIL)

    def _first(self, warm: Sequence[ServerConfig]) -> Iterator[tuple[TrialOrigin, ServerConfig]]:
        if self._points is not None:
            yield from ((TrialOrigin.SWEEP, config) for config in self._points)
            return
        yield TrialOrigin.DEFAULT, ServerConfig()
        if self._baseline is not None:
            yield TrialOrigin.BASELINE, self._baseline
        for config in warm:
            if (nearest := self.space.nearest_config(config)) is not None:
                yield TrialOrigin.WARM_START, nearest
        for point in self.space.recommended_points():
            yield TrialOrigin.RECOMMENDED, self.space.config(point)

    # --- what is known ---------------------------------------------------------------

    @property
    def results(self) -> list[TrialResult]:
        """Every finished trial, by number."""
        return sorted(self._results, key=lambda result: result.number)

    @property
    def best(self) -> TrialResult | None:
        """The newest measurement of the configuration with the highest median rate."""
        return best_of(self._results)

    @property
    def incumbent_rps(self) -> float | None:
        """The rate to beat: the best configuration's median rate."""
        best = self.best
        return rate_of(self._results, best.config) if best else None

    # --- what is next ----------------------------------------------------------------

    def ask(self) -> tuple[optuna.trial.Trial, TrialRequest] | None:
        """The next configuration, with the trial to tell its result to; None where none is left."""
        if self._is_incumbent_due() and (best := self.best) is not None:
            self._enqueue(TrialOrigin.INCUMBENT, best.config)
        if self._points is not None and not self._is_waiting():
            return None
        known = [result.config for result in self._results]
        known += [request.config for request in self._open.values()]
        tried = {self._identity(config) for config in known}
        spelled = {config.digest for config in known}
        for attempt in range(_TRIES + 1):
            if attempt == _TRIES:
                # Where the sampler is stuck on what is known, chance is not.
                if (point := self.space.draw_untried(tried, self._next)) is None:
                    return None
                self._study.enqueue_trial(point, user_attrs={"kind": TrialOrigin.SAMPLED})
            trial = self._study.ask()
            given = trial.user_attrs
            if not given.get("outside", False):
                self._suggest(trial)
            config = (
                ServerConfig(**given["config"])
                if "config" in given
                else self.space.config(trial.params)
            )
            kind = TrialOrigin(given.get("kind", TrialOrigin.SAMPLED))
            again = given.get("retry", False) or kind in (TrialOrigin.INCUMBENT, TrialOrigin.SWEEP)
            if kind in (TrialOrigin.DEFAULT, TrialOrigin.BASELINE):
                # What is compared with is measured as it is spelled, whatever it amounts to.
                is_known = config.digest in spelled
            else:
                is_known = self._identity(config) in tried
            hopeless = kind is TrialOrigin.RECOMMENDED and self._is_too_large(config)
            if (is_known and not again) or hopeless:
                self._study.tell(trial, state=OptunaTrialState.FAIL)
                continue
            number = self._next
            self._next += 1
            trial.set_user_attr("number", number)
            trial.set_user_attr("kind", kind)
            trial.set_user_attr("config", config.to_dict())
            # What everything is compared with is measured whole; the incumbent beats itself.
            whole = kind in (TrialOrigin.DEFAULT, TrialOrigin.BASELINE, TrialOrigin.INCUMBENT)
            request = TrialRequest(number, kind, config, None if whole else self.incumbent_rps)
            self._open[number] = request
            return trial, request
        return None

    def tell(self, trial: optuna.trial.Trial, result: TrialResult) -> None:
        """Record a finished trial; the sampler hears a finite value even of a failed one."""
        trial.set_user_attr("state", result.state)
        trial.set_user_attr("too_large", is_memory(result.failure))
        trial.set_constraint("p99_s", result.latency.p99_excess)
        trial.set_user_attr("result", result.to_dict())
        self._close(trial, result)
        self._results.append(result)
        self._open.pop(result.number, None)

    def _close(self, trial: optuna.trial.Trial, result: TrialResult) -> None:
        if result.host_fault:
            # The host's fault teaches nothing of the configuration: once more. Who is killed in
            # between has it twice in the queue rather than not at all.
            if not trial.user_attrs.get("retry", False):
                self._enqueue(result.origin, result.config, retry=True)
            self._study.tell(trial, state=OptunaTrialState.FAIL)
        else:
            self._study.tell(trial, self._value(result))

    def abandon(self, trial: optuna.trial.Trial) -> None:
        """Close a trial that was stopped before it had a result; a resumed run takes it up."""
        given = trial.user_attrs
        self._open.pop(given.get("number", -1), None)
        if "config" in given:
            config = ServerConfig(**given["config"])
            self._enqueue(TrialOrigin(given["kind"]), config, given.get("retry", False))
        self._study.tell(trial, state=OptunaTrialState.FAIL)

    def confirm(self, plan: str, number: int, result: TrialResult) -> None:
        """Record a measurement of a plan, in this round."""
        name = f"confirm.{plan}.{number}.{result.config.digest}"
        self._study.set_user_attr(name, result.to_dict())

    def confirmed(self, plan: str, number: int) -> dict[str, TrialResult]:
        """What is known of a round, by the configuration's digest."""
        prefix = f"confirm.{plan}.{number}."
        return {
            name.removeprefix(prefix): TrialResult.from_dict(told)
            for name, told in self._study.user_attrs.items()
            if name.startswith(prefix)
        }

    @property
    def spent_s(self) -> float:
        """How long the run has taken by now, seconds, over all its drivers."""
        return float(self._study.user_attrs.get("spent_s", 0.0))

    def spend(self, seconds: float) -> None:
        """Record how long the run has taken by now."""
        self._study.set_user_attr("spent_s", seconds)

    @property
    def searched(self) -> str | None:
        """Why the search is over; None while it is not."""
        reason: str | None = self._study.user_attrs.get("searched")
        return reason

    def close_search(self, reason: str | None) -> None:
        """Record that nothing more is searched, or, with None, that it goes on."""
        self._study.set_user_attr("searched", reason)

    @property
    def confirmed_s(self) -> float:
        """What all that was measured again took, seconds."""
        attributes = self._study.user_attrs.items()
        return float(sum(t["duration_s"] for n, t in attributes if n.startswith("confirm.")))

    def end(self, reason: str) -> None:
        """Record why the run ended."""
        self._study.set_user_attr("ended", reason)

    @property
    def ended(self) -> str | None:
        """Why the run ended, where it did."""
        reason: str | None = self._study.user_attrs.get("ended")
        return reason

    def note(self, notes: Sequence[str]) -> None:
        """Record what whoever reads the figures should know of the hosts."""
        self._study.set_user_attr("notes", list(notes))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted last."""
        return tuple(self._study.user_attrs.get("notes", ()))

    @property
    def specified(self) -> dict[str, Any] | None:
        """The specification that the run keeps to; None before it began."""
        found: dict[str, Any] | None = self._study.user_attrs.get("specified")
        return found

    def specify(self, specified: Mapping[str, Any]) -> None:
        """Record the specification that the run keeps to."""
        self._study.set_user_attr("specified", dict(specified))

    def importance(self) -> dict[str, float]:
        """How much of the rates' variation each setting explains, summing up to 1 (PED-ANOVA).

        Empty where too few trials were measured to tell.
        """
        told = [t for t in self._study.get_trials(deepcopy=False) if t.values and t.params]
        if len(told) < 4 or len({t.value for t in told}) < 2:
            return {}
        names = [
            name
            for name in distributions(self.space)
            if len({t.params.get(name) for t in told}) > 1
        ]
        try:
            return dict(optuna.importance.get_param_importances(self._study, params=names))
        except (ValueError, RuntimeError):
            return {}

    # --- inside ----------------------------------------------------------------------

    def _value(self, result: TrialResult) -> float:
        others = [r for r in self._results if r.number != result.number]
        best = best_of(others)
        incumbent = rate_of(others, best.config) if best else None
        ratios = [
            r.sustained_rps / r.capacity_rps for r in others if r.sustained_rps and r.capacity_rps
        ]
        return sampler_value(result, incumbent or 0.0, ratios)

    def _suggest(self, trial: optuna.trial.Trial) -> None:
        with warnings.catch_warnings():
            # A baseline may lie outside the space's ranges: it is what it is.
            warnings.filterwarnings("ignore", message=".*out of range.*")
            for d in self.space.dimensions:
                if d.choices:
                    trial.suggest_categorical(d.name, d.choices)
                else:
                    trial.suggest_int(d.name, d.low, d.high, log=d.log)

    def _put_references_first(self) -> None:
        """What everything is compared with comes first, also where it was interrupted."""

        def rank(waiting: optuna.trial.FrozenTrial) -> int:
            kinds = [TrialOrigin.DEFAULT, TrialOrigin.BASELINE]
            kind = TrialOrigin(waiting.user_attrs["kind"])
            return kinds.index(kind) if kind in kinds else len(kinds)

        waiting = self._study.get_trials(states=(OptunaTrialState.WAITING,), deepcopy=False)
        ordered = sorted(waiting, key=rank)
        if ordered != waiting:
            for trial in ordered:
                fixed = trial.system_attrs["fixed_params"]
                self._study.enqueue_trial(fixed, user_attrs=trial.user_attrs)
            for trial in waiting:
                self._study._storage.set_trial_state_values(trial._trial_id, OptunaTrialState.FAIL)

    def _enqueue(
        self, kind: TrialOrigin, config: ServerConfig, retry: bool = False, restored: bool = False
    ) -> None:
        values = self.space.values(config)
        attributes = {
            "kind": kind,
            "config": config.to_dict(),
            "retry": retry,
            "outside": values is None,
            "restored": restored,
        }
        self._study.enqueue_trial(values or {}, user_attrs=attributes)

    def _identity(self, config: ServerConfig) -> str:
        if config.digest not in self._identities:
            self._identities[config.digest] = self.space.identity(config)
        return self._identities[config.digest]

    def _is_waiting(self) -> bool:
        return bool(self._study.get_trials(states=(OptunaTrialState.WAITING,), deepcopy=False))

    def _is_too_large(self, config: ServerConfig) -> bool:
        """Whether no more workers with no larger batches were too many for the memory."""
        usual = torchserve_defaults(self.space.cores)

        def size(config: ServerConfig) -> tuple[int, int]:
            return config.workers or usual["workers"], config.batch_size or usual["batch_size"]

        workers, batch = size(config)
        failed = [size(r.config) for r in self._results if is_memory(r.failure)]
        return any(less <= workers and smaller <= batch for less, smaller in failed)

    def _is_incumbent_due(self) -> bool:
        best = self.best
        if best is None or self._is_waiting():
            return False
        again = [r.number for r in self._results if r.origin is TrialOrigin.INCUMBENT]
        again += [t.number for t in self._open.values() if t.origin is TrialOrigin.INCUMBENT]
        return self._next - max(best.number, *again, 0) >= self._incumbent_every


def _patient(storage: str) -> dict[str, Any]:
    """Whoever else holds SQLite's lock may take a minute."""
    if not storage.startswith("sqlite"):
        return {}
    return {"connect_args": {"timeout": _LOCKED_S}}
