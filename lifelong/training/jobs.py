"""Trainings of a comparison, one after another or in worker processes; a failed one leaves the others alone.

Each worker process runs one training and its scoring. It leaves the terminal's process group, so that Ctrl-C reaches
the parent alone, which then asks every worker to save its state; and it ends at once when its parent is gone, so that a
killed comparison leaves no process behind that would write into the folders of the next one.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

import torch

from lifelong.data.dataset import Dataset
from lifelong.errors import LifelongError
from lifelong.evaluation.results import readable_duration
from lifelong.launch import INTERRUPTED, cores, end_with_parent

logger: logging.Logger = logging.getLogger(__name__)


class Task(Protocol):
    """Something that is done once, in this process or in another, and kept in a folder."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def finished(self) -> bool:
        """Whether it is done."""

    @property
    def threads(self) -> int | None:
        """Threads of its computation; None leaves the number to torch."""

    def with_threads(self, threads: int) -> Task:
        """This task on another number of threads."""

    def claim(self, dataset: Dataset) -> None:
        """Refuse a folder that holds something else."""

    def do(self, dataset: Dataset, *, progress: bool) -> None:
        """Do what is not done yet."""


def run_jobs(
    dataset: Dataset,
    jobs: Sequence[Task],
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
    if workers > 1 and len(open_) > 1:
        share = max(1, (threads or cores()) // workers)
        return _Workers(dataset, workers, say).run([job.with_threads(share) for job in open_])
    failures, pace = {}, Pace([job.name for job in open_])
    for job in open_:
        say(f"{job.name}: begins")
        started = time.monotonic()
        try:
            job.do(dataset, progress=progress is not None)
            took = time.monotonic() - started
            say(f"{job.name}: finished after {readable_duration(took)}; {pace.after(job.name, took)}")
        except Exception as error:
            failures[job.name] = _reason(error)
            pace.drop(job.name)
            say(f"{job.name}: failed: {failures[job.name]}")
    return failures


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


class _Workers:
    """Processes that each do one job, up to a number at the same time."""

    def __init__(self, dataset: Dataset, workers: int, say: Callable[[str], None]) -> None:
        self._folder, self._workers, self._say = dataset.folder.resolve(), workers, say
        self._running: dict[int, tuple[SpawnProcess, Connection, Task, float]] = {}
        self._failures: dict[str, str] = {}
        self._pace = Pace([])

    def run(self, jobs: Sequence[Task]) -> dict[str, str]:
        """Do all jobs; name of a failed run -> why."""
        waiting = iter(jobs)
        self._pace = Pace([job.name for job in jobs], self._workers)
        try:
            self._fill(waiting)
            while self._running:
                for sentinel in wait(list(self._running)):
                    assert isinstance(sentinel, int)
                    self._ended(sentinel)
                self._fill(waiting)
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            for process, *_ in self._running.values():
                process.terminate()
        return self._failures

    def _fill(self, waiting: Iterator[Task]) -> None:
        while len(self._running) < self._workers and (job := next(waiting, None)) is not None:
            context = multiprocessing.get_context("spawn")
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(self._folder, job, sender), name=job.name, daemon=True)
            process.start()
            sender.close()
            self._running[process.sentinel] = (process, receiver, job, time.monotonic())
            self._say(f"{job.name}: begins")

    def _ended(self, sentinel: int) -> None:
        process, receiver, job, started = self._running.pop(sentinel)
        process.join()
        seconds = time.monotonic() - started
        took = f"after {readable_duration(seconds)}"
        if process.exitcode == 0:
            self._say(f"{job.name}: finished {took}; {self._pace.after(job.name, seconds)}")
        else:
            # What was sent stays readable after the sender has ended; nothing was sent if it was killed.
            reason = _received(receiver) or f"its process ended with exit code {process.exitcode}"
            self._failures[job.name] = reason
            self._pace.drop(job.name)
            self._say(f"{job.name}: failed {took}: {reason}")
        receiver.close()
        process.close()

    def _stop(self) -> None:
        """Ask every worker to save its state, and wait until all have ended."""
        self._say("stopping; every training saves its state first")
        for process, *_ in self._running.values():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGINT)
        for process, *_ in self._running.values():
            process.join()


def _work(folder: Path, job: Task, sender: Connection) -> None:
    """What a worker process does; it ends with an exit code."""
    os.setpgrp()
    end_with_parent()
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    try:
        job.do(Dataset(folder), progress=False)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        sender.send(_reason(error))
        sys.exit(1)


def _received(receiver: Connection) -> str:
    try:
        sent: Any = receiver.recv() if receiver.poll() else ""
    except EOFError:
        sent = ""
    return str(sent)


def _reason(error: Exception) -> str:
    logger.debug("a run failed", exc_info=error)
    return str(error) if isinstance(error, LifelongError) else f"{type(error).__name__}: {error}"
