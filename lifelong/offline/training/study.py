"""A whole comparison: which trainings it takes, and what is made of them.

    Study --plan--> runs --run_jobs--> finished runs --> rows, costs

Everything that is measured is kept with its run, so that a second call, after an interruption or with more models,
does only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lifelong.artifact.folder import Artifact
from lifelong.atomic import check_folder
from lifelong.config import RunConfig
from lifelong.dataset.folder import Dataset
from lifelong.errors import LifelongError, UsageError
from lifelong.offline.evaluation.compare import Comparison, cautions, compare
from lifelong.offline.evaluation.costs import Serving, cost_of
from lifelong.offline.evaluation.significance import RESAMPLES
from lifelong.offline.evaluation.trends import given_away
from lifelong.offline.training.callbacks import Callback
from lifelong.offline.training.jobs import run_jobs
from lifelong.offline.training.runs import Run, gather

Measure = Callable[["Artifact"], Serving | None]


class RunsFailedError(LifelongError):
    """No run of a comparison succeeded."""


@dataclass(frozen=True, slots=True)
class Study:
    """What `run_study` does.

    Args:
        configs: model -> settings of its runs, in the order of the rows.
        seeds: each model is trained once per seed.
        reference: the model that the others are compared with; the first by default.
        max_minutes: limit of one run; None = only the limits of its settings.
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
    resamples: int = RESAMPLES
    workers: int = 1
    threads: int | None = None
    notes: Sequence[str] = ()
    callbacks: Sequence[Callback] = ()


def plan(study: Study, out: Path) -> dict[str, list[Run]]:
    """Which trainings a study takes: model -> one run per seed.

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
    return {model: _runs(study, out, model, config) for model, config in study.configs.items()}


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


def _runs(study: Study, out: Path, model: str, config: RunConfig) -> list[Run]:
    runs = []
    for seed in study.seeds:
        folder = out / "runs" / f"{model}-seed{seed}"
        runs.append(
            Run(folder, model, config.with_train(seed=seed), study.resamples, study.callbacks, study.max_minutes)
        )
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
    # A first seed of every model before second ones: what an interruption leaves can be compared.
    runs = [run for of_seed in zip(*planned.values(), strict=True) for run in of_seed]
    failures = run_jobs(dataset, runs, workers=study.workers, threads=study.threads, progress=progress)

    def served(run: Run) -> Serving | None:
        if measure is None:
            return None
        if progress is not None:
            progress(f"{run.name}: what it costs to serve")
        return measure(run.artifact)

    comparison = _compared(dataset, study, planned, failures, served).model_copy(update={"command": command})
    # Written anew by each call, as later ones may add models.
    comparison.save(out / "comparison.json")
    return Outcome(comparison, failures)


def _compared(
    dataset: Dataset,
    study: Study,
    planned: Mapping[str, Sequence[Run]],
    failures: Mapping[str, str],
    served: Callable[[Run], Serving | None],
) -> Comparison:
    """The comparison of the runs that are finished, without the command."""
    finished = {model: [run for run in runs if run.finished] for model, runs in planned.items()}
    runs = {model: of for model, of in finished.items() if of}
    if not runs:
        # One reason is enough: where all fail, they mostly fail alike.
        name, reason = next(iter(failures.items()), ("", ""))
        raise RunsFailedError(f"no run succeeded; {name}: {reason}", fix="try it with `lifelong train`")
    notes = [*study.notes, *(f"{name} failed: {reason}" for name, reason in failures.items())]
    reference = study.reference or next(iter(study.configs))
    if reference not in runs:
        notes.append(f"{reference} has no finished run; the others are compared with {next(iter(runs))}")
        # The others may have taken hours: compared with another model they are still worth something.
        reference = next(iter(runs))
    gathered = {model: gather(of, dataset) for model, of in runs.items()}
    rows = compare(gathered, reference=reference, resamples=study.resamples)
    return Comparison(
        reference=reference,
        resamples=study.resamples,
        seed=0,
        rows=rows,
        results=[run.result for of in runs.values() for run in of],
        costs={model: cost_of(of[0].artifact, served(of[0])) for model, of in runs.items()},
        notes=[*notes, *cautions(rows, reference)],
        trends=given_away(dataset, resamples=study.resamples),
    )
