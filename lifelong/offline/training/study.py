"""A whole comparison: which trainings it takes, and what is made of them.

    Study --plan--> runs --run_jobs--> finished runs --> rows, costs

Everything that is measured is kept with its run, so that a second call, after an interruption or with more models,
does only what is missing.

Trainings run one after another or each in a process of its own, which ends at once when its parent is gone, so that a
killed comparison leaves no process behind that would write into the folders of the next one. A pool of joblib will not
do: one killed worker ends all of it, and Ctrl-C kills its workers before they have saved their state.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from lifelong.artifact.folder import Artifact
from lifelong.atomic import check_folder
from lifelong.config import RunConfig
from lifelong.dataset.folder import Dataset
from lifelong.errors import LifelongError, UsageError
from lifelong.launch import cores, end_with_parent
from lifelong.offline.evaluation.compare import Comparison, cautions, compare
from lifelong.offline.evaluation.costs import Serving, cost_of
from lifelong.offline.evaluation.results import readable_duration
from lifelong.offline.evaluation.significance import RESAMPLES
from lifelong.offline.evaluation.trends import given_away
from lifelong.offline.training.callbacks import Callback
from lifelong.offline.training.runs import Run, gather

Measure = Callable[["Artifact"], Serving | None]


class RunsFailedError(LifelongError):
    """No run of a comparison succeeded."""


logger: logging.Logger = logging.getLogger(__name__)
_End: TypeAlias = tuple[str, float, str]
"""Name of a job, seconds that it took, and why it failed; empty if it did not."""


def run_jobs(
    dataset: Dataset,
    jobs: Sequence[Run],
    *,
    workers: int = 1,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Do the jobs that are not finished.

    Args:
        dataset: prepared.
        jobs: in the order in which they are begun.
        workers: trainings at the same time; one = in this process.
        threads: of all workers together; as many as there are cores if None.
        progress: is called with a line on what starts and ends.

    Returns:
        Name of a failed run -> why.

    Raises:
        MismatchError: the folder of a run holds another; nothing was done.
        KeyboardInterrupt: Ctrl-C; every running training saved its state.
    """
    say = progress or logger.info
    for job in jobs:
        job.claim(dataset)
    open_ = [job for job in jobs if not job.finished]
    if len(open_) < len(jobs):
        say(f"{len(jobs) - len(open_)} of {len(jobs)} are finished already")
    several = workers > 1 and len(open_) > 1
    ends = (
        _apart(dataset, open_, workers, threads, say) if several else _here(dataset, open_, say, progress is not None)
    )
    failures, started = dict[str, str](), time.monotonic()
    # Closed, so that an interrupt between two ends stops the other trainings, too.
    with closing(ends):
        for done, (name, seconds, reason) in enumerate(ends, 1):
            took = f"after {readable_duration(seconds)}"
            if reason:
                failures[name] = reason
                say(f"{name}: failed {took}: {reason}")
            else:
                say(f"{name}: finished {took}; {_pace(done, len(open_), time.monotonic() - started)}")
    return failures


def _here(dataset: Dataset, jobs: Sequence[Run], say: Callable[[str], None], progress: bool) -> Generator[_End]:
    for job in jobs:
        say(f"{job.name}: begins")
        started = time.monotonic()
        reason = _attempt(dataset, job, progress=progress)
        yield job.name, time.monotonic() - started, reason


def _apart(
    dataset: Dataset, jobs: Sequence[Run], workers: int, threads: int | None, say: Callable[[str], None]
) -> Generator[_End]:
    """Each job in a process of its own, which a thread waits for: what kills one leaves the others alone."""
    share, folder = max(1, (threads or cores()) // workers), dataset.folder.resolve()

    def do(job: Run) -> _End:
        say(f"{job.name}: begins")
        started, context = time.monotonic(), multiprocessing.get_context("spawn")
        # Spawned and not forked: a fork copies locks of torch's threads, which nobody in the child will ever release.
        with ProcessPoolExecutor(1, context, initializer=_leave_terminal) as process:
            try:
                reason = process.submit(_attempt, folder, job.with_threads(share)).result()
            except BrokenProcessPool:
                reason = "its process was killed; often memory is short: fewer jobs at the same time need less"
        return job.name, time.monotonic() - started, reason

    # The threads only wait, each for one process at a time, and so bound how many there are.
    with ThreadPoolExecutor(workers) as pool:
        try:
            for end in as_completed([pool.submit(do, job) for job in jobs]):
                yield end.result()
        except (KeyboardInterrupt, GeneratorExit):
            say("stopping; every training saves its state first")
            pool.shutdown(wait=False, cancel_futures=True)
            # Asked and not killed: each saves its state, and leaving the pool waits for that.
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGINT)
            raise


def _leave_terminal() -> None:
    """Ctrl-C reaches the parent alone, which asks every training to stop; and none goes on without its parent."""
    # A terminal sends Ctrl-C to its whole group. The parent would then ask a second time, which ends a training without
    # saving.
    os.setpgrp()
    end_with_parent()


def _attempt(dataset: Dataset | Path, job: Run, *, progress: bool = False) -> str:
    """Do a job; why it failed, or nothing."""
    try:
        if isinstance(dataset, Path):
            dataset = Dataset(dataset)
            if job.threads is not None:
                torch.set_num_threads(job.threads)
        job.do(dataset, progress=progress)
    # Any error ends this job alone: the others may take hours, and are worth finishing.
    except Exception as error:
        logger.debug("a run failed", exc_info=error)
        return str(error) if isinstance(error, LifelongError) else f"{type(error).__name__}: {error}"
    return ""


def _pace(done: int, number: int, seconds: float) -> str:
    """How far jobs have come, and how long the others will take: as long as those before on average.

    >>> _pace(1, 4, 60), _pace(4, 4, 240)
    ('1 of 4 done, about 3 min left', '4 of 4 done')
    """
    left = f", about {readable_duration(seconds * (number - done) / done)} left" if done < number else ""
    return f"{done} of {number} done{left}"


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
