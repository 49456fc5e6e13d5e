"""A file that was corrected, cut, moved or goes on growing: each of its lines is applied once."""

import gzip
import os
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.errors import ConfigError, SourceError
from lifelong.online.ingestion.file_reader import FileReader
from lifelong.online.ingestion.files import ingest
from lifelong.online.ingestion.opened_file import OpenedFile, opened
from lifelong.online.ingestion.sources import find_source, path_source
from lifelong.online.ingestion.task import Task, fold_file
from lifelong.online.memory.event import UserEvent, decode_event
from lifelong.online.memory.updater import Applied, Updater
from lifelong.online.memory.verify import verify
from lifelong.online.store.opening import open_store
from lifelong.online.store.part import Share
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.shards import Shards

START = 1_700_000_000
HEAD = "user,item,time\n"
LINES = [f"u{k % 5},i{k},{START + k}\n" for k in range(400)]
BAD = "u1,i1,soon\n"


def write(path: Path, lines, *, cut: int = 0) -> Path:
    """The file of some lines; `cut` leaves out so many bytes at its end."""
    code = (HEAD + "".join(lines)).encode()
    code = gzip.compress(code, mtime=0) if path.suffix == ".gz" else code
    path.write_bytes(code[: len(code) - cut])
    return path


def write_parquet(path: Path, lines, *, group: int = 1_000) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [dict(zip(("user", "item", "time"), line.strip().split(","), strict=True)) for line in lines]
    parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=group)
    return path


def held(store) -> dict[str, list[str]]:
    """User -> the events that the store's log holds."""
    logs = {user: map(decode_event, store.events(user)) for user, _ in store.scan()}
    return {user: [f"{user},{event.item},{event.time}\n" for event in log] for user, log in logs.items()}


def assert_holds(artifact, store, lines) -> None:
    """The log of each user is the true one, and the memories are what a replay of it gives."""
    wanted: dict[str, list[str]] = {}
    for line in lines:
        wanted.setdefault(line.split(",")[0], []).append(line)
    assert held(store) == wanted
    found = verify(artifact, None, store)
    assert found.equal and found.events == len(lines)


# One promise each


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_corrected_line_is_applied_with_those_behind_it_and_those_before_it_not_again(
    artifact, store, tmp_path, ending
):
    path = write(tmp_path / f"log.{ending}", [*LINES[:200], BAD, *LINES[201:]])
    with pytest.raises(SourceError, match="line 202"):
        ingest(artifact, store, path)
    assert_holds(artifact, store, LINES[:200])
    assert ingest(artifact, store, write(path, LINES)) == Applied(applied=200, duplicates=200)
    assert_holds(artifact, store, LINES)


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_of_a_file_that_grew_the_new_lines_alone_are_applied(artifact, store, tmp_path, ending):
    make = write_parquet if ending == "parquet" else write
    path = make(tmp_path / f"log.{ending}", LINES[:130])
    ingest(artifact, store, path)
    assert ingest(artifact, store, make(path, LINES)) == Applied(applied=270, duplicates=130)
    assert_holds(artifact, store, LINES)


def test_rows_of_parquet_are_known_however_they_are_grouped(artifact, store, tmp_path):
    path = write_parquet(tmp_path / "log.parquet", LINES[:130], group=7)
    ingest(artifact, store, path)
    assert ingest(artifact, store, write_parquet(path, LINES, group=64)).applied == 270
    with pytest.raises(SourceError, match="other ones now"):
        ingest(artifact, store, write_parquet(path, [LINES[1], *LINES[1:]]))


def test_a_gz_that_was_cut_and_is_whole_now_gives_its_other_lines(artifact, store, tmp_path):
    path = write(tmp_path / "log.csv.gz", LINES, cut=300)
    with pytest.raises(SourceError, match="before the end-of-stream"):
        ingest(artifact, store, path)
    first = sum(map(len, held(store).values()))
    assert 0 < first < 400
    assert ingest(artifact, store, write(path, LINES)) == Applied(applied=400 - first, duplicates=first)
    assert_holds(artifact, store, LINES)


