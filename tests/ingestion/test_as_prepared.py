"""What `prepare` makes events of, `ingest` makes the same events of, by the mapping that the artifact keeps."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb", reason="prepare is of the train extra")
import pyarrow as pa
import pyarrow.parquet as pq
from support.artifacts import tiny_artifact

from lifelong import Scorer, backfill, ingest, open_store, prepare
from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.errors import ConfigError, LifelongError, MissingExtraError, SourceError
from lifelong.online.memory.event import decode_event
from lifelong.online.memory.updater import Applied
from lifelong.online.memory.verify import verify

pytestmark = pytest.mark.full
NAMES = {"user": "Kunde", "item": "Artikel", "time": "Zeit"}
ISO = {**NAMES, "time_unit": "iso"}
HEAD = "Kunde;Artikel;Zeit\n"
ROWS = "".join(f"Jürgen;Öl {k % 3};{1_600_000_000 + 9 * k}\nÅsa;Käse, jung;{1_600_000_003 + 9 * k}\n" for k in range(6))
DAYS = "".join(f"ann;tea;2020-0{k}-01T18:00:00+01:00\nbob;salt;2020-0{k}-03 07:30:00.9\n" for k in range(1, 8))
TYPED = "".join(f"ann;tea;{k}00;kauf;1,50\nann;tea;{k}01;storno;1,50\nbob;salt;{k}02;kauf;2,00\n" for k in range(1, 7))
LABELLED = "".join(f"ann;tea;{k}00;1;0\nann;salt;{k}01;0;0\nbob;salt;{k}02;0;1\n" for k in range(1, 7))
KEPT = "SELECT * FROM log WHERE Art IN ('kauf', 'b', 'c', 'd', 'e', 'f', 'g')"
MADE = "SELECT Kunde, upper(Artikel) AS Artikel, 60 * CAST(replace(Zeit, ',', '.') AS DOUBLE) AS Zeit FROM log;"

MESSY: dict[str, tuple[bytes, dict[str, Any]]] = {
    "semicolons": ((HEAD + ROWS).encode(), {**NAMES, "delimiter": ";"}),
    "tabs": ((HEAD + ROWS).replace(";", "\t").encode(), {**NAMES, "delimiter": "tab"}),
    "two characters between values": ((HEAD + ROWS).replace(";", "::").encode(), {**NAMES, "delimiter": "::"}),
    "latin-1": ((HEAD + ROWS).encode("latin-1"), {**NAMES, "delimiter": ";", "encoding": "latin-1"}),
    "UTF-8 with a mark": (b"\xef\xbb\xbf" + (HEAD + ROWS).encode(), {**NAMES, "delimiter": ";"}),
    "latin-1 after a mark of UTF-8": (
        b"\xef\xbb\xbf" + (HEAD + ROWS).encode("latin-1"),
        {**NAMES, "delimiter": ";", "encoding": "latin-1"},
    ),
    "CRLF": ((HEAD + ROWS).replace("\n", "\r\n").encode(), {**NAMES, "delimiter": ";"}),
    "no header": (ROWS.encode(), {**NAMES, "delimiter": ";", "header": False, "columns": list(NAMES.values())}),
    "decimal commas in a made column": (
        (HEAD + "".join(f"ann;tea;{k},5\nbob;salt;{k},75\n" for k in range(1, 9))).encode(),
        {**NAMES, "delimiter": ";", "query": MADE},
    ),
    "cancellations that a query leaves out": (
        ("Kunde;Artikel;Zeit;Art;Preis\n" + TYPED).encode(),
        {**NAMES, "delimiter": ";", "query": KEPT, "event_type": "Art", "fields": {"price": "Preis"}},
    ),
    "empty users and wrong times, to be skipped": (
        (HEAD + ROWS + ";Salz;1600000900\nann;;1600000901\nann;Salz;bald\nann;Salz;1600000902.5\n").encode(),
        {**NAMES, "delimiter": ";", "skip_invalid": True},
    ),
    "ISO times with a zone": ((HEAD + DAYS).encode(), {**ISO, "delimiter": ";"}),
    "the day first": (
        (
            HEAD + "".join(f"ann;tea;{k:02}/01/2020 18:00\nbob;salt;{k:02}/01/2020 19:30\n" for k in range(1, 9))
        ).encode(),
        {**NAMES, "delimiter": ";", "time_format": "%d/%m/%Y %H:%M"},
    ),
    "quoted delimiters and line ends": (
        (HEAD + "".join(f'"ann ""a""";"tea;\ngreen";{k}\n"bob";salt;{k}\n\n' for k in range(1, 9))).encode(),
        {**NAMES, "delimiter": ";"},
    ),
    "quotes that mean nothing": (
        (HEAD + "".join(f'ann "a;tea;{k}\nbob;"salt;{k}\n' for k in range(1, 9))).encode(),
        {**NAMES, "delimiter": ";", "quoted": False},
    ),
    "more columns in another order": (
        (" Zeit ;x; Artikel ; Kunde \n" + "".join(f"{k};;tea;ann\n{k};;salt;bob\n" for k in range(1, 9))).encode(),
        {**NAMES, "delimiter": ";"},
    ),
    "impressions of which those with a label are events": (
        ("Kunde;Artikel;Zeit;Klick;Kauf\n" + LABELLED).encode(),
        {**NAMES, "delimiter": ";", "labels": ["Klick", "Kauf"]},
    ),
    "missing values of a field": (
        ("Kunde;Artikel;Zeit;Art;Preis\n" + TYPED.replace("1,50", "NULL")).encode(),
        {**NAMES, "delimiter": ";", "fields": {"price": "Preis"}, "missing": ["", "NULL"]},
    ),
}
"""What is odd -> the bytes of the file, and its mapping."""


