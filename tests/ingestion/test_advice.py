"""What an error about a file advises is done to the letter: no event is lost, and none is applied twice."""

import gzip
import os
import re
from pathlib import Path

import pytest
from support.event_files import HEAD, START, assert_holds_once, code_of, lines_of, write

from lifelong.errors import LifelongError, SourceError, UsageError
from lifelong.online.ingestion.files import ingest
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Applied, Updater
from lifelong.online.store.contract import BACKFILL

LINES = lines_of(0, 60)
LAST = lines_of(60, 5)
WRONG = "u1,i1,soon\n"


def reordered(lines: list[str]) -> list[str]:
    return [*reversed(lines)]


EDITS = {
    "the first line": lambda lines: [f"u9,other,{START}\n", *lines[1:]],
    "a line in the middle": lambda lines: [*lines[:30], f"u9,other,{START}\n", *lines[31:]],
    "the last line": lambda lines: [*lines[:-1], f"u9,other,{START}\n"],
    "a line less": lambda lines: lines[1:],
    "a line more": lambda lines: [f"u9,other,{START}\n", *lines],
    "fewer lines": lambda lines: lines[:20],
    "the last lines alone": lambda lines: lines[40:],
    "another order": reordered,
}
RESTORE = "restore them and run again; write lines that are new into a file of their own"


def words_of(error: LifelongError) -> dict[str, str]:
    """The options of --column that an error gives."""
    return dict(word.split("=", 1) for word in re.findall(r"--column '?\"?([^'\" ]+=[^'\" ;,)]+)", error.fix))


@pytest.mark.parametrize("what", EDITS)
@pytest.mark.parametrize("form", ["as it was", "another column", "another format"])
def test_where_applied_lines_differ_no_name_is_advised_and_none_helps(artifact, store, tmp_path, what, form):
    path = write(tmp_path / "log.csv", LINES)
    ingest(artifact, store, path)
    edited = write(tmp_path / f"edited.csv{'.gz' * (form == 'another format')}", EDITS[what](LINES) + LAST)
    if form == "another column":
        edited.write_text(edited.read_text().replace("\n", ",x\n"))
    path.write_bytes(gzip.decompress(edited.read_bytes()) if edited.suffix == ".gz" else edited.read_bytes())
    with pytest.raises(SourceError) as caught:
        ingest(artifact, store, path)
    assert caught.value.fix == RESTORE
    for file in (path, edited):
        with pytest.raises(SourceError, match="applied already"):
            ingest(artifact, store, file, source="NAME")
    assert_holds_once(artifact, store, LINES)
    assert ingest(artifact, store, write(path, LINES)) == Applied(duplicates=60)
    assert ingest(artifact, store, write(tmp_path / "new.csv", LAST)) == Applied(applied=5)
    assert_holds_once(artifact, store, [*LINES, *LAST])


def test_other_events_in_place_of_applied_ones_get_a_name_after_the_older_file_is_finished(artifact, store, tmp_path):
    path, newer = write(tmp_path / "log.csv", LINES), lines_of(500, 9)
    ingest(artifact, store, path)
    write(tmp_path / "older.csv", [*LINES, *LAST])
    with pytest.raises(SourceError) as caught:
        ingest(artifact, store, write(path, newer))
    (known,) = re.findall("continue it first with --source '([^']+)'; then .*: --source NAME$", caught.value.fix)
    assert ingest(artifact, store, tmp_path / "older.csv", source=known) == Applied(applied=5, duplicates=60)
    assert ingest(artifact, store, path, source="NAME") == Applied(applied=9)
    assert_holds_once(artifact, store, [*LINES, *LAST, *newer])


