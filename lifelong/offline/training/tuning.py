"""Searches for the settings of a model that are best on validation; the test split is never read.

    space --Optuna--> settings --train on this many examples--> validation AUC --> next settings ... --> TUNED.toml

A trial is given up if its learning curve is below the median of earlier ones at the same validation. A journal next to
the output keeps what was tried, and is written after every validation: a second call continues from it, and repeats a
trial that was cut off with the same settings. What is drawn in a trial depends only on (seed, number of the trial) and
the trials before it. The first trial takes the default settings.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from lifelong.atomic import check_file
from lifelong.config import RunConfig
from lifelong.dataset.folder import Dataset
from lifelong.errors import LifelongError, MismatchError, UsageError, require
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.evaluate import predict, torch_threads
from lifelong.offline.models.base import FittedModel, Model
from lifelong.offline.models.registry import model_named_in_errors
from lifelong.offline.training.callbacks import Callback, Callbacks, RunInfo
from lifelong.offline.training.checkpoint import Checkpoint, CurvePoint, Fingerprint, json_safe
from lifelong.offline.training.compute import open_compute
from lifelong.offline.training.display import Display
from lifelong.offline.training.loop import Loop
from lifelong.offline.training.runs import lasting
from lifelong.offline.training.settings import build_model, initialised, with_recipe
from lifelong.offline.training.space import Range, apply, defaults, space_of, with_budget
from lifelong.offline.training.tuned import Trial, Tuned

VALIDATIONS = 8
"""Validations of one trial."""
_PATIENT_TRIALS = 5
"""Trials before any is given up."""
_PATIENT_VALIDATIONS = 2
"""Validations of a trial before it is given up: long histories start on a plateau."""
_CUT_OFF = "cut off"


@dataclass(frozen=True, slots=True)
class Search:
    """What `tune` does.

    Args:
        model: name.
        trials: in all, those of earlier calls included.
        examples: the largest number of labelled examples of a trial.
        seed: of the search; trainings use `train.seed`.
        fixed: settings, as `train.x` or `model.x`, that are not searched.
        command: kept in the record.
        callbacks: called in each trial.
    """

    model: str
    trials: int
    examples: int
    seed: int = 0
    fixed: Collection[str] = ()
    command: str | None = None
    callbacks: Sequence[Callback] = ()


def tune(
    dataset: Dataset,
    search: Search,
    out: Path,
    *,
    config: RunConfig | None = None,
    progress: Callable[[str], None] | None = None,
) -> Tuned:
    """Search, and write the best settings with a record of all trials.

    Args:
        dataset: prepared.
        search: model, number and size of trials.
        out: TOML file that `--config` of `train` and `compare` reads; the journal is next to it.
        config: the settings that are not searched.
        progress: called with a line on the outcome of each trial.

    Raises:
        MismatchError: the dataset cannot train this model, or the journal is of another search.
        MissingExtraError: Optuna is not installed.
        UsageError: there is nothing to search, or `out` cannot be a file.
        LifelongError: no trial succeeded.
    """
    optuna = require("optuna", extra="tune", purpose="tuning")
    check_file(out)
    config = config or RunConfig()
    build_model(dataset, search.model, config.model)
    # First of all: a recipe leaves alone what is named, and a trial names every setting.
    config = with_recipe(config, search.model, dataset)
    space = space_of(search.model, config, fixed=search.fixed)
    if not space:
        raise UsageError(f"{search.model} has no setting left to search", fix="leave a named setting out")
    study = _open_study(optuna, dataset, search, out, config, space)
    say = progress or logging.getLogger(__name__).info
    _Tuner(optuna, study, dataset, search, config, space, say, out=out).run()
    tuned = _tuned(optuna, study, dataset, search, config)
    tuned.save(out)
    return tuned


def _open_study(
    optuna: ModuleType, dataset: Dataset, search: Search, out: Path, config: RunConfig, space: Mapping[str, Range]
) -> Any:
    """The study of an earlier call, or a new one."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = out.with_name(f"{out.name}.journal")
    journal.parent.mkdir(parents=True, exist_ok=True)
    asked = {
        "data_hash": dataset.manifest.data_hash,
        "model": search.model,
        "examples": search.examples,
        "seed": search.seed,
        "settings": json_safe(lasting(config)),
        "space": {name: repr(of) for name, of in space.items()},
    }
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_PATIENT_TRIALS, n_warmup_steps=_PATIENT_VALIDATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
        study = optuna.create_study(
            storage=storage, study_name="lifelong", direction="maximize", pruner=pruner, load_if_exists=True
        )
    stored = study.user_attrs.get("search")
    if stored is None:
        study.set_user_attr("search", asked)
    elif stored != asked:
        differing = [name for name, value in asked.items() if stored.get(name) != value]
        raise MismatchError(
            f"{journal} holds another search: {', '.join(differing)} differ",
            fix="choose another folder, or delete that file",
        )
    return study


