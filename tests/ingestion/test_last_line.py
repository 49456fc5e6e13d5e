"""A last line without its end is no event, unless the user says so."""

import gzip
import json
from contextlib import closing

import pytest
from support.event_files import HEAD, START, assert_holds_once, lines_of

from lifelong.errors import SourceError, UsageError
from lifelong.online.ingestion import files
from lifelong.online.ingestion.dead_letters import FileLetters
from lifelong.online.ingestion.files import ingest
from lifelong.online.memory.updater import Applied
from lifelong.online.store.opening import open_store

LINES = lines_of(0, 12)
JSON = [json.dumps(dict(zip(("user", "item", "time"), line.strip().split(","), strict=True))) + "\n" for line in LINES]
TEXTS = {
    "csv": HEAD + "".join(LINES),
    "crlf": (HEAD + "".join(LINES)).replace("\n", "\r\n"),
    "quoted": HEAD + "".join('"' + line.replace(",", '",', 1) for line in LINES),
    "jsonl": "".join(JSON),
}


def code_of(form: str, cut: int = 0) -> bytes:
    """A file of all lines, of which some characters are not written yet."""
    text = TEXTS[form.removesuffix(".gz")].encode()
    text = text[: len(text) - cut]
    return gzip.compress(text) if form.endswith(".gz") else text


def path_of(tmp_path, form: str):
    return tmp_path / f"log.{'jsonl' if 'jsonl' in form else 'csv'}{'.gz' * form.endswith('.gz')}"


@pytest.mark.parametrize("cut", [1, 2, 3, 9, 15])
@pytest.mark.parametrize("on_bad", ["stop", "skip"])
@pytest.mark.parametrize("form", ["csv", "crlf", "quoted", "jsonl", "csv.gz", "crlf.gz", "jsonl.gz"])
def test_a_line_without_its_end_is_left_for_the_run_that_finds_it_whole(
    artifact, store, tmp_path, caplog, form, on_bad, cut
):
    path, letters = path_of(tmp_path, form), FileLetters(tmp_path / "bad.jsonl")
    path.write_bytes(code_of(form, cut))
    with closing(letters):
        first = ingest(artifact, store, path, on_bad=on_bad, dead_letters=letters)
        assert first == Applied(applied=11)
        number = 13 - ("jsonl" in form)
        assert f"line {number}: the last line has no line end yet" in caplog.text
        assert "--last-line complete" in caplog.text
        path.write_bytes(code_of(form))
        assert ingest(artifact, store, path, on_bad=on_bad, dead_letters=letters).applied == 1
    assert_holds_once(artifact, store, LINES)
    assert (tmp_path / "bad.jsonl").read_text() == ""


def test_a_compressed_part_that_ends_within_a_line_is_continued_by_the_next_part(artifact, store, tmp_path):
    path, whole = tmp_path / "log.csv.gz", code_of("csv")
    path.write_bytes(gzip.compress(whole[:100]))
    first = ingest(artifact, store, path).applied
    assert 0 < first < 12
    with path.open("ab") as file:
        file.write(gzip.compress(whole[100:]))
    assert ingest(artifact, store, path) == Applied(applied=12 - first, duplicates=first)
    assert_holds_once(artifact, store, LINES)


def test_a_quoted_cell_of_several_lines_that_is_not_finished_is_no_event(artifact, store, tmp_path):
    path, text = tmp_path / "log.csv", f'{HEAD}u1,"tea\nblack",{START}\nu1,"milk\nwhole",{START}\n'
    path.write_text(text[: text.index("whole")])
    with pytest.raises(SourceError, match=r"line 4: unexpected end of data: a quote .* is not closed, or not yet"):
        ingest(artifact, store, path, on_bad="skip")
    path.write_text(text)
    assert ingest(artifact, store, path, on_bad="skip") == Applied(applied=1, duplicates=1)


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_text_that_ends_within_a_character_is_left_too(artifact, store, tmp_path, cut):
    path, text = tmp_path / "log.csv", f"{HEAD}ada,tea,{START}\nbob,日本,{START}\n".encode()
    path.write_bytes(text[: -len(f",{START}\n") - cut])
    assert ingest(artifact, store, path) == Applied(applied=1)
    path.write_bytes(text)
    assert ingest(artifact, store, path) == Applied(applied=1, duplicates=1)


