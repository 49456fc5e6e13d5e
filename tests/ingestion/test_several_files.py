"""Several files in one call: each is a source of its own, and the same call continues where it stopped."""

import gzip
from pathlib import Path

import pytest

from lifelong.errors import SourceError, UsageError
from lifelong.online.ingestion import files
from lifelong.online.ingestion.files import ingest
from lifelong.online.memory.event import decode_event
from lifelong.online.memory.updater import Applied
from lifelong.online.store.opening import open_store

START = 1_700_000_000
HEAD = "user,item,time\n"
LINES = [f"u{k % 4},i{k},{START + k}\n" for k in range(60)]
BAD = "u1,i1,soon\n"


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    """Three days of a log, each in another file."""
    paths = [tmp_path / name for name in ("day-1.csv", "day-2.csv.gz", "day-3.csv")]
    for place, path in enumerate(paths):
        write(path, LINES[20 * place : 20 * place + 20])
    return paths


def write(path: Path, lines) -> None:
    code = (HEAD + "".join(lines)).encode()
    path.write_bytes(gzip.compress(code) if path.suffix == ".gz" else code)


def held(store) -> dict[str, list[str]]:
    return {user: [decode_event(event).item for event in store.events(user)] for user, _ in store.scan()}


def wanted(lines=LINES) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        user, item, _ = line.split(",")
        found.setdefault(user, []).append(item)
    return found


def test_files_are_read_in_the_order_given_and_those_of_a_glob_by_name(artifact, store, logs, tmp_path) -> None:
    assert ingest(artifact, store, str(tmp_path / "*.csv*")) == Applied(applied=60)
    assert held(store) == wanted()
    backwards = open_store("memory://")
    applied = ingest(artifact, backwards, [logs[2], logs[0], logs[1]])
    assert (applied.applied, applied.late) == (60, 40)
    assert held(backwards) == wanted([*LINES[40:], *LINES[:40]])


def test_a_file_that_is_named_twice_is_read_once(artifact, store, logs, tmp_path) -> None:
    assert ingest(artifact, store, [logs[0], str(tmp_path / "*"), logs[0]]) == Applied(applied=60)


def test_a_bad_line_stops_in_its_file_and_the_same_call_continues_there(artifact, store, logs) -> None:
    write(logs[1], [*LINES[20:25], BAD, *LINES[26:40]])
    with pytest.raises(SourceError, match=r"day-2\.csv\.gz, line 7"):
        ingest(artifact, store, logs)
    assert held(store) == wanted(LINES[:25])
    write(logs[1], LINES[20:40])
    write(logs[2], [*LINES[40:], f"u0,more,{START + 100}\n"])
    assert ingest(artifact, store, logs) == Applied(applied=36, duplicates=25)
    assert held(store) == wanted([*LINES, "u0,more,0"])


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 8])
def test_a_run_that_is_stopped_anywhere_is_continued_by_the_same_call(artifact, store, logs, monkeypatch, stop) -> None:
    monkeypatch.setattr(files, "BATCH", 7)
    calls = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == stop:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        ingest(artifact, store, logs, progress=progress)
    applied = ingest(artifact, store, logs)
    assert applied.applied + applied.duplicates == 60 and applied.duplicates > 0
    assert held(store) == wanted()
    assert ingest(artifact, store, logs) == Applied(duplicates=60)


def test_progress_goes_over_the_bytes_of_all_files(artifact, store, logs) -> None:
    calls: list[tuple[int, int]] = []
    ingest(artifact, store, logs, progress=lambda done, total: calls.append((done, total)))
    whole = sum(path.stat().st_size for path in logs)
    assert calls == sorted(calls) and calls[-1] == (whole, whole) and len(calls) >= 3


@pytest.mark.parametrize("what", ["absent", "no column", "no format", "no file of a glob"])
def test_nothing_is_applied_where_a_later_file_cannot_be_read(artifact, store, logs, what) -> None:
    wrong = logs[0].parent / {"no format": "day-4.txt", "no file of a glob": "night-*.csv"}.get(what, "day-4.csv")
    if what == "no column":
        wrong.write_text("user,item\nu1,i1\n")
    with pytest.raises((SourceError, UsageError), match=wrong.name.replace("*", r"\*")):
        ingest(artifact, store, [*logs, wrong])
    assert held(store) == {}
