"""A file that is rotated, replaced, cut or appended to at every moment of a run: no event is lost, and none doubled."""

import gzip
import os
import re
import shutil
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.event_files import HEAD, assert_holds_once, code_of, lines_of, write

from lifelong.errors import LifelongError, SourceError
from lifelong.online.ingestion import files, opened_file, workers
from lifelong.online.ingestion.file_reader import FileReader
from lifelong.online.ingestion.files import ingest
from lifelong.online.ingestion.opened_file import opened
from lifelong.online.ingestion.sources import find_source, path_source
from lifelong.online.ingestion.task import Task, fold_file
from lifelong.online.memory import writer
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.updater import Applied
from lifelong.online.store.opening import open_store
from lifelong.online.store.part import Share
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.shards import Shards

OLD, NEW = lines_of(0, 90), lines_of(1_000, 40)
SHORT, LONG = NEW[:3], lines_of(1_000, 200)


@pytest.fixture(autouse=True)
def one_runtime(monkeypatch):
    """Hundreds of runs in one process open the graphs of the artifact once."""
    made: dict[str, Runtime] = {}

    def runtime(artifact, *, codec: str) -> Runtime:
        return made.setdefault(codec, made.get(codec) or Runtime(artifact, codec=codec))

    monkeypatch.setattr(writer, "Runtime", runtime)