@pytest.mark.parametrize("what", ["a changed line", "a missing line", "fewer lines", "another header"])
def test_a_file_whose_applied_lines_differ_is_refused_and_changes_nothing(artifact, store, tmp_path, what):
    path = write(tmp_path / "log.csv", LINES[:300])
    ingest(artifact, store, path)
    before = dict(store.scan())
    lines = list(LINES)
    if what == "a changed line":
        lines[150] = BAD
    elif what == "a missing line":
        del lines[150]
    elif what == "fewer lines":
        del lines[250:]
    write(path, lines)
    if what == "another header":
        path.write_text(path.read_text().replace("\n", ",more\n"))
    with pytest.raises(SourceError, match=r"log\.csv: .*nothing was applied.*restore them and run again") as caught:
        ingest(artifact, store, path)
    place = {"fewer lines": "301 lines were applied.*there are 251", "another header": "one of 1 to 16 "}
    assert caught.match(place.get(what, "one of 145 to 160 ")) and dict(store.scan()) == before
    assert "--source NAME" not in str(caught.value)
    # Nor does a name of its own help: most of its lines would be applied twice.
    with pytest.raises(SourceError, match=r"applied already.*nothing was applied"):
        ingest(artifact, store, path, source="again")
    assert dict(store.scan()) == before
    assert ingest(artifact, store, write(path, LINES)) == Applied(applied=100, duplicates=300)


def test_a_copy_of_what_was_applied_is_not_applied_again(artifact, store, tmp_path):
    path = write(tmp_path / "log.csv", LINES[:300])
    ingest(artifact, store, path)
    assert ingest(artifact, store, write(tmp_path / "copy.csv", LINES[:300])) == Applied(duplicates=300)
    assert ingest(artifact, store, write(tmp_path / "copy.csv.gz", LINES[:300])) == Applied(duplicates=300)
    for name, lines in (
        ("grown.csv", LINES),
        ("part.csv", LINES[:200]),
        ("corrected.csv", [*LINES[:100], *LINES[200:]]),
    ):
        with pytest.raises(SourceError, match=f"applied already, as {path_source(path)}; nothing was applied"):
            ingest(artifact, store, write(tmp_path / name, lines))
    assert_holds(artifact, store, LINES[:300])
    # The copies are no sources of their own: the file itself goes on.
    assert ingest(artifact, store, write(path, LINES)) == Applied(applied=100, duplicates=300)
    assert ingest(artifact, store, write(tmp_path / "next.csv", LINES[5:10])).applied == 5


def test_a_file_that_was_moved_goes_on_under_its_name(artifact, store, tmp_path):
    path = write(tmp_path / "log.csv", LINES[:300])
    ingest(artifact, store, path)
    moved = write(tmp_path / "moved.csv", LINES)
    assert ingest(artifact, store, moved, source=path_source(path)) == Applied(applied=100, duplicates=300)
    others = [f"u9,i{k},{START + k}\n" for k in range(9)]
    shop = write(tmp_path / "shop.csv", others[:3])
    assert ingest(artifact, store, shop, source="shop").applied == 3
    assert ingest(artifact, store, write(tmp_path / "shop-2.csv", others[:5]), source="shop").applied == 2
    with pytest.raises(SourceError, match="as shop are other ones now"):
        ingest(artifact, store, write(tmp_path / "shop-3.csv", others[1:9]), source="shop")


