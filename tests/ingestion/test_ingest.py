"""A file of events into memories: once per line, whatever happens."""

import csv
import gzip
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lifelong.errors import SourceError, UsageError
from lifelong.online.ingestion import files
from lifelong.online.ingestion.dead_letters import FileLetters
from lifelong.online.ingestion.files import ingest
from lifelong.online.ingestion.sources import path_source
from lifelong.online.ingestion.task import batch_size
from lifelong.online.memory.event import UserEvent, decode_event
from lifelong.online.memory.updater import Applied, Updater
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore

START = 1_700_000_000
ROWS = [{"user": f"u{k % 3}", "item": f"i{k}", "time": START + k, "event_type": "view"} for k in range(10)]


def write_csv(path: Path, rows=ROWS, columns=("user", "item", "time", "event_type")) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def counts(artifact, store):
    updater = Updater(artifact, store)
    return {user: int(updater.runtime.decode([value]).count_B[0]) for user, value in store.scan()}


@pytest.fixture
def reference(artifact):
    """Memories after all rows, applied by hand."""
    store = InMemoryStore()
    updater = Updater(artifact, store)
    updater.apply([UserEvent(**row) for row in ROWS])
    return dict(store.scan())


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_each_format_gives_the_same_memories(artifact, store, tmp_path, reference, ending):
    path = tmp_path / f"log.{ending}"
    text = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    if ending == "parquet":
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(ROWS), path)
    elif "csv" in ending:
        text = write_csv(tmp_path / "plain.csv").read_bytes()
    if ending != "parquet":
        path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    assert ingest(artifact, store, path).applied == 10
    assert dict(store.scan()) == reference


def test_a_second_run_changes_nothing_under_another_name_too(artifact, store, tmp_path):
    path = write_csv(tmp_path / "log.csv")
    ingest(artifact, store, path)
    before = dict(store.scan())
    moved = path.rename(tmp_path / "moved.csv")
    assert ingest(artifact, store, moved) == Applied(duplicates=10)
    assert dict(store.scan()) == before


def test_a_file_that_grew_under_a_named_source_gives_its_new_lines_alone(artifact, store, tmp_path):
    ingest(artifact, store, write_csv(tmp_path / "log.csv", ROWS[:6]), source="shop")
    applied = ingest(artifact, store, write_csv(tmp_path / "log.csv"), source="shop")
    assert (applied.applied, applied.duplicates) == (4, 6)


def test_columns_can_be_called_otherwise_and_others_are_left_out(artifact, store, tmp_path):
    rows = [{"who": "u", "what": "i1", "ts": START, "kind": "buy", "colour": "red", "cat": "c9"}]
    path = write_csv(tmp_path / "log.csv", rows, ("who", "colour", "what", "ts", "kind", "cat"))
    names = {"user": "who", "item": "what", "time": "ts", "event_type": "kind", "category": "cat"}
    ingest(artifact, store, path, columns=names)
    event = decode_event(store.events("u")[0])
    assert (event.item, event.time, event.event_type, event.fields) == ("i1", START, "buy", {"category": "c9"})


def test_a_column_that_no_event_has_cannot_be_mapped(artifact, store, tmp_path):
    with pytest.raises(UsageError, match="colour"):
        ingest(artifact, store, write_csv(tmp_path / "log.csv"), columns={"colour": "user"})


@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        ("u,i1,yesterday,view", "time", "'yesterday'"),
        ("u,i1,1700000000000,view", "time", "not milliseconds"),
        (",i1,1700000000,view", "user", "user"),
        ("u,,1700000000,view", "item", "item"),
        ("u,i1,1700000000", None, "not as many columns"),
        ('u,"i1,1700000000,view', None, "unexpected end"),
    ],
)
def test_a_bad_line_is_named_and_the_lines_before_it_are_applied(artifact, store, tmp_path, line, column, said):
    path = write_csv(tmp_path / "log.csv")
    path.write_text(path.read_text() + line + "\n" + "u9,i9,1700000000,view\n" * ('"' not in line))
    with pytest.raises(SourceError, match=said) as caught:
        ingest(artifact, store, path)
    assert (caught.value.line, caught.value.column) == (12, column)
    assert sum(counts(artifact, store).values()) == 10