def prepared(folder: Path, log: Any, mapping: dict[str, Any]) -> tuple[Artifact, Dataset]:
    """An artifact of a dataset of a log."""
    dataset = prepare(log, out=folder / "data", min_count=1, **mapping)
    return tiny_artifact(folder / "artifact", dataset), dataset


def logged(store: Any) -> dict[str, list[tuple[str, int, str | None]]]:
    """User -> her events, of a store with a log."""

    def events(user: str) -> Iterator[tuple[str, int, str | None]]:
        for event in map(decode_event, store.events(user)):
            yield event.item, event.time, event.event_type

    return {user: list(events(user)) for user, _ in store.scan()}


@pytest.mark.parametrize("kind", MESSY)
def test_a_file_that_was_prepared_gives_the_memories_of_its_dataset(kind: str, tmp_path: Path, store: Any) -> None:
    code, mapping = MESSY[kind]
    path = tmp_path / "log.csv"
    path.write_bytes(code)
    artifact, dataset = prepared(tmp_path, path, mapping)
    applied = ingest(Artifact.open(tmp_path / "artifact"), store, path)
    filled = open_store("memory://")
    backfill(artifact, dataset, filled, event_log=True)
    assert logged(store) == logged(filled)
    assert applied.applied == dataset.histories.num_events > 10
    assert verify(artifact, dataset, store).equal
    assert verify(artifact, None, store).equal
    assert ingest(artifact, store, path).applied == 0


JSON_LINES = "".join(
    f'{{"Zeit": {k}00.5, "Kunde": "ann", "Artikel": "tea", "Art": "kauf", "Preis": 1.50}}\n\n'
    f'{{"Artikel": 7, "Kunde": "bob", "Zeit": "{k}01", "Art": "b", "ja": true}}\n'
    f'{{"Art": "c", "Preis": null, "Zeit": {k}02, "Artikel": "salt", "Kunde": 5, "ja": false}}\n'
    for k in range(1, 8)
)


@pytest.mark.parametrize(
    ("mapping", "events"),
    [({"event_type": "Art", "fields": {"price": "Preis"}}, 21), ({"labels": ["ja"], "history": "unlabelled"}, 7)],
)
def test_json_lines_with_keys_in_any_order_are_the_same_events_for_both(mapping, events, tmp_path, store) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(JSON_LINES)
    artifact, dataset = prepared(tmp_path, path, {**NAMES, **mapping})
    assert ingest(artifact, store, path).applied == dataset.histories.num_events == events
    filled = open_store("memory://")
    backfill(artifact, dataset, filled, event_log=True)
    assert logged(store) == logged(filled)
    assert verify(artifact, dataset, store).equal