@pytest.mark.parametrize("named", [None, "NAME"])
def test_a_copy_that_grew_is_continued_under_the_name_that_the_error_gives(artifact, store, tmp_path, named):
    ingest(artifact, store, write(tmp_path / "log.csv", LINES))
    copy = write(tmp_path / "copy.csv.gz", [*LINES, *LAST])
    with pytest.raises(SourceError) as caught:
        ingest(artifact, store, copy, source=named)
    (known,) = re.findall("continue it with --source '([^']+)'; else write lines", caught.value.fix)
    assert ingest(artifact, store, copy, source=known) == Applied(applied=5, duplicates=60)
    assert_holds_once(artifact, store, [*LINES, *LAST])


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_bad_line_is_fixed_in_the_same_file(artifact, store, tmp_path, ending):
    path = write(tmp_path / f"log.{ending}", [*LINES[:30], WRONG, *LINES[31:]])
    with pytest.raises(SourceError) as caught:
        ingest(artifact, store, path)
    assert caught.value.fix.startswith("fix the line and run again with the same file") and not words_of(caught.value)
    assert ingest(artifact, store, write(path, LINES)) == Applied(applied=30, duplicates=30)
    assert_holds_once(artifact, store, LINES)


def test_a_file_of_milliseconds_is_read_with_the_words_of_the_error(artifact, store, tmp_path):
    path = write(tmp_path / "log.csv", [line.replace("\n", "000\n") for line in LINES])
    with pytest.raises(SourceError) as caught:
        ingest(artifact, store, path)
    assert words_of(caught.value) == {"time_unit": "ms"}
    ingest(artifact, store, path, columns=words_of(caught.value))
    assert_holds_once(artifact, store, LINES)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"user": "customer"}, {"user": "client"}),
        ({"user": "customer", "event_type": "client"}, {"user": "customer"}),
        ({"user": "customer"}, {"user": "customer", "event_id": "client"}),
        ({"user": "customer", "event_id": "client"}, {"user": "customer"}),
        ({"user": "customer"}, {"user": "customer", "time_unit": "ms"}),
    ],
)
@pytest.mark.parametrize("copy", [False, True])
def test_another_mapping_than_that_of_the_applied_lines_is_refused(artifact, store, tmp_path, first, then, copy):
    def make(number: int, name: str = "log.csv") -> Path:
        rows = [f"u{k},c{k},i{k},{START + k}\n" for k in range(number)]
        path = tmp_path / name
        path.write_text("customer,client,item,time\n" + "".join(rows))
        return path

    ingest(artifact, store, make(5), columns=first)
    path = make(5, "copy.csv") if copy else make(9)
    with pytest.raises(UsageError, match=r"with another mapping than .*; nothing was applied") as caught:
        ingest(artifact, store, path, columns=then)
    unsaid = set(re.findall(r"say nothing of (\w+)", caught.value.fix))
    again = {name: value for name, value in {**then, **words_of(caught.value)}.items() if name not in unsaid}
    assert ingest(artifact, store, path, columns=again).applied == (0 if copy else 4)
    assert_holds_once(artifact, store, [f"u{k},i{k},{START + k}\n" for k in range(5 if copy else 9)])


def test_a_file_of_which_all_lines_were_left_out_is_read_again_with_the_right_mapping(artifact, store, tmp_path):
    path = write(tmp_path / "log.csv", [line.replace("\n", "000\n") for line in LINES])
    assert ingest(artifact, store, path, on_bad="skip") == Applied(bad=60)
    with pytest.raises(UsageError, match=r"with another mapping than time_unit=ms.*no event of it.*--source NAME"):
        ingest(artifact, store, path, columns={"time_unit": "ms"})
    ingest(artifact, store, path, columns={"time_unit": "ms"}, source="NAME")
    assert_holds_once(artifact, store, LINES)