class Moments:
    """Calls of the operating system and commits, counted; at one of them something happens to the file, just before.

    Args:
        at: number of the call.
        happen: called there.
    """

    def __init__(self, at: int, happen) -> None:
        self.at, self.happen, self.seen = at, happen, 0

    def pass_one(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.happen()

    def watching(self, call):
        def watched(*arguments, **named):
            self.pass_one()
            return call(*arguments, **named)

        return watched

    @contextmanager
    def watched(self, monkeypatch, *stores):
        with monkeypatch.context() as patch:
            calls = {name: self.watching(getattr(os, name)) for name in ("open", "fstat", "pread", "close")}
            patch.setattr(opened_file, "os", SimpleNamespace(**{**vars(os), **calls}))
            for store in stores:
                for name in ("commit", "scan", "watermark"):
                    patch.setattr(store, name, self.watching(getattr(store, name)))
            yield


# What happens to a file: each leaves the older lines in another one, and lines that came since under the path.


def moved(path: Path, new) -> None:
    """As logrotate does with `create`."""
    write(path.with_name(f"next-{path.name}"), new)
    path.rename(path.with_name(f"old-{path.name}"))
    path.with_name(f"next-{path.name}").replace(path)


def copied_and_cut(path: Path, new) -> None:
    """As logrotate does with `copytruncate`; the producer goes on in the same file."""
    shutil.copyfile(path, path.with_name(f"old-{path.name}"))
    os.truncate(path, 0)
    with path.open("ab") as file:
        file.write(code_of(path, new))


def follow_advice(artifact, store, path: Path, run=ingest) -> None:
    """Run again, for both files, and do what the errors say."""
    old = path.with_name(f"old-{path.name}")
    try:
        run(artifact, store, path)
        named = {}
    except SourceError as error:
        (known,) = re.findall(r"continue it first with --source '([^']+)'", str(error))
        assert "then give this one a name of its own: --source NAME" in str(error)
        run(artifact, store, old, source=known)
        run(artifact, store, path, source="newer")
        named = {"source": "newer"}
    try:
        run(artifact, store, old)
    except SourceError as error:
        (known,) = re.findall(r"if it is the same file, continue it with --source '([^']+)'", str(error))
        run(artifact, store, old, source=known)
    assert run(artifact, store, path, **named).applied == 0


@pytest.mark.parametrize(
    ("ending", "rotate", "new", "known"),
    [
        ("csv", moved, NEW, 0),
        ("csv", moved, NEW, 50),
        ("csv.gz", moved, NEW, 50),
        ("csv", copied_and_cut, SHORT, 50),
        ("csv", copied_and_cut, NEW, 0),
        ("csv", copied_and_cut, LONG, 50),
        ("csv.gz", copied_and_cut, LONG, 0),
    ],
)
def test_a_rotation_at_every_moment_of_a_run_loses_and_doubles_nothing(
    artifact, tmp_path, monkeypatch, ending, rotate, new, known
):
    monkeypatch.setattr(files, "BATCH", 60)
    monkeypatch.setattr(opened_file, "_BUFFER", 1_000)
    for at in count(1):
        store, path = InMemoryStore(), tmp_path / str(at) / f"log.{ending}"
        path.parent.mkdir()
        if known:
            ingest(artifact, store, write(path, OLD[:known]))
        write(path, OLD)
        moments = Moments(at, lambda path=path: rotate(path, new))
        with moments.watched(monkeypatch, store):
            try:
                ingest(artifact, store, path)
            except SourceError as error:
                assert re.search("cut or overwritten|other ones now|now there are|end-of-stream", str(error)), error
        if moments.seen < at:
            break
        follow_advice(artifact, store, path)
        assert_holds_once(artifact, store, [*OLD, *new])
    assert at > 20


def fold_two(artifact, store: Shards, path: Path, *, source: str | None = None) -> Applied:
    """What two workers do with a file that was opened once, one after another, which is the worst order."""
    schema, error, total = artifact.config.dataset_schema, None, Applied()
    with opened(path) as file:
        found = find_source(store, lambda: FileReader(file, schema, {}, size=40), source)
        task = Task(file, found.name, {}, {}, "stop", 20, found.record, found.known)
        for number, shard in store._shards.items():
            share = Share((number,), 2)
            try:
                total += fold_file(artifact, Shards("part", share, {number: shard}, items={}), task, share=share)
            except SourceError as found_error:
                error = found_error
    if error is not None:
        raise error
    return total


@pytest.mark.parametrize(("rotate", "known"), [(moved, 50), (copied_and_cut, 0)])
def test_a_rotation_at_every_moment_between_and_in_workers_loses_and_doubles_nothing(
    artifact, tmp_path, monkeypatch, rotate, known
):
    monkeypatch.setattr(opened_file, "_BUFFER", 1_000)
    for at in count(1):
        path = tmp_path / str(at) / "log.csv"
        path.parent.mkdir()
        store = Shards("all", Share((0, 1), 2), {0: InMemoryStore(), 1: InMemoryStore()})
        if known:
            fold_two(artifact, store, write(path, OLD[:known]))
        write(path, OLD)
        moments = Moments(at, lambda path=path: rotate(path, NEW))
        with moments.watched(monkeypatch, *store._shards.values()), suppress(SourceError):
            fold_two(artifact, store, path)
        if moments.seen < at:
            break
        follow_advice(artifact, store, path, fold_two)
        assert_holds_once(artifact, store, [*OLD, *NEW])
    assert at > 20


@pytest.mark.parametrize("rotate", [moved, copied_and_cut])
@pytest.mark.parametrize("moment", ["before the first", "between the two", "when both read", "when both have applied"])
def test_a_rotation_under_worker_processes_loses_and_doubles_nothing(artifact, tmp_path, monkeypatch, rotate, moment):
    pytest.importorskip("rocksdict")
    monkeypatch.setattr(files, "BATCH", 100)
    old, path = lines_of(9_000, 4_000), tmp_path / "log.csv"
    write(path, old)
    started, calls, begin = [], [], workers.Worker.__init__

    def start(worker, *arguments) -> None:
        if len(started) == {"before the first": 0, "between the two": 1}.get(moment):
            rotate(path, NEW)
        started.append(worker)
        begin(worker, *arguments)

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == {"when both read": 2, "when both have applied": 40}.get(moment):
            rotate(path, NEW)

    monkeypatch.setattr(workers.Worker, "__init__", start)
    with closing(open_store(f"rocksdb://{tmp_path}/store?shards=2")) as store:
        try:
            ingest(artifact, store, path, workers=2, progress=progress)
        except LifelongError as error:
            assert "cut or overwritten" in str(error)
        monkeypatch.undo()
        assert path.with_name("old-log.csv").exists()
        follow_advice(artifact, store, path)
        assert_holds_once(artifact, store, [*old, *NEW])


def test_a_file_that_is_replaced_while_it_is_read_is_read_to_its_end(artifact, store, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BATCH", 10)
    path, calls = write(tmp_path / "log.csv", OLD), []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 2:
            moved(path, NEW)

    assert ingest(artifact, store, path, progress=progress).applied == 90
    with pytest.raises(SourceError, match=r"lines that were applied as file:.* are other ones now"):
        ingest(artifact, store, path)
    assert ingest(artifact, store, path, source="newer").applied == 40
    assert_holds_once(artifact, store, [*OLD, *NEW])


def test_a_file_that_was_compressed_by_a_rotation_goes_on_under_its_name(artifact, store, tmp_path):
    path = write(tmp_path / "log.csv", OLD[:60])
    ingest(artifact, store, path)
    zipped = tmp_path / "log.csv.1.csv.gz"
    zipped.write_bytes(gzip.compress((HEAD + "".join(OLD)).encode()))
    with pytest.raises(SourceError, match=f"continue it with --source '{path_source(path)}'"):
        ingest(artifact, store, zipped)
    assert ingest(artifact, store, zipped, source=path_source(path)).applied == 30
    assert_holds_once(artifact, store, OLD)


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_what_is_appended_at_any_moment_comes_with_this_run_or_the_next(artifact, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(files, "BATCH", 60)
    monkeypatch.setattr(opened_file, "_BUFFER", 1_000)
    for at in count(1):
        store, path = InMemoryStore(), tmp_path / f"{at}-log.{ending}"
        path.write_bytes(code_of(path, OLD))
        more = "".join(NEW).encode()

        def append(path=path, more=more) -> None:
            with path.open("ab") as file:
                file.write(gzip.compress(more) if path.suffix == ".gz" else more)

        moments = Moments(at, append)
        with moments.watched(monkeypatch, store):
            ingest(artifact, store, path)
        if moments.seen < at:
            break
        ingest(artifact, store, path)
        assert_holds_once(artifact, store, [*OLD, *NEW])
    assert at > 15