def test_a_line_of_json_without_its_label_is_named_and_not_a_fault_of_the_reader(artifact, store, tmp_path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"user": "ann", "item": "tea", "time": 5}\n')
    with pytest.raises(LifelongError, match=r"line 1, column ja.*None is not a number"):
        ingest(artifact, store, path, mapping={"labels": ["ja"]})


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "an empty user": (HEAD + ROWS + ";tea;5\n", {}, "log.csv, line 14, column Kunde"),
    "a wrong time": (HEAD + "ann;tea;soon\n", {}, "log.csv, line 2, column Zeit"),
    "milliseconds": (HEAD + "ann;tea;1600000000000\n", {}, "log.csv, line 2, column Zeit"),
    "a value too many": (HEAD + "ann;tea;5;6\n", {"skip_invalid": True}, "log.csv, line 2"),
    "an open quote": (HEAD + 'ann;"tea;5\n', {}, "log.csv, line 2"),
    "another column": ("Kundin;Artikel;Zeit\nann;tea;5\n", {}, "log.csv, line 1.*Kunde"),
    "a column twice": ("Kunde;Artikel;Zeit;Zeit\nann;tea;5;6\n", {}, "log.csv, line 1.*Zeit"),
    "no type": ("Kunde;Artikel;Zeit;Art\nann;tea;5;\n", {"event_type": "Art"}, "log.csv, line 2, column Art"),
    "a label that is no number": ("Kunde;Artikel;Zeit;ja\nann;tea;5;x\n", {"labels": ["ja"]}, "'x' is not a number"),
    "a query that cannot run": (HEAD + ROWS, {"query": "SELECT Menge FROM log"}, 'query: .*"Menge" not found'),
    "a query without a column": (
        HEAD + ROWS,
        {"query": "SELECT Kunde, Zeit FROM log"},
        "query gives no column Artikel",
    ),
}
"""Text of a file, its mapping, and what both say."""


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_in_a_file_is_an_error_about_the_same_place_for_both(
    kind: str, tmp_path: Path, artifact: Artifact, store: Any
) -> None:
    text, mapping, found = MISTAKES[kind]
    path = tmp_path / "log.csv"
    path.write_text(text)
    settings = {**NAMES, "delimiter": ";", **mapping}
    with pytest.raises(LifelongError, match=found):
        prepare(path, out=tmp_path / "data", min_count=1, **settings)
    with pytest.raises(LifelongError, match=found):
        ingest(artifact, store, path, mapping=settings)


def bought(first: int, number: int) -> str:
    """Lines of which every other one is a cancellation."""
    kinds = ("kauf", "storno")
    return "".join(f"u{k % 5};i{k};{1_600_000_000 + k};{kinds[k % 2]}\n" for k in range(first, first + number))


BUYING = {**NAMES, "delimiter": ";", "query": "SELECT Kunde, Artikel, Zeit FROM log WHERE Art <> 'storno'"}
HEAD_OF_TYPES = "Kunde;Artikel;Zeit;Art\n"


def test_lines_that_a_query_leaves_out_are_passed_and_a_file_that_grew_goes_on(artifact, store, tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD_OF_TYPES + bought(0, 11))
    assert ingest(artifact, store, path, mapping=BUYING) == Applied(applied=6)
    path.write_text(HEAD_OF_TYPES + bought(0, 11) + "u1;i1;1600000100;storno\n")
    assert ingest(artifact, store, path, mapping=BUYING) == Applied(duplicates=6)
    path.write_text(HEAD_OF_TYPES + bought(0, 11) + "u1;i1;1600000100;storno\n" + bought(12, 4))
    assert ingest(artifact, store, path, mapping=BUYING) == Applied(applied=2, duplicates=6)
    assert sum(map(len, logged(store).values())) == 8


def test_several_processes_leave_out_the_same_lines(artifact, store, tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD_OF_TYPES + bought(0, 60))
    with closing(open_store(f"rocksdb://{tmp_path}/store?shards=2")) as shards:
        assert ingest(artifact, shards, path, mapping=BUYING, workers=2).applied == 30
        assert ingest(artifact, store, path, mapping=BUYING).applied == 30
        assert logged(shards) == logged(store)


