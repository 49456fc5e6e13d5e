"""A file into a store of shards, by several processes: each reads all of it for the users of its shards.

    parent    owns the folder; collects progress, dead letters and outcomes
      |-- worker 0   shards 0, 2 ..   every line is read and checked, the events of its users are folded in
      `-- worker 1   shards 1, 3 ..

Each shard keeps its own watermark with its own memories, so each is exactly-once by itself: whichever process is
killed, another run continues in every shard where that shard stopped. A worker ends when its parent is gone. The parent
ends the others when one fails, except at a line that is not an event: each worker stops there by itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from lifelong.artifact.folder import Artifact
from lifelong.errors import LifelongError, LostProcessError, SourceError, UsageError
from lifelong.launch import INTERRUPTED, collect_rarely, cores, end_with_parent
from lifelong.online.ingestion.dead_letters import DeadLetter, DeadLetters
from lifelong.online.ingestion.task import Task, fold_file
from lifelong.online.memory.runtime import identity_of
from lifelong.online.memory.updater import Applied
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.part import Share
from lifelong.online.store.sharded import ShardedStore, open_shards
from lifelong.online.store.shards import Shards

_PATIENCE = 10.0
"""Seconds that a process has to end after it was asked to."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What one worker does.

    Args:
        artifact: folder of the artifact.
        folder: folder of the store.
        share: its shards.
        items: items that were put online.
        task: what it reads.
        letters: whether lines that were left out are kept.
    """

    artifact: Path
    folder: Path
    share: Share
    items: Mapping[str, bytes]
    task: Task
    letters: bool


def number_of_workers(store: MemoryStore, workers: int | None) -> int:
    """How many processes fold events in.

    Args:
        store: written by this process or its workers alone, or shared.
        workers: as asked for; None for one per shard, up to the number of cores.

    Raises:
        UsageError: more are asked for than there are shards.
    """
    shards = store.share.of if isinstance(store, ShardedStore) else 1
    if workers is not None and not 1 <= workers <= shards:
        raise UsageError(
            f"{workers} workers on a store of {shards} shard{'s' * (shards > 1)}",
            expected=f"1 to {shards}" if shards > 1 else "1",
            fix="" if shards > 1 else "make a new store with rocksdb:///path?shards=N",
        )
    if shards > 1 and len(store.artifact_list().artifacts) > 1:
        # A worker in which one artifact falls behind would have to tell the others at once.
        return 1
    return min(shards, cores()) if workers is None else workers


def ingest_in_workers(
    artifact: Artifact,
    store: ShardedStore,
    task: Task,
    workers: int,
    *,
    progress: Callable[[int, int], None] | None = None,
    dead_letters: DeadLetters | None = None,
) -> Applied:
    """Fold a file in by several processes; see `lifelong.online.ingestion.files.ingest`.

    Args:
        artifact: of a memory model.
        store: open for writing, of the artifact alone; it does not answer meanwhile.
        task: what is read.
        workers: how many, from 2 up to the number of shards.
        progress: called with the progress of the slowest worker.
        dead_letters: where lines that were left out are kept.

    Raises:
        LifelongError: the error of a worker.
        LostProcessError: a worker was killed.
    """
    store.bind(identity_of(artifact, store, task.folding.get("codec")))
    with _running(artifact, store, task, workers, letters=dead_letters is not None) as pipes:
        return _outcome(pipes, progress or (lambda done, total: None), dead_letters)


class Worker:
    """A worker process, and the pipe to it.

    It is not a `multiprocessing.Process`, which prints a traceback if its parent ends while it starts.

    Args:
        work: what it does.
    """

    name: str
    """For error messages."""
    pipe: Connection
    """To the worker; what it sends is received here."""

    def __init__(self, work: _Work) -> None:
        self.name = f"lifelong-shard-{work.share.numbers[0]}"
        self.pipe, there = multiprocessing.Pipe()
        # Nothing is ever written into this pipe: it is closed when this process ends, however that happens.
        parent, self._alive = os.pipe()
        code = f"from {__name__} import run_worker; run_worker({there.fileno()}, {parent})"
        passed = there.fileno(), parent, work.task.file.descriptor
        with there:
            try:
                self._process = subprocess.Popen([sys.executable, "-c", code], pass_fds=passed)
            finally:
                os.close(parent)
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send(work)

    def exit_code(self) -> int | None:
        """The exit code of a worker that is ending; None if it does not end in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that hangs, as on a disk, must not keep the parent from its own end.
            return self._process.wait(_PATIENCE)
        return None

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def close(self) -> None:
        """Wait until it has ended."""
        # It was asked to end and does not; what it has committed stays.
        if self.exit_code() is None:
            self._process.kill()
            self._process.wait()
        self.pipe.close()
        os.close(self._alive)


