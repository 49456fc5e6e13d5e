"""A whole comparison: which trainings it takes, and what is made of them.

    Study --plan--> runs (main, equal budget) --run_jobs--> finished runs --> rows, costs, sweep

Everything that is measured is kept with its run, so that a second call, after an interruption or with more models,
does only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lifelong.artifact.folder import Artifact
from lifelong.atomic import check_folder
from lifelong.config import RunConfig
from lifelong.dataset.folder import Dataset
from lifelong.errors import LifelongError, UsageError
from lifelong.offline.evaluation.compare import Comparison, ComparisonRow, cautions, compare
from lifelong.offline.evaluation.costs import Serving, cost_of
from lifelong.offline.evaluation.significance import RESAMPLES
from lifelong.offline.models import check_config, model_class
from lifelong.offline.models.base import Model
from lifelong.offline.training.callbacks import Callback
from lifelong.offline.training.jobs import run_jobs
from lifelong.offline.training.runs import Run, gather
from lifelong.offline.training.sweep import SweepTask, choose, sweep

Measure = Callable[["Artifact"], Serving | None]
_NEVER = 10**9


class RunsFailedError(LifelongError):
    """No run of a comparison succeeded."""


@dataclass(frozen=True, slots=True)
class Study:
    """What `run_study` does.

    Args:
        configs: model -> settings of its runs, in the order of the rows.
        seeds: each model is trained once per seed.
        reference: the model that the others are compared with; the first by default.
        max_minutes: limit of one main run; None = only the limits of its settings.
        examples: labelled examples of each run with an equal budget; None = no such runs.
        sweep: numbers of recent events that the models of the first seed are given; None = all.
        sweep_examples: the largest number of test examples of the sweep.
        resamples: of the users.
        workers: trainings at the same time.
        threads: of all of them together.
        notes: what has been left out already, and why.
        callbacks: called in each training, in the process that trains.
    """

    configs: Mapping[str, RunConfig]
    seeds: Sequence[int] = (0,)
    reference: str | None = None
    max_minutes: float | None = None
    examples: int | None = None
    sweep: Sequence[int | None] = ()
    sweep_examples: int = 20_000
    resamples: int = RESAMPLES
    workers: int = 1
    threads: int | None = None
    notes: Sequence[str] = ()
    callbacks: Sequence[Callback] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """The runs of a study.

    Args:
        main: model -> one run per seed.
        equal: those with an equal budget.
    """

    main: Mapping[str, Sequence[Run]]
    equal: Mapping[str, Sequence[Run]] = field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        """Each once, in the order in which they are begun: a first seed of every model comes before second ones."""
        groups = [runs for kind in (self.main, self.equal) for runs in kind.values()]
        return list({run.name: run for of_seed in zip(*groups, strict=True) for run in of_seed}.values())


def plan(study: Study, out: Path) -> Planned:
    """Which trainings a study takes.

    Raises:
        UsageError: no models or seeds, options that exclude each other, or something else is at `out`.
    """
    _check_out(out)
    if not study.configs or not study.seeds:
        raise UsageError(
            "nothing to compare",
            expected="at least one model and one seed",
            fix="name models, such as tally,gbdt,counts,popularity",
        )
    if study.reference is not None and study.reference not in study.configs:
        raise UsageError(
            f"the reference {study.reference!r} is not compared",
            expected=f"one of {', '.join(study.configs)}",
            fix="add it to the models, or name another reference",
        )
    equal = {model: equal_budget(model, config, study.examples) for model, config in study.configs.items()}
    runs = {model: _runs(study, out, model, config, "", study.max_minutes) for model, config in study.configs.items()}
    # A model that cannot take a limited number of examples is fitted once, and appears in both tables.
    budgeted = {model: _runs(study, out, model, of, "-equal") if of else runs[model] for model, of in equal.items()}
    return Planned(runs, {} if study.examples is None else budgeted)


def _check_out(out: Path) -> None:
    """Refuse a file, and a folder of another kind.

    Raises:
        UsageError: it is one.
    """
    check_folder(out)
    for name, kind in (("dataset.json", "a dataset"), ("manifest.json", "an artifact"), ("store.json", "a store")):
        if (out / name).exists():
            raise UsageError(
                f"{out} is {kind}", expected="a new folder, or that of an earlier call", fix="choose another place"
            )


def equal_budget(model: str, config: RunConfig, examples: int | None) -> RunConfig | None:
    """The settings that make a run see exactly this many labelled examples; None for a model without such a setting.

    A model that is fitted takes at most as many, and at most all that there are.
    """
    if examples is None:
        return None
    if not issubclass(model_class(model, config.model), Model):
        if "max_examples" not in check_config(model, config.model):
            return None
        return config.model_copy(update={"model": {**config.model, "max_examples": examples}})
    return config.with_train(max_examples=examples, max_epochs=_NEVER, max_minutes=None, patience=_NEVER)


def _runs(
    study: Study, out: Path, model: str, config: RunConfig, suffix: str, minutes: float | None = None
) -> list[Run]:
    runs = []
    for seed in study.seeds:
        folder = out / "runs" / f"{model}-seed{seed}{suffix}"
        runs.append(Run(folder, model, config.with_train(seed=seed), study.resamples, study.callbacks, minutes))
    return runs


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a study found.

    Args:
        comparison: of the runs that succeeded.
        failures: name of a failed run -> why.
    """

    comparison: Comparison
    failures: Mapping[str, str]