@pytest.mark.parametrize("query", [None, "SELECT * FROM log WHERE shop <> '7'"])
def test_folders_that_name_columns_are_read_as_columns(query: str | None, tmp_path: Path, store: Any) -> None:
    folders = "user=ann/shop=7", "user=ann/shop=8", "user=bob/shop=007", "user=bob/shop=Z%C3%BCrich"
    for place, folder in enumerate(folders):
        # Of an item that the rows name themselves.
        path = tmp_path / "log" / folder / "item=none" / "rows.parquet"
        path.parent.mkdir(parents=True)
        items, times = [f"i{place}{k % 3}" for k in range(8)], [100 * place + k for k in range(8)]
        pq.write_table(pa.table({"item": items, "time": times}), path)
    log, mapping = f"{tmp_path}/log/*/*/*/*.parquet", {"fields": {"shop": "shop"}}
    artifact, dataset = prepared(tmp_path, log, mapping | ({"query": query} if query else {}))
    applied = ingest(artifact, store, log)
    assert applied.applied == dataset.histories.num_events == (24 if query else 32)
    assert logged(store).keys() == {"ann", "bob"}
    shop = dataset.vocabularies["shop"]
    shops = {shop.value_of(number) for number in range(shop.size)} - {None}
    assert shops == {"8", "007", "Zürich"} | (set() if query else {"7"})
    assert verify(artifact, dataset, store).equal


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_query_is_run_on_other_formats_as_prepare_runs_it(form: str, tmp_path: Path, store: Any) -> None:
    path, rows = tmp_path / f"log.{form}", [line.split(";") for line in bought(0, 40).splitlines()]
    if form == "jsonl":
        path.write_text("".join(json.dumps({"who": row[0], "rest": row[1:]}) + "\n" for row in rows))
        user, rest = "json->>'who' AS \"user\"", [f"json->'rest'->>{place} AS " for place in range(2)]
        query = f"SELECT {user}, {rest[0]}item, {rest[1]}time FROM log WHERE json->'rest'->>2 = 'kauf'"
    else:
        moments = [datetime.fromtimestamp(int(row[2]), tz=timezone(timedelta(hours=2))) for row in rows]
        columns = {name: [row[place] for row in rows] for place, name in ((0, "who"), (1, "item"), (3, "kind"))}
        pq.write_table(pa.table({**columns, "sold": moments}), path)
        query = "SELECT who AS \"user\", item, sold - INTERVAL 1 DAY AS time FROM log WHERE kind = 'kauf'"
    artifact, dataset = prepared(tmp_path, path, {"query": query})
    assert ingest(artifact, store, path).applied == 20
    assert verify(artifact, dataset, store).equal


@pytest.mark.parametrize(
    "query",
    [
        "SELECT DISTINCT * FROM log",
        "SELECT Kunde, Artikel, max(Zeit) AS Zeit FROM log GROUP BY ALL",
        "SELECT *, row_number() OVER () AS place FROM log",
        "SELECT a.* FROM log AS a JOIN log AS b USING (Kunde)",
        "FROM log LIMIT 2",
    ],
)
def test_a_query_of_several_rows_is_refused_before_anything_is_applied(query, artifact, store, tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD_OF_TYPES + bought(0, 9))
    with pytest.raises(ConfigError, match=r"needs several rows of the log at once.*--mapping that has no query"):
        ingest(artifact, store, path, mapping={**BUYING, "query": query})
    assert not logged(store)


def test_another_mapping_takes_the_place_of_the_one_that_the_artifact_keeps(tmp_path: Path, store: Any) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD_OF_TYPES + bought(0, 40))
    artifact, _ = prepared(tmp_path, path, BUYING)
    plain = tmp_path / "plain.csv"
    plain.write_text("user,item,time\nu1,i1,1600000200\n")
    with pytest.raises(ConfigError, match=r'query: .*"Art" not found.*another form need a --mapping'):
        ingest(artifact, store, plain)
    assert ingest(artifact, store, plain, mapping={}) == Applied(applied=1)
    cancelled = pa.table({"Kunde": ["u1"], "Artikel": ["i1"], "Zeit": [5], "Art": ["storno"]})
    assert ingest(artifact, store, cancelled) == Applied()