def test_a_producer_with_a_buffer_of_any_size_loses_and_doubles_nothing(artifact, tmp_path):
    whole = code_of("crlf")
    for size in (7, 16, 61):
        path = tmp_path / f"{size}.csv"
        with closing(open_store("memory://")) as store:
            path.write_bytes(whole[:40])
            for end in range(40, len(whole) + size, size):
                path.write_bytes(whole[:end])
                ingest(artifact, store, path)
            assert_holds_once(artifact, store, LINES)


def test_a_file_of_carriage_returns_keeps_its_last_line_until_it_is_called_complete(artifact, store, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(TEXTS["csv"].replace("\n", "\r"), newline="")
    assert ingest(artifact, store, path) == Applied(applied=11)
    assert ingest(artifact, store, path, last_line="complete") == Applied(applied=1, duplicates=11)
    assert_holds_once(artifact, store, LINES)


def test_a_header_without_its_end_is_said(artifact, store, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,ti")
    with pytest.raises(SourceError, match=r"line 1: the header has no line end.*run again when it is written"):
        ingest(artifact, store, path)


# A user who says that the last line is complete


@pytest.mark.parametrize("form", ["csv", "crlf", "jsonl", "csv.gz"])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_last_line_that_is_called_complete_is_taken_once(artifact, store, tmp_path, caplog, form, cut):
    if cut == 2 and form != "crlf":
        pytest.skip("the whole end is one character")
    path = path_of(tmp_path, form)
    path.write_bytes(code_of(form, cut))
    assert ingest(artifact, store, path, last_line="complete") == Applied(applied=12)
    assert ingest(artifact, store, path) == Applied(duplicates=12)
    path.write_bytes(code_of(form))
    assert ingest(artifact, store, path) == Applied(duplicates=12)
    assert "no line end" not in caplog.text
    assert_holds_once(artifact, store, LINES)


def test_a_line_without_its_end_that_is_no_event_is_never_skipped(artifact, store, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(code_of("jsonl", 5))
    with pytest.raises(SourceError, match="line 12: not JSON"):
        ingest(artifact, store, path, on_bad="skip", last_line="complete")
    path.write_bytes(code_of("jsonl"))
    assert ingest(artifact, store, path, on_bad="skip") == Applied(applied=1, duplicates=11)
    assert_holds_once(artifact, store, LINES)


def test_a_line_that_goes_on_after_it_was_called_complete_is_refused(artifact, store, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f"{HEAD}u1,i1,{START}\nu1,i11,17000")
    assert ingest(artifact, store, path, last_line="complete").applied == 2
    before = dict(store.scan())
    path.write_text(f"{HEAD}u1,i1,{START}\nu1,i11,{START + 11}\n")
    with pytest.raises(SourceError, match=r"are other ones now: one of 3 to 3 .*restore them and run again"):
        ingest(artifact, store, path)
    with pytest.raises(SourceError, match="applied already"):
        ingest(artifact, store, path, source="another")
    assert dict(store.scan()) == before


def test_another_word_for_last_line_is_refused(artifact, store, tmp_path):
    with pytest.raises(UsageError, match="last_line = 'take'"):
        ingest(artifact, store, tmp_path / "log.csv", last_line="take")


def test_workers_leave_the_last_line_and_one_of_them_says_so(artifact, tmp_path, capfd, monkeypatch):
    pytest.importorskip("rocksdict")
    monkeypatch.setattr(files, "BATCH", 5)
    path = tmp_path / "log.csv"
    path.write_bytes(code_of("csv", 1))
    with closing(open_store(f"rocksdb://{tmp_path}/store?shards=2")) as store:
        assert ingest(artifact, store, path, workers=2) == Applied(applied=11)
        assert capfd.readouterr().err.count("the last line has no line end yet") == 1
        assert ingest(artifact, store, path, workers=2, last_line="complete").applied == 1
        assert ingest(artifact, store, path, workers=2) == Applied(duplicates=12)
        assert_holds_once(artifact, store, LINES)