def run_study(
    dataset: Dataset,
    out: Path,
    study: Study,
    *,
    measure: Measure | None = None,
    command: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Train, score and measure what is not in `out` yet; write `comparison.json`.

    Args:
        dataset: prepared.
        out: where runs and the comparison are kept.
        study: what to do.
        measure: measures what an artifact takes to serve; None = costs without state and latency.
        command: kept in the record.
        progress: is called with a line on what starts and ends.

    Raises:
        MismatchError: `out` holds runs on other data or with other settings.
        RunsFailedError: no run succeeded.
        UsageError: see `plan`.
    """
    planned = plan(study, out)
    work = partial(run_jobs, dataset, workers=study.workers, threads=study.threads, progress=progress)
    failures = work(planned.runs)
    swept = _sweep_tasks(dataset, study, planned)
    failures |= work(list(swept.values()))
    assembly = _Assembly(dataset, study, failures, progress or (lambda text: None))
    comparison = assembly.make(planned, swept, measure).model_copy(update={"command": command})
    comparison.save(out / "comparison.json")
    return Outcome(comparison, failures)


def _sweep_tasks(dataset: Dataset, study: Study, planned: Planned) -> dict[str, SweepTask]:
    """Model -> the sweep task of its first finished run."""
    if not study.sweep:
        return {}
    chosen = choose(dataset.examples("test"), study.sweep, limit=study.sweep_examples)
    return {model: SweepTask(runs[0], chosen, study.sweep) for model, runs in _finished(planned.main).items()}


def _finished(planned: Mapping[str, Sequence[Run]]) -> dict[str, list[Run]]:
    """Model -> its finished runs."""
    found = {model: [run for run in runs if run.finished] for model, runs in planned.items()}
    return {model: runs for model, runs in found.items() if runs}


class _Assembly:
    """Makes a comparison of the runs that are finished."""

    def __init__(self, dataset: Dataset, study: Study, failures: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._dataset, self._study, self._say, self._failures = dataset, study, say, failures
        self._notes = [*study.notes, *(f"{name} failed: {reason}" for name, reason in failures.items())]

    def make(self, planned: Planned, swept: Mapping[str, SweepTask], measure: Measure | None) -> Comparison:
        """The comparison, without the command."""
        study = self._study
        runs = _finished(planned.main)
        if not runs:
            first = next(iter(self._failures.items()), ("", ""))
            raise RunsFailedError(f"no run succeeded; {first[0]}: {first[1]}", fix="try it with `lifelong train`")
        reference = study.reference or next(iter(study.configs))
        if reference not in runs:
            self._notes.append(f"{reference} has no finished run; the others are compared with {next(iter(runs))}")
            reference = next(iter(runs))
        rows = self._rows(runs, reference)
        firsts = {model: of[0] for model, of in runs.items()}
        equal = self._rows(_finished(planned.equal), reference)
        scored = {model: task for model, task in swept.items() if task.finished}
        return Comparison(
            reference=reference,
            resamples=study.resamples,
            seed=0,
            rows=rows,
            results=[run.result for of in runs.values() for run in of],
            equal_rows=equal,
            equal_examples=study.examples,
            costs={model: cost_of(run.artifact, self._served(run, measure)) for model, run in firsts.items()},
            sweep=sweep(self._dataset, scored, resamples=study.resamples),
            sweep_at_least=next((task.chosen.at_least for task in scored.values()), None),
            notes=[*self._notes, *cautions(rows, reference)],
        )

    def _rows(self, runs: Mapping[str, Sequence[Run]], reference: str) -> list[ComparisonRow]:
        if not runs:
            return []
        gathered = {model: gather(of, self._dataset) for model, of in runs.items()}
        reference = reference if reference in gathered else next(iter(gathered))
        return compare(gathered, reference=reference, resamples=self._study.resamples)

    def _served(self, run: Run, measure: Measure | None) -> Serving | None:
        if measure is None:
            return None
        self._say(f"{run.name}: what it costs to serve")
        return measure(run.artifact)