def ended_trials(study: Any) -> list[Any]:
    """The trials that count, in order: all that ended, well or not, but those that were interrupted."""
    cut_off = study.user_attrs.get(_CUT_OFF, [])
    return [trial for trial in study.trials if trial.state.is_finished() and trial.number not in cut_off]


class _Tuner:
    """Runs the trials that are missing."""

    def __init__(
        self,
        optuna: ModuleType,
        study: Any,
        dataset: Dataset,
        search: Search,
        config: RunConfig,
        space: Mapping[str, Range],
        say: Callable[[str], None],
        *,
        out: Path,
    ) -> None:
        self._optuna, self._study, self._dataset, self._search = optuna, study, dataset, search
        self._config, self._space, self._say = config, space, say
        self._out = out
        self._shared = dict[Any, Any]()
        """What the fits of all trials share."""

    def run(self) -> None:
        """Run trials until there are as many as asked for."""
        study = self._study
        # A trial that still runs in the journal belongs to a call that was killed. It would otherwise neither count nor
        # be tried again.
        for trial in study.get_trials(states=(self._optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
            self._cut_off(trial.number, trial.params)
        if not study.trials:
            study.enqueue_trial(defaults(self._search.model, self._config, self._space))
        while (done := len(ended_trials(study))) < self._search.trials:
            # Seeded by the number of ended trials, so that a search that was interrupted proposes what it would have
            # proposed.
            drawn = np.random.SeedSequence([self._search.seed, done]).generate_state(1)
            study.sampler = self._optuna.samplers.TPESampler(seed=int(drawn[0]))
            study.optimize(self._objective, n_trials=1, catch=(LifelongError,))

    def _cut_off(self, number: int, parameters: Mapping[str, Any]) -> None:
        """Note that a trial was interrupted: it does not count, and its settings are tried next."""
        self._study.set_user_attr(_CUT_OFF, [*self._study.user_attrs.get(_CUT_OFF, []), number])
        self._study.enqueue_trial(dict(parameters))

    def _objective(self, trial: Any) -> float:
        values = {name: of.draw(trial, name) for name, of in self._space.items()}
        trial.set_user_attr("settings", values)
        started, outcome = time.monotonic(), "given up"
        listeners = Callbacks(self._search.callbacks)
        folder = self._out.with_name(f"{self._out.stem}-trial{len(ended_trials(self._study)) + 1}")
        try:
            with listeners:
                listeners.begun(RunInfo(folder.name, self._search.model, folder, values))
                auc = self._score(trial, apply(self._config, values), listeners)
                listeners.ended({"auc": auc})
            outcome = f"validation AUC {auc:.4f}"
            return auc
        except LifelongError as error:
            outcome = f"failed: {error}"
            trial.set_user_attr("error", str(error))
            raise
        except KeyboardInterrupt:
            outcome = "interrupted"
            self._cut_off(trial.number, trial.params)
            raise
        finally:
            trial.set_user_attr("seconds", round(time.monotonic() - started, 3))
            self._say(f"trial {len(ended_trials(self._study)) + 1}: {outcome}  {json.dumps(values)}")

    def _score(self, trial: Any, config: RunConfig, listeners: Callback) -> float:
        """The best validation AUC of a trial."""
        limited = with_budget(self._search.model, config, self._search.examples)
        with torch_threads(config.train.threads), torch.random.fork_rng():
            torch.manual_seed(config.train.seed)
            model = build_model(self._dataset, self._search.model, limited.model)
            if isinstance(model, FittedModel):
                # What is computed of the data alone is the same in all trials: it is computed once.
                model.shared = self._shared
                with model_named_in_errors(model, "it was fitted"):
                    model.fit(self._dataset, seed=config.train.seed)
                validation = self._dataset.examples("validation")
                logit_N = predict(model, self._dataset, validation)[:, 0]
                return metrics.auc(np.asarray(validation.label_NT[:, 0]), logit_N)
            return self._train(trial, model, limited, listeners)

    def _train(self, trial: Any, model: Model, config: RunConfig, listeners: Callback) -> float:
        # A number of examples; 1 would be read as a whole epoch.
        every = max(2, self._search.examples // VALIDATIONS)
        settings = config.train.model_copy(update={"validate_every": every})
        batches = initialised(model, self._dataset, settings, say=lambda _: None)
        with (
            tempfile.TemporaryDirectory(prefix="lifelong-trial-") as folder,
            _Watch(self._search.examples, trial, self._optuna, listeners) as watch,
        ):
            # The checkpoint is thrown away with the trial: there is nothing to tell it from.
            print_ = Fingerprint(data_hash="", model=self._search.model, settings={}, train={})
            loop = Loop(
                model,
                self._dataset,
                settings=settings,
                batches=batches,
                compute=open_compute(settings),
                checkpoint=Checkpoint(Path(folder) / "trial", print_),
                display=watch,
            )
            loop.run()
        return max(point.auc for point in loop.progress.curve)


class _Watch(Display):
    """Reports each validation to the study, and ends a trial that is not worth continuing."""

    def __init__(self, total: int, trial: Any, optuna: ModuleType, listeners: Callback) -> None:
        super().__init__(total, enabled=False, callback=listeners)
        self._trial, self._optuna, self._listeners = trial, optuna, listeners
        self._aucs = list[float]()

    def validated(self, point: CurvePoint, *, best: bool) -> None:
        """Report the outcome of a validation."""
        super().validated(point, best=best)
        self._aucs.append(point.auc)
        self._trial.report(point.auc, len(self._aucs))
        self._trial.set_user_attr("examples", point.examples)
        if self._trial.should_prune():
            # To be given up is no failure.
            self._listeners.ended({"auc": max(self._aucs)})
            raise self._optuna.TrialPruned


def _tuned(optuna: ModuleType, study: Any, dataset: Dataset, search: Search, config: RunConfig) -> Tuned:
    """The best settings, and the record of all trials."""
    states = optuna.trial.TrialState
    words = {states.COMPLETE: "complete", states.PRUNED: "given up", states.FAIL: "failed"}
    ended = ended_trials(study)
    complete = [trial for trial in ended if trial.state == states.COMPLETE and np.isfinite(trial.value)]
    if not complete:
        errors = [trial.user_attrs.get("error") for trial in ended]
        raise LifelongError(
            f"none of {len(ended)} trials succeeded: {next(filter(None, errors), 'unknown')}",
            fix="remove the cause, then run the same command again",
        )
    # Of equals the earlier one: the first trial has the defaults.
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    trials = [
        Trial(
            number=place,
            state=words[trial.state],
            auc=trial.value if trial in complete else max(trial.intermediate_values.values(), default=None),
            examples=trial.user_attrs.get("examples"),
            seconds=trial.user_attrs.get("seconds", 0.0),
            settings=trial.user_attrs["settings"],
        )
        for place, trial in enumerate(ended)
    ]
    return Tuned(
        model=search.model,
        auc=best.value,
        best=ended.index(best),
        seed=search.seed,
        examples=search.examples,
        dataset=dataset.manifest.name,
        data_hash=dataset.manifest.data_hash,
        command=search.command,
        trials=trials,
        config=_chosen(config, search.fixed, best.user_attrs["settings"]),
    )


def _chosen(config: RunConfig, fixed: Collection[str], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`[train]` and `[model]` of the output: what was searched, and what was set by hand."""
    train = config.train.model_dump(mode="json")
    tables = {"train": {key: train[key] for key in train if f"train.{key}" in fixed}, "model": dict(config.model)}
    for name, value in values.items():
        section, _, key = name.partition(".")
        tables[section][key] = value
    return tables