def test_a_mended_line_is_applied_with_those_behind_it(artifact, store, tmp_path):
    path = write_csv(tmp_path / "log.csv", [*ROWS[:4], {**ROWS[4], "time": "?"}, *ROWS[5:]])
    with pytest.raises(SourceError, match="line 6"):
        ingest(artifact, store, path, source="shop")
    applied = ingest(artifact, store, write_csv(path), source="shop")
    assert (applied.applied, applied.duplicates) == (6, 4)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_bad_lines_are_left_out_kept_and_passed_for_good(artifact, store, tmp_path, ending):
    path, letters = tmp_path / f"log.{ending}", FileLetters(tmp_path / "bad.jsonl")
    rows = [ROWS[0], {**ROWS[1], "time": "?"}, ROWS[2], {**ROWS[3], "user": ""}]
    if ending == "csv":
        path.write_text(write_csv(path, rows).read_text() + "u,i\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    applied = ingest(artifact, store, path, on_bad="skip", dead_letters=letters)
    assert (applied.applied, applied.bad) == (2, 3)
    # The last line is none, and its place is kept too.
    last = 6 if ending == "csv" else 5
    assert store.watermark(path_source(path), 0) == last
    assert ingest(artifact, store, path, on_bad="skip", dead_letters=letters) == Applied(duplicates=2)
    letters.close()
    kept = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [letter["offset"] for letter in kept] == [last - 3, last - 1, last]
    assert "time is '?'" in kept[0]["reason"] and kept[0]["value"]["user"] == "u1"


def test_a_line_that_was_left_out_stops_no_later_run(artifact, store, tmp_path):
    path = write_csv(tmp_path / "log.csv", [ROWS[0], {**ROWS[1], "time": "?"}, *ROWS[2:5]])
    ingest(artifact, store, path, on_bad="skip")
    write_csv(path, [ROWS[0], {**ROWS[1], "time": "?"}, *ROWS[2:]])
    assert ingest(artifact, store, path) == Applied(applied=5, duplicates=4)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_line_too_far_ahead_of_the_clock_is_no_event(artifact, store, tmp_path, ending):
    day = int(time.time()) + 86_400
    rows = [ROWS[0], {**ROWS[1], "time": day - 3_600}, {**ROWS[2], "time": day + 3_600}, ROWS[3]]
    path = tmp_path / f"log.{ending}"
    if ending == "csv":
        write_csv(path, rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SourceError, match=r"too far ahead of this machine's clock.*max_ahead") as caught:
        ingest(artifact, store, path)
    assert (caught.value.line, caught.value.column) == (4 if ending == "csv" else 3, "time")
    assert ingest(artifact, store, path, on_bad="skip") == Applied(applied=1, duplicates=2, bad=1)
    assert ingest(artifact, open_store("memory://"), path, max_ahead=2).applied == 4


def test_an_event_id_column_is_read_where_it_is_named_and_else_left_alone(artifact, tmp_path):
    rows = [{**row, "event_id": f"{k % 5}", "user": "u"} for k, row in enumerate(ROWS)]
    path = write_csv(tmp_path / "log.csv", rows, ("user", "item", "time", "event_id"))
    assert ingest(artifact, open_store("memory://"), path).applied == 10
    applied = ingest(artifact, open_store("memory://"), path, columns={"event_id": "event_id"})
    assert (applied.applied, applied.duplicates) == (5, 5)


def test_dead_letters_that_cannot_be_written_are_said(tmp_path):
    with pytest.raises(UsageError, match=r"cannot be written.*--dead-letter"):
        FileLetters(tmp_path / "none" / "bad.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.csv", b"user,item\nu,i\n", "no column 'time'"),
        ("log.csv", b"", "the file is empty"),
        ("log.csv", b"customer,item,time\n", "no column 'user' among 'customer'.*--column user=NAME"),
        ("log.csv", b"user;item;time\n", 'say what separates columns: --column "delimiter=;"'),
        ("log.csv", b"user\titem\ttime\n", r"--column \$'delimiter=\\t'"),
        ("log.csv", b"a,b;user;item;time\n", "--column user=NAME"),
        ("log.csv", b"customer\n", "--column user=NAME"),
        ("log.csv", b"user,item,time,time\n", "several columns 'time'"),
        ("log.csv", b"user,item,time\nu\xe9,i,1\n", "save it as UTF-8"),
        ("log.csv", b"user,item,time\nu,i,1700000000000\n", "--column time_unit=ms"),
        ("log.jsonl", b'{"user": "u"\n', "line 1: not JSON"),
        ("log.jsonl", b"[1]\n", "not a JSON object"),
        ("log.jsonl", b"\xff\xfe\n", "line 1: not UTF-8: the byte 0xff"),
        ("log.csv", b"user,item,time\n" + b"u,i,1\n" * 9 + b"u\xe9,i,1\n", "line 11: not UTF-8: the byte 0xe9"),
        ("log.csv", b"user,item,time\n" + b"u,i,1\n" * 9_999 + b"u\xe9,i,1\n", "line 10001: not UTF-8"),
        ("log.jsonl.gz", b"no gzip", "gzip"),
        ("log.jsonl.gz", gzip.compress(b'{"user": "u", "item": "i", "time": 1}\n' * 99, mtime=0)[:-12], "line"),
    ],
)
def test_a_file_that_is_something_else_is_said(artifact, store, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=said):
        ingest(artifact, store, tmp_path / name)


