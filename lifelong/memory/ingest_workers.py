"""A file of events into a store of shards, by several processes: each reads the file and folds in its shards' users.

    parent    owns the folder; collects progress, dead letters and outcomes
      |-- worker 0   shards 0, 2 ..   every line is read and checked, the events of its users are folded in
      `-- worker 1   shards 1, 3 ..

Each shard keeps its own watermark with its own memories, so each is exactly-once by itself: whichever process is
killed, a second run goes on in every shard where that one stopped. A worker ends when its parent is gone; the parent
ends the others when one fails, but at a line that is no event: it stops each worker by itself at the same place.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.artifact.folder import Artifact
from lifelong.errors import LifelongError, LostProcessError, SourceError
from lifelong.launch import end_with_parent
from lifelong.memory.ingest import Task, fold_file
from lifelong.memory.runtime import identity_of
from lifelong.memory.sharded_store import ShardedStore, open_shards
from lifelong.memory.shards import Shards, Share
from lifelong.memory.updater import Applied

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from lifelong.memory.dead_letters import DeadLetter, DeadLetters

_PATIENCE = 10.0
"""Seconds in which a process that was told to end does so."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What one worker does.

    Args:
        artifact: its folder.
        folder: of the store.
        share: the shards that it folds into.
        items: put online.
        task: what is read.
        letters: whether lines that were left out are kept.
    """

    artifact: Path
    folder: Path
    share: Share
    items: Mapping[str, bytes]
    task: Task
    letters: bool


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far a worker is: done, of total."""

    done: int
    total: int


def ingest_in_workers(
    artifact: Artifact,
    store: ShardedStore,
    task: Task,
    workers: int,
    *,
    progress: Callable[[int, int], None] | None = None,
    dead_letters: DeadLetters | None = None,
) -> Applied:
    """Fold a file in by several processes; see `lifelong.memory.ingest.ingest`.

    Args:
        artifact: of a memory model.
        store: open for writing, of the artifact alone; it does not answer meanwhile.
        task: what is read.
        workers: how many, 2 up to the number of shards.
        progress: told of the slowest worker.
        dead_letters: where lines that were left out are kept.

    Raises:
        LifelongError: the error of a worker.
        LostProcessError: a worker was ended from outside.
    """
    store.bind(identity_of(artifact, store, task.codec))
    numbers, of, letters = store.share.numbers, store.share.of, dead_letters is not None
    shares = [Share(numbers[place::workers], of) for place in range(workers)]
    with store.lent() as items:
        work = [_Work(artifact.path.resolve(), store.path.resolve(), share, items, task, letters) for share in shares]
        with _running(work) as pipes:
            return _follow(pipes, progress or (lambda done, total: None), dead_letters)


@contextlib.contextmanager
def _running(work: Sequence[_Work]) -> Iterator[dict[Connection, SpawnProcess]]:
    """Workers, and the pipe to each; all have ended when this ends."""
    context, running = multiprocessing.get_context("spawn"), dict[Connection, "SpawnProcess"]()
    try:
        # Ctrl-C reaches all processes of a terminal: the parent takes it, when all are started, and ends the others.
        # What Python starts beside the first of them would take the block away.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for one in work:
                here, there = context.Pipe()
                name = f"lifelong-shard-{one.share.numbers[0]}"
                running[here] = context.Process(target=_work, args=(there, one), name=name, daemon=True)
                running[here].start()
                there.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield running
    finally:
        started = [process for process in running.values() if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join(_PATIENCE)
            process.kill()
            process.join()
            process.close()
        for pipe in running:
            pipe.close()


def _follow(
    pipes: Mapping[Connection, SpawnProcess],
    progress: Callable[[int, int], None],
    dead_letters: DeadLetters | None,
) -> Applied:
    """What became of the lines, when all workers are through."""
    left, done, total = list(pipes), dict.fromkeys(pipes, 0), Applied()
    stopped: SourceError | None = None
    while left:
        for pipe in wait(left):
            assert isinstance(pipe, Connection)
            message = _received(pipe, pipes[pipe])
            if isinstance(message, _Progress):
                done[pipe] = message.done
                progress(min(done.values()), message.total)
            elif isinstance(message, list) and dead_letters is not None:
                for letter in message:
                    dead_letters.put(letter)
                dead_letters.flush()
                pipe.send(True)
            elif isinstance(message, SourceError):
                # Each worker comes to this line by itself, when what is before it is in its shards.
                stopped = stopped or message
                left.remove(pipe)
            elif isinstance(message, LifelongError):
                raise message
            elif isinstance(message, Applied):
                total += message
                left.remove(pipe)
    if stopped is not None:
        raise stopped
    return total


def _received(pipe: Connection, process: SpawnProcess) -> object:
    """What a worker says.

    Raises:
        LostProcessError: it has ended and said nothing.
    """
    try:
        message: object = pipe.recv()
    except (EOFError, ConnectionError) as error:
        process.join(_PATIENCE)
        raise LostProcessError(
            f"the worker {process.name} ended with exit code {process.exitcode}",
            expected="workers that live until all lines are applied",
            fix="run it again: each shard goes on where it stopped",
        ) from error
    return message


def _work(pipe: Connection, work: _Work) -> None:
    """What a worker process does; its last word is the outcome, or the error."""
    end_with_parent()
    try:
        # The parent has looked at every byte of it.
        artifact, share = Artifact.open(work.artifact, verify="sizes"), work.share
        shards = open_shards(work.folder, share)
        with closing(Shards(str(work.folder), share, shards, items=work.items)) as store:
            applied = fold_file(
                artifact,
                store,
                work.task,
                share=share,
                progress=lambda done, total: pipe.send(_Progress(done, total)),
                dead_letters=_Told(pipe) if work.letters else None,
            )
    except LifelongError as error:
        pipe.send(error)
    else:
        pipe.send(applied)


class _Told:
    """Dead letters that the parent keeps."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._letters = pipe, list["DeadLetter"]()

    def put(self, letter: DeadLetter) -> None:
        """Take one."""
        self._letters.append(letter)

    def flush(self) -> None:
        """Wait until the parent has kept them."""
        if self._letters:
            self._pipe.send(self._letters)
            self._letters = []
            self._pipe.recv()

    def close(self) -> None:
        """The pipe stays open."""