def test_bytes_that_are_not_utf_8_are_saved_as_utf_8(artifact, store, tmp_path):
    path, lines = tmp_path / "log.csv", [*LINES[:40], f"u9,thé,{START}\n", *LINES[40:]]
    path.write_bytes((HEAD + "".join(lines)).encode("latin-1"))
    with pytest.raises(SourceError, match="save it as UTF-8"):
        ingest(artifact, store, path)
    path.write_text(path.read_text("latin-1"), "utf-8")
    ingest(artifact, store, path)
    assert_holds_once(artifact, store, lines)


def test_a_file_that_is_not_compressed_is_named_so_or_compressed(artifact, store, tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_text(HEAD + "".join(LINES))
    with pytest.raises(SourceError, match=r"leave \.gz out of its name, or compress it"):
        ingest(artifact, store, path)
    ingest(artifact, store, path.rename(tmp_path / "log.csv"))
    path.write_bytes(code_of(path, LINES))
    assert ingest(artifact, store, path) == Applied(duplicates=60)
    assert_holds_once(artifact, store, LINES)


def test_what_follows_a_compressed_text_is_fixed_in_the_same_file(artifact, store, tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(code_of(path, LINES) + b"no gzip")
    with pytest.raises(SourceError, match="fix the line and run again"):
        ingest(artifact, store, path)
    write(path, [*LINES, *LAST])
    ingest(artifact, store, path)
    assert_holds_once(artifact, store, [*LINES, *LAST])


@pytest.mark.parametrize("name", [BACKFILL, "shop"])
def test_a_name_that_is_taken_is_changed(artifact, store, tmp_path, name):
    Updater(artifact, store).apply([UserEvent("u9", "i", START)], source="shop", offsets=[400])
    with pytest.raises(UsageError, match="choose another name with --source"):
        ingest(artifact, store, write(tmp_path / "log.csv", LINES), source=name)
    ingest(artifact, store, tmp_path / "log.csv", source="another")
    assert_holds_once(artifact, store, [*LINES, f"u9,i,{START}\n"])


def test_several_files_under_one_name_are_given_one_by_one(artifact, store, tmp_path):
    one, two = write(tmp_path / "a.csv", LINES), write(tmp_path / "b.csv", LAST)
    ingest(artifact, store, one, source="shop")
    with pytest.raises(UsageError, match="give the files one by one, each with a name of its own"):
        ingest(artifact, store, [one, two], source="shop")
    ingest(artifact, store, one, source="shop")
    ingest(artifact, store, two, source="NAME")
    assert_holds_once(artifact, store, [*LINES, *LAST])


def test_a_column_with_another_name_is_named_in_the_words_of_the_error(artifact, store, tmp_path):
    path = write(tmp_path / "log.csv", LINES)
    path.write_text(path.read_text().replace("user", "who", 1))
    with pytest.raises(SourceError) as caught:
        ingest(artifact, store, path)
    assert words_of(caught.value) == {"user": "NAME"}
    ingest(artifact, store, path, columns={"user": "who"})
    assert_holds_once(artifact, store, LINES)


def test_a_pipe_is_written_into_a_file(artifact, store, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SourceError, match="write its content into a file"):
        ingest(artifact, store, tmp_path / "pipe.csv")
    ingest(artifact, store, write(tmp_path / "log.csv", LINES))
    assert_holds_once(artifact, store, LINES)


def test_events_with_ids_may_come_again_under_another_name(artifact, store, tmp_path):
    def make(name: str, first: int, end: int) -> Path:
        rows = [line.strip() + f",e{first + k}\n" for k, line in enumerate(LINES[first:end])]
        (tmp_path / name).write_text("user,item,time,id\n" + "".join(rows))
        return tmp_path / name

    columns = {"event_id": "id"}
    ingest(artifact, store, make("a.csv", 0, 40), columns=columns)
    assert ingest(artifact, store, make("b.csv", 30, 60), columns=columns) == Applied(applied=20, duplicates=10)
    assert ingest(artifact, store, make("c.csv", 10, 60), columns=columns, source="c") == Applied(duplicates=50)
    assert_holds_once(artifact, store, LINES)