def test_a_file_that_is_not_there_is_said(artifact, store, tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        ingest(artifact, store, tmp_path / "none.csv")


@pytest.mark.parametrize("address", ["s3://bucket/log.csv", "https://shop.example/log.csv", "file:///tmp/log.csv"])
def test_an_address_is_said_as_it_was_given(artifact, store, address):
    with pytest.raises(UsageError, match=f"^{address} is an address"):
        ingest(artifact, store, address)


def test_a_folder_is_said(artifact, store, tmp_path):
    with pytest.raises(UsageError, match=r"is a folder.*\*\.csv"):
        ingest(artifact, store, tmp_path)


def test_an_ending_that_names_no_format_is_said(artifact, store, tmp_path):
    with pytest.raises(UsageError, match="jsonl"):
        ingest(artifact, store, tmp_path / "log.txt")


@pytest.mark.parametrize(
    ("most", "record", "shared", "size"),
    [
        (32_768, 792, False, 32_768),
        (32_768, 3_000, False, 22_369),
        (32_768, 50_000, False, 16_384),
        (32_768, 792, True, 16_384),
        (7, 50_000, True, 7),
    ],
)
def test_a_commit_has_fewer_events_where_memories_are_large_or_others_write(most, record, shared, size):
    assert batch_size(most, record, shared=shared) == size


def test_progress_goes_up_to_the_size_of_the_file(artifact, store, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BATCH", 3)
    path, told = write_csv(tmp_path / "log.csv"), []
    ingest(artifact, store, path, progress=lambda done, total: told.append((done, total)))
    assert len(told) == 4
    assert told[-1] == (path.stat().st_size, path.stat().st_size)


@pytest.fixture(params=["rocksdb", "shards", "redis", "cluster"])
def durable_url(request, tmp_path):
    if request.param in ("rocksdb", "shards"):
        pytest.importorskip("rocksdict")
        return f"rocksdb://{tmp_path / 'store'}" + "?shards=2" * (request.param == "shards")
    return request.getfixturevalue(f"{request.param}_url")


@pytest.mark.parametrize(
    ("starts", "longest"), [pytest.param(4, 0.15, id="few"), pytest.param(60, 0.02, id="many", marks=pytest.mark.soak)]
)
def test_ingestion_killed_at_random_moments_and_started_again_equals_one_run(
    artifact, log, tmp_path, durable_url, starts, longest
):
    rows = [{"user": e.user, "item": e.item, "time": e.time, "event_type": e.event_type} for e in log]
    path = write_csv(tmp_path / "log.csv", rows)
    # Small batches, so that a kill falls between commits.
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from lifelong.artifact.folder import Artifact\n"
        "from lifelong.online.ingestion import files\nfrom lifelong.online.store.opening import open_store\n"
        "files.BATCH = 7\n"
        "files.ingest(Artifact.open(sys.argv[1]), open_store(sys.argv[2]), Path(sys.argv[3]),\n"
        "              progress=lambda done, total: print(done, flush=True))\n"
    )
    url, chance, kills = durable_url, random.Random(5), 0
    command = [sys.executable, "-c", code, str(artifact.path), url, str(path)]
    for _ in range(starts):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, longest))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait()
    assert kills
    store, once = open_store(url), InMemoryStore()
    ingest(artifact, store, path)
    Updater(artifact, once).apply(log)
    runtime = Updater(artifact, once).runtime
    users = [user for user, _ in once.scan()]
    found, wanted = runtime.decode(store.read_many(users)), runtime.decode(once.read_many(users))
    assert found.count_B.tolist() == wanted.count_B.tolist()
    assert found.last_time_B.tolist() == wanted.last_time_B.tolist()
    assert abs(found.fields["slot"] - wanted.fields["slot"]).max() < 1e-5
    assert [store.events(user) for user in users] == [once.events(user) for user in users]
    store.close()