@contextlib.contextmanager
def _running(
    artifact: Artifact, store: ShardedStore, task: Task, workers: int, *, letters: bool
) -> Iterator[dict[Connection, Worker]]:
    """Workers that divide the shards of a store among them, by the pipe to each; when the context ends, all have ended.

    Args:
        artifact: of a memory model.
        store: of this artifact alone; it does not answer meanwhile.
        task: what each of them reads.
        workers: how many, up to the number of shards.
        letters: whether they send what they leave out.
    """
    shares = store.share.divided(workers)
    started: list[Worker] = []
    with store.lent() as items:
        work = [_Work(artifact.path.resolve(), store.path.resolve(), share, items, task, letters) for share in shares]
        try:
            # Ctrl-C reaches all processes of a terminal. It is held back until all workers are started, which hold it
            # back as long as they live; then the parent gets it, and ends the others.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                # If one fails to start, the workers before it are in the list already, and are ended.
                started.extend(map(Worker, work))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield {worker.pipe: worker for worker in started}
        finally:
            for worker in started:
                worker.terminate()
            for worker in started:
                worker.close()


def _outcome(
    pipes: Mapping[Connection, Worker], progress: Callable[[int, int], None], dead_letters: DeadLetters | None
) -> Applied:
    """What became of the lines, once all workers are finished.

    Args:
        pipes: to the workers.
        progress: called with the progress of the slowest worker.
        dead_letters: where lines that were left out are kept.

    Raises:
        LifelongError: the error of a worker; what the others do is not waited for, unless it is a line that is not an
            event.
        LostProcessError: a worker was killed.
    """
    left, done, total = list(pipes), dict.fromkeys(pipes, 0), Applied()
    stopped: SourceError | None = None
    while left:
        # Whichever says something first: a slow worker holds up no other.
        for pipe in wait(left):
            assert isinstance(pipe, Connection)
            message = _received(pipe, pipes[pipe])
            if isinstance(message, tuple):
                done[pipe] = message[0]
                progress(min(done.values()), message[1])
            elif isinstance(message, list) and dead_letters is not None:
                for letter in message:
                    dead_letters.put(letter)
                dead_letters.flush()
                # Only when they are on the disk: the worker then moves its position past these lines.
                pipe.send(True)
            elif isinstance(message, SourceError):
                # The other workers reach this line too, after the lines before it are in their shards.
                stopped = stopped or message
                left.remove(pipe)
            elif isinstance(message, LifelongError):
                raise message
            else:
                assert isinstance(message, Applied)
                left.remove(pipe)
                total += message
    if stopped is not None:
        raise stopped
    return total


def _received(pipe: Connection, worker: Worker) -> object:
    """The next message of a worker: (done, total), dead letters, its outcome or its error.

    Raises:
        LostProcessError: it has ended without one.
    """
    try:
        message: object = pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise LostProcessError(
            f"the worker {worker.name} ended with exit code {worker.exit_code()}",
            expected="workers that live until all events are applied",
            fix="run it again: each shard continues where it stopped",
        ) from error
    return message


def run_worker(pipe: int, parent: int) -> None:
    """What a worker process does; its last message is the outcome, or the error.

    Args:
        pipe: descriptor of the connection to the parent, which sends what to do first.
        parent: descriptor of a pipe that ends with the parent.
    """
    end_with_parent(parent)
    collect_rarely()
    with Connection(pipe) as connection:
        try:
            work = connection.recv()
        except (EOFError, ConnectionError):
            os._exit(INTERRUPTED)
        _work(connection, work)


def _work(pipe: Connection, work: _Work) -> None:
    try:
        # The parent has checked every byte of it.
        artifact, share = Artifact.open(work.artifact, verify="sizes"), work.share
        shards = open_shards(work.folder, share)
        with closing(Shards(str(work.folder), share, shards, items=work.items)) as store:
            letters = _ParentLetters(pipe) if work.letters else None

            def progress(done: int, total: int) -> None:
                pipe.send((done, total))

            outcome = fold_file(artifact, store, work.task, share=share, progress=progress, dead_letters=letters)
    except LifelongError as error:
        pipe.send(error)
    else:
        pipe.send(outcome)


class _ParentLetters:
    """Dead letters of a worker, which the parent keeps."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._letters = pipe, list["DeadLetter"]()

    def put(self, letter: DeadLetter) -> None:
        """Collect one until the next `flush`."""
        self._letters.append(letter)

    def flush(self) -> None:
        """Wait until the parent has kept them."""
        if self._letters:
            self._pipe.send(self._letters)
            self._letters = []
            # Until the parent has them: after the commit that follows, no run looks at these lines again.
            self._pipe.recv()

    def close(self) -> None:
        """The pipe stays open."""
