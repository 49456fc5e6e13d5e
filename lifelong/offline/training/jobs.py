"""Trainings of a comparison, one after another or in worker processes; a failed one leaves the others alone.

Each worker process runs one training and its scoring. It ends at once when its parent is gone, so that a killed
comparison leaves no process behind that would write into the folders of the next one. A pool of joblib will not do: one
killed worker ends all of it, and Ctrl-C kills its workers before they have saved their state.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import torch

from lifelong.dataset.folder import Dataset
from lifelong.errors import LifelongError
from lifelong.launch import cores, end_with_parent
from lifelong.offline.evaluation.results import readable_duration
from lifelong.offline.training.runs import Run

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
    failures, pace = {}, Pace([job.name for job in open_], workers)
    # Closed, so that an interrupt between two ends stops the other trainings, too.
    with closing(ends):
        for name, seconds, reason in ends:
            took = f"after {readable_duration(seconds)}"
            if reason:
                failures[name] = reason
                pace.drop(name)
                say(f"{name}: failed {took}: {reason}")
            else:
                say(f"{name}: finished {took}; {pace.after(name, seconds)}")
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


class Pace:
    """How far jobs have come, and how long the others will take: as long as those of the same model before.

    Args:
        names: of the jobs; a model's end in `-seed` and a number.
        workers: jobs at the same time.

    >>> pace = Pace(["a-seed0", "b-seed0", "a-seed1", "b-seed1"])
    >>> pace.after("a-seed0", 60)
    '1 of 4 done, about 3 min left'
    >>> pace.after("b-seed0", 600)
    '2 of 4 done, about 11 min left'
    """

    def __init__(self, names: Sequence[str], workers: int = 1) -> None:
        self._open, self._number, self._workers = list(names), len(names), workers
        self._took: dict[str, list[float]] = {}

    def after(self, name: str, seconds: float) -> str:
        """A job has ended; what that says of the others, in words."""
        self.drop(name)
        self._took.setdefault(_model(name), []).append(seconds)
        done = f"{self._number - len(self._open)} of {self._number} done"
        if not self._open:
            return done
        means = {model: sum(took) / len(took) for model, took in self._took.items()}
        usual = sum(means.values()) / len(means)
        left = sum(means.get(_model(other), usual) for other in self._open) / min(self._workers, len(self._open))
        return f"{done}, about {readable_duration(left)} left"

    def drop(self, name: str) -> None:
        """A job has ended without saying how long the others take."""
        self._open.remove(name)


def _model(name: str) -> str:
    return name.rpartition("-seed")[0] or name
