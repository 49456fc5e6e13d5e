"""The engine Spark gives the same dataset as DuckDB, byte for byte; one session for all tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")
pytest.importorskip("pyspark", reason="the extra spark is not installed")
if shutil.which("java") is None:
    pytest.skip("Java is not installed", allow_module_level=True)

import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.errors import LifelongError, MissingExtraError, SourceError, UsageError
from lifelong.preparation import spark
from lifelong.preparation.engine import batches, open_engine
from lifelong.preparation.prepare import PrepareSettings, prepare

pytestmark = [
    pytest.mark.slow,
    # Of libraries between us and Spark.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:pyspark"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

START = 1_511_600_000


# Compiling code takes longer than interpreting it, on a few rows.
DEFAULTS = """
spark.sql.codegen.wholeStage false
spark.sql.codegen.factoryMode NO_CODEGEN
spark.driver.extraJavaOptions -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Started as `prepare` starts one, with the settings of a user's own `spark-defaults.conf`."""
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    (folder / "spark-defaults.conf").write_text(DEFAULTS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SPARK_CONF_DIR", str(folder))
        started = spark._start(SparkSession, folder, None, "600MB", 1)
    assert started.conf.get("spark.sql.codegen.wholeStage") == "false"
    yield started
    started.stop()


@pytest.fixture
def connection(session: Any, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "work").mkdir()
    with open_engine("spark", tmp_path / "work", memory_limit="600MB", threads=1) as opened:
        yield opened


# A log of each kind, with ties, rows out of order, equal rows, ids whose order is by bytes, and missing values.

RNG = np.random.default_rng(7)
USERS = ["b", "a", "B", "é", "z" * 30, "10", "9", "ü"]
ITEMS = ["i9", "i10", "I1", "ñ", "x y", "q", "00", "0"]
ROWS = [
    (USERS[RNG.integers(8)], ITEMS[int(RNG.integers(8) * RNG.random())], START + int(RNG.integers(40)) * 9000)
    for _ in range(160)
]


def taobao(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    lines = [
        f"{USERS.index(user)},{ITEMS.index(item)},{ITEMS.index(item) % 3},{('pv', 'buy', 'cart')[at % 3]},{time}"
        for at, (user, item, time) in enumerate(ROWS)
    ]
    paths = [folder / "one.csv", folder / "two.csv"]
    paths[0].write_text("\n".join(lines[:70]) + "\n")
    paths[1].write_text("\n".join(lines[70:]) + "\n5,5")
    return "taobao", paths, {"options": {"targets": "buy,cart"}}


def text(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    """Quoted csv with ISO times, and a file of items."""
    (folder / "log.csv").write_text(
        'who,what,"when"\n' + "".join(f'"{user}",{item},{np.datetime64(time, "s")}Z\n' for user, item, time in ROWS)
    )
    items = "".join(f"{item};{'' if at == 2 else at % 4};k{at % 2}\n" for at, item in enumerate(ITEMS[:-1]))
    (folder / "items.csv").write_text("id;kind;brand\n" + items + "q;9;k9\n")
    mapping = {
        "user": "who",
        "item": "what",
        "time": "when",
        "time_unit": "iso",
        "items": {"files": ["items.csv"], "item": "id", "fields": ["kind", "brand"], "delimiter": ";"},
    }
    return "table", [folder / "log.csv"], {"mapping": write_mapping(folder, mapping)}


def skipped(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    """Rows without user, item or time, and with wrong times, which are skipped."""
    broken = ",i9,5\na,,6\na,i9,\na,i9,noon\na,i9,9e30\na,i9,1e400\n"
    good = "".join(f"{user},{item},{time}.9\n" for user, item, time in ROWS)
    (folder / "log.csv").write_text("who,what,when\n" + broken + good)
    mapping = {"user": "who", "item": "what", "time": "when", "skip_invalid": True}
    return "table", [folder / "log.csv"], {"mapping": write_mapping(folder, mapping)}


def layout(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    """Times in a layout of their own, without leading zeros."""
    moments = (np.datetime64(time, "s").item() for _, _, time in ROWS)
    times = [f"{moment.day}.{moment.month}.{moment.year} um {moment.hour}:{moment.minute:02}" for moment in moments]
    (folder / "log.csv").write_text(
        "who,what,when\n" + "".join(f"{row[0]},{row[1]},{time}\n" for row, time in zip(ROWS, times, strict=True))
    )
    mapping = {"user": "who", "item": "what", "time": "when", "time_format": "%d.%m.%Y um %H:%M"}
    return "table", [folder / "log.csv"], {"mapping": write_mapping(folder, mapping)}


def parquet(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    """Two files with microseconds, labels, event types; the fields stand in every row and change."""
    table = pa.table(
        {
            "who": [user for user, _, _ in ROWS],
            "what": pa.array([ITEMS.index(item) for _, item, _ in ROWS], pa.int32()),
            "when": pa.array([time * 1_000_000 + 999_999 for _, _, time in ROWS], pa.timestamp("us")),
            "what kind": [("view", "buy", None)[at % 3] or "view" for at in range(len(ROWS))],
            "shelf": pa.array([None if at % 5 == 0 else at % 4 for at in range(len(ROWS))], pa.int64()),
            "clicked": [float(at % 2) for at in range(len(ROWS))],
        }
    )
    paths = [folder / "one [1].parquet", folder / "two.parquet"]
    pq.write_table(table.slice(0, 50), paths[0], row_group_size=20)
    pq.write_table(table.slice(50), paths[1])
    mapping = {
        "user": "who",
        "item": "what",
        "time": "when",
        "event_type": "what kind",
        "labels": ["clicked"],
        "history": "all",
        "fields": {"shelf": "shelf"},
    }
    return "table", paths, {"mapping": write_mapping(folder, mapping)}


def completejourney(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    bought = pa.table(
        {
            "household_id": [user for user, _, _ in ROWS],
            "product_id": [item for _, item, _ in ROWS],
            "quantity": [float(at % 4) for at in range(len(ROWS))],
            "transaction_timestamp": pa.array([time * 1_000_000 for _, _, time in ROWS], pa.timestamp("us")),
        }
    )
    names = ("product_type", "product_category", "department", "manufacturer_id", "brand", "package_size")
    products = pa.table(
        {"product_id": ITEMS}
        | {name: [None if at == place else f"{name} {at % 3}" for at in range(8)] for place, name in enumerate(names)}
    )
    paths = [folder / "transactions.parquet", folder / "products.parquet"]
    for path, table in zip(paths, (bought, products), strict=True):
        pq.write_table(table, path)
    return "completejourney", paths, {"options": {"zero_quantity": "drop"}}


def amazon(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    reviews = [
        {"reviewerID": user, "asin": item, "overall": float(at % 5 + 1), "unixReviewTime": time // 86400 * 86400}
        for at, (user, item, time) in enumerate(ROWS)
    ]
    (folder / "reviews.json").write_text("".join(json.dumps(row) + "\n" for row in reviews))
    meta = [{"asin": item, "categories": [["Books", f"c{at % 3}"]]} for at, item in enumerate(ITEMS)]
    (folder / "meta.json").write_text("".join(repr(row) + "\n" for row in [*meta, {"asin": "q", "brand": "B"}]))
    return (
        "amazon",
        [folder / "reviews.json", folder / "meta.json"],
        {"options": {"threshold": "3"}},
    )


def movielens(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    lines = [f"{user},{item},{at % 5}.5,{time}" for at, (user, item, time) in enumerate(ROWS)]
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines) + "\n")
    films = [f'{item},"A film, or {at}",Drama|Comedy' for at, item in enumerate(ITEMS)]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "\n".join(films) + "\n")
    return "movielens", [folder / "ratings.csv", folder / "movies.csv"], {}


def taobao_ad(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    log = [f"{user},{time},pv,{at % 3},{at % 4}" for at, (user, _, time) in enumerate(ROWS)]
    (folder / "log.csv").write_text("user,time_stamp,btag,cate,brand\n" + "\n".join(log) + "\n")
    shown = [f"{user},{time},{ITEMS.index(item)},0,{1 - at % 2},{at % 2}" for at, (user, item, time) in enumerate(ROWS)]
    (folder / "shown.csv").write_text("user,time_stamp,adgroup_id,pid,nonclk,clk\n" + "\n".join(shown) + "\n")
    ads = [f"{at},{at % 3},{at},{at % 2},{'NULL' if at == 3 else at % 4},1.0" for at in range(7)]
    (folder / "ads.csv").write_text("adgroup_id,cate_id,campaign_id,customer,brand,price\n" + "\n".join(ads) + "\n")
    return "taobao_ad", [folder / "log.csv", folder / "shown.csv", folder / "ads.csv"], {}


def recbole(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    lines = "".join(f"{user}\t{item}\t{time}.5\n" for user, item, time in ROWS)
    (folder / "log.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + lines)
    items = "".join(f"{item}\tk{at % 3}\n" for at, item in enumerate(ITEMS))
    (folder / "log.item").write_text("item_id:token\tgenre:token_seq\n" + items)
    return "recbole", [folder / "log.inter", folder / "log.item"], {}


def metarank(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for at, item in enumerate(ITEMS):
        fields = [{"name": "genre", "value": f"k{at % 3}"}, {"name": "price", "value": at}]
        events.append({"event": "item", "id": item, "timestamp": 1_600_000_000_000, "item": item, "fields": fields})
    for place, (user, item, time) in enumerate(ROWS):
        head = {"id": f"r{place}", "timestamp": str(1_600_000_000_000 + 1_000 * int(time)), "session": user}
        events.append({"event": "ranking", **head, "items": [{"id": item}, {"id": ITEMS[place % len(ITEMS)]}]})
        if place % 3:
            events.append({"event": "interaction", **head, "ranking": f"r{place}", "type": "click", "item": item})
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return "metarank", [folder / "events.jsonl"], {"options": {"fields": "genre,price"}}


def fuxictr(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    for split, part in (("train", ROWS[:100]), ("test", ROWS[100:])):
        lines = "".join(f"{user},{item},{at % 2}\n" for at, (user, item, _) in enumerate(part))
        (folder / f"{split}.csv").write_text("user_id,item_id,clk\n" + lines)
    config = "d:\n  train_data: train.csv\n  test_data: test.csv\n  label_col: {name: clk}\n"
    (folder / "config.yaml").write_text(config)
    return "fuxictr", [folder / "config.yaml"], {}


def kuairand(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    lines = [f"{user},{item},{time}999,{at % 2},0" for at, (user, item, time) in enumerate(ROWS)]
    (folder / "log.csv").write_text("user_id,video_id,time_ms,is_click,is_like\n" + "\n".join(lines) + "\n")
    videos = "".join(f"{item},{at % 2},NORMAL,{at % 3},{at}\n" for at, item in enumerate(ITEMS))
    (folder / "videos.csv").write_text("video_id,author_id,video_type,music_id,tag\n" + videos)
    return "kuairand", [folder / "log.csv", folder / "videos.csv"], {"options": {"labels": "is_click,is_like"}}


def yambda(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    table = pa.table(
        {
            "uid": pa.array([USERS.index(user) for user, _, _ in ROWS], pa.uint32()),
            "item_id": pa.array([ITEMS.index(item) for _, item, _ in ROWS], pa.uint32()),
            "timestamp": pa.array([time - START for _, _, time in ROWS], pa.uint32()),
            "played_ratio_pct": pa.array([None if at % 3 == 0 else at for at in range(len(ROWS))], pa.uint16()),
            "event_type": ["like" if at % 3 == 0 else "listen" for at in range(len(ROWS))],
        }
    )
    pq.write_table(table, folder / "multi_event.parquet")
    pq.write_table(pa.table({"artist_id": [3, 4, 5, 3], "item_id": [1, 1, 2, 3]}), folder / "artists.parquet")
    return "yambda", [folder / "multi_event.parquet", folder / "artists.parquet"], {"options": {"listened": "20"}}


def vk_lsvd(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    for week, part in ((0, ROWS[:100]), (1, ROWS[100:])):
        table = pa.table(
            {
                "user_id": pa.array([USERS.index(user) for user, _, _ in part], pa.uint32()),
                "item_id": pa.array([ITEMS.index(item) for _, item, _ in part], pa.uint32()),
                "timespent": pa.array([at % 50 for at in range(len(part))], pa.uint8()),
                "like": [at % 2 == 0 for at in range(len(part))],
            }
        )
        pq.write_table(table, folder / f"week_{week:02}.parquet")
    pq.write_table(
        pa.table({"item_id": [1, 2, 3], "author_id": [7, 7, 8], "duration": [9, 9, 9]}), folder / "i.parquet"
    )
    paths = [folder / "week_01.parquet", folder / "week_00.parquet", folder / "i.parquet"]
    return "vk_lsvd", paths, {"options": {"watched": "20"}}


def instacart(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    orders = "".join(f"{at},{USERS[at % 5]},prior,{at // 5}\n" for at in range(40))
    (folder / "orders.csv").write_text("order_id,user_id,eval_set,order_number\n" + orders)
    lines = "".join(f"{at % 40},{item},{at}\n" for at, (_, item, _) in enumerate(ROWS))
    (folder / "lines.csv").write_text("order_id,product_id,add_to_cart_order\n" + lines)
    return "instacart", [folder / "orders.csv", folder / "lines.csv"], {"cut_by": "user"}


def xlong(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    def lines(first: int) -> str:
        return "".join(
            f"{at}\t{USERS[at % 5]}\t{','.join(ITEMS[:5])}\t{ITEMS[at % 3]}\t{ITEMS[3 + at % 4]}\ta,b\tc\n"
            for at in range(first, first + 8)
        )

    (folder / "train.txt").write_text(lines(0))
    (folder / "test.txt").write_text(lines(3))
    return "xlong", [folder / "train.txt", folder / "test.txt"], {}


def synthetic(folder: Path) -> tuple[str, list[Path], dict[str, Any]]:
    return "synthetic", [], {"options": {"users": "30", "items": "20"}}


def write_mapping(folder: Path, mapping: dict[str, Any]) -> Path:
    (folder / "mapping.json").write_text(json.dumps(mapping))
    return folder / "mapping.json"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset but its manifest."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "dataset.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def compare(log: Callable[[Path], tuple[str, list[Path], dict[str, Any]]], tmp_path: Path) -> None:
    source, paths, settings = log(tmp_path)
    settings = {"min_count": 1, "threads": 1, "cuts": (0.6, 0.8), **settings}
    made = [
        prepare(source, paths, tmp_path / engine, settings=PrepareSettings(engine=engine, **settings))
        for engine in ("duckdb", "spark")
    ]
    mine, theirs = (contents(each.folder) for each in made)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []
    records = [json.loads(each.manifest.model_dump_json()) for each in made]
    for record in records:
        for name in ("seconds", "settings"):
            del record["record"][name]
    assert records[0] == records[1]


@pytest.mark.parametrize("log", [taobao, text, parquet, completejourney, amazon, skipped])
def test_both_engines_write_the_same_bytes(session: Any, tmp_path: Path, log: Any) -> None:
    compare(log, tmp_path)
    assert not list(tmp_path.glob(".*.unfinished"))


@pytest.mark.soak
@pytest.mark.parametrize(
    "log",
    [layout, movielens, taobao_ad, recbole, metarank, fuxictr, kuairand, yambda, vk_lsvd, instacart, xlong, synthetic],
)
def test_both_engines_write_the_same_bytes_of_further_sources(session: Any, tmp_path: Path, log: Any) -> None:
    compare(log, tmp_path)


def test_rows_come_in_order_and_in_several_batches(connection: Any) -> None:
    given = pa.table({"a": list(range(50_000, 0, -1))})
    table = spark.stage(connection, "rows", given.to_batches(10_000), given.schema)
    parts = [batch.column("a").to_pylist() for batch in batches(connection, table.order_by("a"), rows=10_000)]
    assert len(parts) > 1
    assert [value for part in parts for value in part] == list(range(1, 50_001))


def test_a_wrong_row_is_named_as_on_the_other_engine(session: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("1,2,3,pv,1511600000\n1,2,3,pv,today\n")
    with pytest.raises(SourceError, match=r"bad.csv, line 2"):
        prepare("taobao", [tmp_path / "bad.csv"], tmp_path / "out", settings=PrepareSettings(engine="spark"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_types_that_the_engines_read_differently_are_refused(session: Any, tmp_path: Path) -> None:
    nanoseconds = pa.array([time * 10**9 for _, _, time in ROWS], pa.timestamp("ns"))
    columns = {"who": [row[0] for row in ROWS], "what": [row[1] for row in ROWS], "when": nanoseconds}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    mapping = write_mapping(tmp_path, {"user": "who", "item": "what", "time": "when"})
    settings = PrepareSettings(engine="spark", mapping=mapping)
    with pytest.raises(SourceError, match=r"timestamp\[ns\].*microseconds.*--engine spark"):
        prepare("table", [tmp_path / "log.parquet"], tmp_path / "out", settings=settings)


def test_a_source_that_needs_the_other_engine_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'ebnerd' is read by the engine duckdb alone"):
        prepare("ebnerd", [], tmp_path / "out", settings=PrepareSettings(engine="spark"))


@pytest.mark.parametrize("setting", [{"where": "who <> 'a'"}, {"derived": {"kind": "upper(what)"}}])
def test_expressions_of_duckdb_are_refused_by_name(session: Any, tmp_path: Path, setting: dict[str, Any]) -> None:
    (tmp_path / "log.csv").write_text("who,what,when\na,b,5\n")
    mapping = write_mapping(tmp_path, {"user": "who", "item": "what", "time": "when", **setting})
    settings = PrepareSettings(engine="spark", mapping=mapping)
    with pytest.raises(UsageError, match=f"{next(iter(setting))}.*expression of DuckDB.*--engine spark"):
        prepare("table", [tmp_path / "log.csv"], tmp_path / "out", settings=settings)


def test_a_layout_with_other_directives_is_refused() -> None:
    assert spark.java_layout("%d/%m/%Y um %H'%M") == "d'/'M'/'yyyy' um 'H''''m"
    with pytest.raises(UsageError, match=r"%p.*does not read"):
        spark.java_layout("%d %p")


def test_without_java_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"needs Java.*openjdk-17-jre-headless"):
        spark._require_java()


def test_a_master_belongs_to_spark(tmp_path: Path) -> None:
    with pytest.raises(LifelongError, match=r"duckdb has no master.*--engine spark"):
        prepare("synthetic", [], tmp_path / "out", settings=PrepareSettings(master="spark://nowhere:7077"))