def test_where_no_line_is_a_row_the_line_is_named_and_not_the_query(tmp_path, artifact, store) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD_OF_TYPES + "u1;i1\n")
    with pytest.raises(SourceError, match=r"log\.csv, line 2: not as many columns as the header"):
        ingest(artifact, store, path, mapping=BUYING)
    assert ingest(artifact, store, path, mapping=BUYING, on_bad="skip").bad == 1


def test_a_query_needs_duckdb_and_the_error_says_how_to_get_it(artifact, store, tmp_path, monkeypatch) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD_OF_TYPES + bought(0, 9))
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"a mapping with a query.*pip install 'lifelong\[train\]'"):
        ingest(artifact, store, path, mapping=BUYING)
    assert ingest(artifact, store, path, mapping={**BUYING, "query": None}).applied == 9


def test_a_file_of_requests_is_read_as_the_log_was_and_another_mapping_takes_its_place(tmp_path, store) -> None:
    path, requests = tmp_path / "log.csv", tmp_path / "requests.csv"
    mapping = {**NAMES, "delimiter": ";", "encoding": "latin-1", "time_format": "%d.%m.%Y"}
    path.write_text(HEAD + "".join(f"Jürgen;Öl;0{k}.01.2020\nÅsa;tea;0{k}.02.2020\n" for k in range(1, 9)), "latin-1")
    artifact, _ = prepared(tmp_path, path, mapping)
    ingest(artifact, store, path)
    # As a spreadsheet's file that was converted: the mark of UTF-8 is still there.
    requests.write_bytes(b"\xef\xbb\xbf" + f"{HEAD}Jürgen;Öl;09.03.2020\nÅsa;Öl;\n".encode("latin-1"))
    scorer = Scorer(artifact, store)
    found = scorer.score_table(requests).to_pylist()
    known = [(row["user"], row["item"], row["known_user"]) for row in found]
    assert known == [("Jürgen", "Öl", True), ("Åsa", "Öl", True)]
    assert found[0]["score"] == pytest.approx(scorer.score("Jürgen", ["Öl"], time=1_583_712_000)[0].score)
    requests.write_text("user,item,time\nJürgen,Öl,1583712000\n")
    again = scorer.score_table(requests, mapping={})
    assert again.to_pylist() == scorer.score_table(requests).to_pylist() == found[:1]
    chosen = scorer.score_table(again.to_pandas()[["user", "item"]], mapping={"query": "FROM log WHERE item <> 'Öl'"})
    assert chosen.num_rows == 0


@pytest.mark.parametrize("ending", ["csv", "parquet", "table"])
def test_requests_by_their_own_names_are_not_asked_the_query_of_the_log(tmp_path, store, ending) -> None:
    path, requests = tmp_path / "log.csv", tmp_path / f"requests.{ending}"
    path.write_text(HEAD_OF_TYPES + bought(0, 40))
    artifact, _ = prepared(tmp_path, path, BUYING)
    ingest(artifact, store, path)
    table = pa.table({"user": ["u1", "u2"], "item": ["i1", "i1"]})
    if ending == "csv":
        requests.write_text("user,item\nu1,i1\nu2,i1\n")
    elif ending == "parquet":
        pq.write_table(table, requests)
    found = Scorer(artifact, store).score_table(table if ending == "table" else requests)
    assert found.column("item").to_pylist() == ["i1", "i1"] and found.column("user").to_pylist() == ["u1", "u2"]


def test_events_without_a_field_of_the_mapping_are_taken_and_the_field_is_named(
    artifact, store, tmp_path, caplog
) -> None:
    (tmp_path / "log.csv").write_text(HEAD + ROWS)
    settings = {**NAMES, "delimiter": ";", "fields": {"category": "Gruppe"}}
    assert ingest(artifact, store, tmp_path / "log.csv", mapping=settings).applied == 12
    assert "has no column 'Gruppe', which the mapping names" in caplog.text