def test_an_event_id_is_known_over_files_names_and_requests(artifact, store, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,id\n" + "".join(line.strip() + f",e{k}\n" for k, line in enumerate(LINES[:20])))
    updater = Updater(artifact, store)
    assert updater.apply([UserEvent("u3", "i3", START + 3, event_id="e3")]).applied == 1
    assert ingest(artifact, store, path, columns={"event_id": "id"}) == Applied(applied=19, duplicates=1)
    assert ingest(artifact, store, path, columns={"event_id": "id"}, source="again") == Applied(duplicates=20)
    assert updater.apply([UserEvent("u4", "i4", START + 4, event_id="e4")]).duplicates == 1


def test_what_is_no_file_is_refused(artifact, store, tmp_path):
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    for name in (None, "shop"):
        with pytest.raises(SourceError, match=r"is a pipe or device.*write its content"):
            ingest(artifact, store, path, source=name)
    with pytest.raises(SourceError, match=r"is a folder.*name the files in it"), opened(tmp_path):
        pass


# All of them in any order


def fold_shares(artifact, whole: Shards, path: Path, stops) -> bool:
    """What several processes do with a file, each for its shard, one after another; whether none was interrupted."""

    with opened(path) as file:
        return _fold_shares(artifact, whole, file, stops)


def _fold_shares(artifact, whole: Shards, file: OpenedFile, stops) -> bool:
    def reader() -> FileReader:
        return FileReader(file, artifact.config.dataset_schema, {}, size=1_000)

    found, ended, error = find_source(whole, reader, None), True, None
    task = Task(file, found.name, {}, {}, "stop", 9, found.record, found.known)
    for (number, shard), stop in zip(whole._shards.items(), stops, strict=True):
        left = [stop]

        def progress(done: int, total: int, left: list = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise InterruptedError

        share = Share((number,), len(whole._shards))
        try:
            fold_file(artifact, Shards("part", share, {number: shard}, items={}), task, share=share, progress=progress)
        except InterruptedError:
            ended = False
        except SourceError as caught:
            error = caught
    if error is not None:
        raise error
    return ended


@settings(max_examples=40, deadline=None)
@given(
    shards=st.integers(1, 3),
    ending=st.sampled_from(["csv", "csv.gz"]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["grow", "grow", "bad line behind", "change", "drop", "cut"]),
            st.integers(0, 120),
            st.lists(st.integers(0, 12), min_size=3, max_size=3),
        ),
        max_size=7,
    ),
    chance=st.randoms(use_true_random=False),
)
def test_edits_cuts_and_interruptions_in_any_order_apply_each_line_once(
    artifact, tmp_path_factory, shards, ending, steps, chance
):
    path = tmp_path_factory.mktemp("log") / f"log.{ending}"
    whole = Shards("all", Share(tuple(range(shards)), shards), {number: InMemoryStore() for number in range(shards)})
    fresh = iter(f"u{chance.randrange(9)},i{k},{START + k}\n" for k in range(10**6))
    lines: list[str] = []

    def applied() -> int:
        """Lines that a part of the store has, the header left out."""
        marks = [shard.watermark(path_source(path), 0) for shard in whole._shards.values()]
        return max(0, max(marks) - 1)

    for what, number, stops in steps:
        kept, new = lines[: applied()], [next(fresh) for _ in range(number)]
        before = [dict(shard.scan()) for shard in whole._shards.values()]
        if what in ("change", "drop"):
            if not kept:
                continue
            at = chance.randrange(len(kept))
            other = kept[:at] + [f"u1,i1,{START - 1}\n"] * (what == "change") + kept[at + 1 :] + new[: what == "change"]
            with pytest.raises(SourceError, match="nothing was applied"):
                fold_shares(artifact, whole, write(path, other), stops[:shards])
            assert [dict(shard.scan()) for shard in whole._shards.values()] == before
            continue
        lines = kept + new
        bad = [BAD] if what == "bad line behind" else []
        cut = min(12, number) if what == "cut" and ending == "csv.gz" else 0
        write(path, [*lines, *bad, *bad], cut=cut)
        try:
            fold_shares(artifact, whole, path, stops[:shards])
        except SourceError as error:
            assert bad or cut, error
    assert fold_shares(artifact, whole, write(path, lines), [0] * shards)
    assert_holds(artifact, whole, lines)
    assert ingest(artifact, whole, path) == Applied(duplicates=len(lines))


# In processes


def test_workers_go_on_behind_what_each_has_applied_and_refuse_together(artifact, tmp_path):
    pytest.importorskip("rocksdict")
    path = write(tmp_path / "log.csv", [*LINES[:200], BAD, *LINES[201:300]])
    with closing(open_store(f"rocksdb://{tmp_path}/store?shards=2")) as store:
        with pytest.raises(SourceError, match="line 202"):
            ingest(artifact, store, path, workers=2)
        assert_holds(artifact, store, LINES[:200])
        assert ingest(artifact, store, write(path, LINES), workers=2) == Applied(applied=200, duplicates=200)
        with pytest.raises(SourceError, match=r"one of 1 to [0-9]+ "):
            ingest(artifact, store, write(path, [LINES[1], *LINES[1:]]), workers=2)
        with pytest.raises(SourceError, match="were applied already"):
            ingest(artifact, store, write(tmp_path / "copy.csv", [*LINES, LINES[0]]), workers=2)
        assert_holds(artifact, store, LINES)


def test_other_delimiters_are_read_as_prepare_reads_them(artifact, tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("item;user;time\n" + "".join(f'"i,{k}";u{k % 3};{START + k}\n' for k in range(20)))
    columns = {"delimiter": ";"}
    with closing(open_store("memory://")) as store:
        assert ingest(artifact, store, path, source="shop", columns=columns).applied == 20
        assert ingest(artifact, store, path, source="shop", columns=columns).applied == 0
        assert {decode_event(event).item for event in store.events("u1")} == {f"i,{k}" for k in range(1, 20, 3)}
        # As many commas as a line of commas would have.
        path.write_text(f"item;user;time\na,b,c;u7;{START}\n")
        assert ingest(artifact, store, path, source="other", columns=columns).applied == 1
        assert [decode_event(event).item for event in store.events("u7")] == ["a,b,c"]
        for wrong in ("", '"', "\n"):
            with pytest.raises(ConfigError, match="delimiter: "):
                ingest(artifact, store, path, columns={"delimiter": wrong})
