"""The mapping files of public logs, by their published columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.config import read_mapping
from lifelong.dataset.mapping import TITLE, TableMapping
from lifelong.errors import SourceError, UsageError
from lifelong.offline.preparation.prepare import prepare
from lifelong.offline.preparation.sources import MAPPINGS, SOURCES

Write, Read, Rows, Save = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]], Callable[..., Path]
EVENT = ("user", "item", "time")
GENUINE = Path(__file__).parents[3].parent / "shared" / "data" / "ebnerd_tiny"


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a parquet file of some columns."""

    def saved(name: str, **columns: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    return saved


@pytest.mark.parametrize("path", sorted(MAPPINGS.glob("*.toml")), ids=lambda path: path.stem)
def test_each_mapping_is_a_source_that_says_what_it_reads_and_how(path: Path) -> None:
    assert TableMapping.model_validate(read_mapping(path)).name != "table"
    text = path.read_text()
    assert f"\n#     lifelong prepare {path.stem} " in text
    assert text.splitlines()[0] == f"# {SOURCES[path.stem].summary}"  # type: ignore[attr-defined]


def test_another_mapping_is_for_the_source_table(write: Write, read: Read) -> None:
    with pytest.raises(UsageError, match=r"has a mapping of its own.*prepare table"):
        read("kuairand", write("log.csv", "a\n1\n"), mapping="other.toml")


SHOWN = """user_id,video_id,date,hourmin,time_ms,is_click,is_like,long_view,is_rand,tab
1,10,20220421,400,1650485801301,1,0,1,0,1
1,11,20220421,401,1650485861301,0,1,0,0,1
2,10,20220421,402,1650485921301,0,0,0,1,0
"""
VIDEOS = 'video_id,author_id,video_type,upload_dt,music_id,tag\n10,7,NORMAL,2022-04-01,5,"11,12"\n11,8,AD,,6,\n'
PEOPLE = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num_range,"
    'fans_user_num_range,friend_user_num_range,register_days_range\n1,full_active,0,0,1,"(0,10]",0,0,730+\n'
)


def test_exposures_of_kuairand_are_impressions_with_several_labels(write: Write, read: Read, rows: Rows) -> None:
    paths = write("video_features_basic.csv", VIDEOS), write("user_features.csv", PEOPLE), write("log.csv", SHOWN)
    raw = read("kuairand", *paths, labels="is_click,is_like")
    assert rows(raw.impressions, *EVENT, "is_click", "is_like") == [
        ("1", "10", 1650485801, 1.0, 0.0),
        ("1", "11", 1650485861, 0.0, 1.0),
        ("2", "10", 1650485921, 0.0, 0.0),
    ]
    assert rows(raw.events, "user", "item") == [("1", "10"), ("1", "11")]
    assert rows(raw.items, "item", "author_id", "tag") == [("10", "7", "11,12"), ("11", "8", None)]
    assert rows(raw.users, "user", "follow_user_num_range") == [("1", "(0,10]")]
    assert (raw.tasks, raw.protocol) == (("is_click", "is_like"), "impressions")
    assert len(rows(read("kuairand", paths[2], history="all").events, "user")) == 3


def test_wrong_files_and_values_of_kuairand_are_named(write: Write, read: Read) -> None:
    log = write("log.csv", SHOWN)
    with pytest.raises(SourceError, match="counts, show_cnt"):
        read("kuairand", log, write("video_features_statistic.csv", "video_id,counts,show_cnt\n10,1,2\n"))
    with pytest.raises(SourceError, match="'x' is not a number") as caught:
        read("kuairand", write("log.csv", SHOWN + "2,10,20220421,402,1650485921301,x,0,0,1,0\n"))
    assert caught.value.line == 5


def test_listens_and_likes_of_yambda_are_events_with_types(save: Save, read: Read, rows: Rows) -> None:
    number = pa.uint32()
    music = save(
        "multi_event.parquet",
        uid=pa.array([1, 1, 2], number),
        timestamp=pa.array([5, 10, 10], number),
        item_id=pa.array([7, 8, 7], number),
        played_ratio_pct=pa.array([100, 20, None], pa.uint16()),
        event_type=["listen", "listen", "like"],
    )
    artists = save("artists.parquet", artist_id=[3, 4, 5], item_id=[7, 7, 8])
    albums = save("albums.parquet", album_id=[9], item_id=[7])
    raw = read("yambda", artists, music, albums, target_types="like")
    assert rows(raw.events, *EVENT, "event_type") == [
        ("1", "7", 5, "listen"),
        ("1", "8", 10, "listen"),
        ("2", "7", 10, "like"),
    ]
    assert rows(raw.items, "item", "artist", "album") == [("7", "4", "9"), ("8", "5", None)]
    assert (raw.target_types, raw.protocol) == (("like",), "temporal")
    assert read("yambda", music, albums).item_fields == ("album",)
    heard = read("yambda", music, query="FROM log WHERE event_type <> 'listen' OR played_ratio_pct >= 50")
    assert rows(heard.events, "item", "event_type") == [("7", "listen"), ("7", "like")]


def week(save: Save, number: int, *seen: tuple[int, int, int, bool]) -> Path:
    """A week of rows: user, item, seconds, like."""
    user, item, seconds, like = zip(*seen, strict=True)
    columns = {"user_id": list(user), "item_id": list(item), "timespent": list(seconds), "like": list(like)}
    return save(f"week_{number:02}.parquet", **columns)


def test_rows_of_vk_lsvd_are_in_the_order_of_the_weeks_and_keep_the_published_split(
    save: Save, read: Read, rows: Rows
) -> None:
    first = week(save, 0, (1, 10, 3, False), (2, 10, 40, True))
    log = [week(save, 26, (1, 12, 7, False)), first, week(save, 25, (2, 12, 9, True)), week(save, 1, (1, 11, 99, True))]
    items = save("items_metadata.parquet", item_id=[10, 11], author_id=[7, 8], duration=[30, 15])
    users = save("users_metadata.parquet", user_id=[1, 2], age=[20, 30], gender=[1, 2], geo=[5, None])
    raw = read("vk_lsvd", *log, items, users)
    assert rows(raw.impressions, *EVENT, "like", "split") == [
        ("1", "10", 0, 0.0, "train"),
        ("2", "10", 1, 1.0, "train"),
        ("1", "11", 2, 1.0, "train"),
        ("2", "12", 3, 1.0, "validation"),
        ("1", "12", 4, 0.0, "test"),
    ]
    assert rows(raw.events, *EVENT) == [("2", "10", 1), ("1", "11", 2), ("2", "12", 3)]
    assert (raw.protocol, raw.time_unit, raw.number_fields) == ("given", "ordinal", ("duration",))
    assert rows(raw.items, "item", "author_id", "duration") == [("10", "7", "30"), ("11", "8", "15")]
    assert rows(raw.users, "user", "age", "gender", "geo") == [("1", "20", "1", "5"), ("2", "30", "2", None)]
    with pytest.raises(SourceError, match="no file of weeks"):
        read("vk_lsvd", items)


def test_histories_of_taobao_mm_are_ordinal_events_and_samples_come_after_them(
    save: Save, read: Read, rows: Rows
) -> None:
    def samples(name: str, *seen: tuple[int, int, int]) -> Path:
        user, item, click = zip(*seen, strict=True)
        label = pa.array([[1 - each, each] for each in click], pa.list_(pa.int8()))
        return save(name, label_0=label, **{"129_1": list(user), "205": list(item)})

    def histories(name: str, *told: tuple[int, list[int], list[int]]) -> Path:
        user, items, categories = zip(*told, strict=True)
        return save(name, **{"129_1": list(user), "150_2_180": list(items), "151_2_180": list(categories)})

    # User -1 is in both splits, -2 in training and 3 in the test alone; a place of -2 has no item.
    raw = read(
        "taobao_mm",
        samples("test_samples.parquet", (-1, 40, 1), (3, 10, 0)),
        samples("train_samples.parquet", (-1, 10, 0), (-1, 30, 1), (-2, 30, 0)),
        histories("test_user_features.parquet", (-1, [20, 30], [6, 7])),
        histories("train_user_features.parquet", (-1, [10, 20, 20], [5, 6, 6]), (-2, [0, 50], [0, 0])),
        save("item_features.parquet", **{"205": [10, 40], "206": [8, 9], "213": [1, 1]}),
    )
    assert sorted(rows(raw.events, *EVENT)) == [
        ("-1", "10", 0),
        ("-1", "20", 1),
        ("-1", "20", 2),
        ("-1#test", "20", 0),
        ("-1#test", "30", 1),
        ("-2", "50", 1),
    ]
    assert sorted(rows(raw.impressions, *EVENT, "click", "split")) == [
        ("-1", "10", 3, 0.0, "train"),
        ("-1", "30", 3, 1.0, "train"),
        ("-1#test", "40", 2, 1.0, "test"),
        ("-2", "30", 2, 0.0, "train"),
        ("3", "10", 0, 0.0, "test"),
    ]
    assert (raw.time_unit, raw.protocol) == ("ordinal", "given")
    found = rows(raw.items, "item", "category")
    assert {("10", "8"), ("20", "6"), ("30", "7"), ("40", "9"), ("50", None)} <= set(found)


ORDERS = "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order\n"
ORDERS += "5,1,prior,1,2,08,\n6,1,train,2,3,07,15.0\n7,2,test,1,3,07,\n"
LINES = "order_id,product_id,add_to_cart_order,reordered\n"
PRODUCTS = 'product_id,product_name,aisle_id,department_id\n30,"Tea, ""green""",3,4\n31,Salt,5,6\n'


def test_orders_of_instacart_are_ordinal_moments(write: Write, read: Read, rows: Rows) -> None:
    lines = write("prior.csv", LINES + "5,30,1,0\n5,31,2,0\n"), write("train.csv", LINES + "6,30,1,1\n")
    raw = read("instacart", write("orders.csv", ORDERS), *lines, write("products.csv", PRODUCTS))
    assert rows(raw.events, *EVENT) == [("1", "30", 1), ("1", "31", 1), ("1", "30", 2)]
    assert rows(raw.items, "item", "aisle", "department") == [("30", "3", "4"), ("31", "5", "6")]
    assert raw.time_unit == "ordinal"


def test_a_line_of_instacart_without_its_order_is_refused(write: Write, read: Read) -> None:
    with pytest.raises(SourceError, match="there is no value"):
        read("instacart", write("orders.csv", ORDERS), write("lines.csv", LINES + "99,30,1,0\n"))


RATINGS = "userId,movieId,rating,timestamp\n1,2,3.5,100\n1,3,5,101\n"
MOVIES = 'movieId,title,genres\n2,"A ""b"", c",Drama|War\n3,d,(no genres listed)\n'


def test_ratings_of_movielens_are_events(write: Write, read: Read, rows: Rows) -> None:
    paths = write("movies.csv", MOVIES), write("ratings.csv", RATINGS)
    raw = read("movielens", *paths)
    assert rows(raw.events, *EVENT, "sequence") == [("1", "2", 100, 0), ("1", "3", 101, 1)]
    assert rows(raw.items, "item", "genres") == [("2", "Drama|War"), ("3", None)]
    assert (raw.impressions, raw.protocol) == (None, "temporal")
    assert rows(raw.ratings, "item", "rating") == [("2", 3.5), ("3", 5.0)]


def test_older_releases_of_movielens_have_other_delimiters_and_latin1(write: Write, read: Read, rows: Rows) -> None:
    movies = write("movies.dat", "2::Café, (1990)::Drama\n".encode("latin-1"))
    raw = read("movielens_dat", write("ratings.dat", "1::2::3::100\n1::4::3::101\n"), movies)
    assert rows(raw.events, *EVENT) == [("1", "2", 100), ("1", "4", 101)]
    assert rows(raw.items, "item", "genres") == [("2", "Drama")]
    assert raw.record["items_without_meta"] == 1


@pytest.mark.parametrize(
    ("source", "name", "text", "line", "column"),
    [
        ("movielens", "ratings.csv", RATINGS + "1,4,good,102\n", 4, "rating"),
        ("movielens", "ratings.csv", RATINGS + "1,4,3\n", 4, 4),
        ("movielens_dat", "ratings.dat", "1::2::3::100\n1::2::3\n", 2, 4),
        ("movielens_dat", "ratings.dat", "1::2::3::100\n1::2::3::noon\n", 2, "timestamp"),
    ],
)
def test_a_wrong_line_is_named(
    write: Write, read: Read, source: str, name: str, text: str, line: int, column: object
) -> None:
    path = write(name, text)
    with pytest.raises(SourceError) as caught:
        read(source, path)
    assert (caught.value.file, caught.value.line, caught.value.column) == (str(path), line, column)


def news(save: Save) -> list[Path]:
    def moment(second: int) -> datetime:
        return datetime(1970, 1, 1, 0, 0, second)

    behaviors = save(
        "behaviors.parquet",
        user_id=[1, 2],
        impression_time=[moment(5), moment(3)],
        article_ids_inview=[[20, 21], [10, 20]],
        article_ids_clicked=[[21], [10]],
    )
    times = [[moment(1), moment(1)], [moment(3)]]
    history = {"user_id": [1, 2], "article_id_fixed": [[11, 11], [10]], "impression_time_fixed": times}
    # An event twice in one file is two events, in two files one.
    return [behaviors, save("history.parquet", **history), save("more.parquet", **history)]


def test_every_article_of_ebnerd_is_a_target_and_events_are_histories_and_the_clicks_they_lack(
    save: Save, read: Read, rows: Rows
) -> None:
    articles = save("articles.parquet", article_id=[10, 99], title=["Ten", None], category_str=["news", ""])
    raw = read("ebnerd", *news(save), articles)
    assert sorted(rows(raw.impressions, *EVENT, "click")) == [
        ("1", "20", 5, 0.0),
        ("1", "21", 5, 1.0),
        ("2", "10", 3, 1.0),
        ("2", "20", 3, 0.0),
    ]
    assert sorted(rows(raw.events, *EVENT)) == [("1", "11", 1), ("1", "11", 1), ("1", "21", 5), ("2", "10", 3)]
    assert rows(raw.items, "item", "category", TITLE) == [("10", "news", "Ten"), ("99", None, None)]
    assert raw.protocol == "impressions"
    with pytest.raises(SourceError, match="there is no file of history"):
        read("ebnerd", news(save)[0])


@pytest.mark.realdata
def test_the_genuine_rows_of_ebnerd_read_whole(read: Read) -> None:
    if not GENUINE.exists():
        pytest.skip("the genuine rows are not here")
    raw = read("ebnerd", GENUINE / "behaviors.parquet", GENUINE / "history.parquet")
    assert raw.impressions.count().to_pyarrow().as_py() == 10_848
    assert raw.impressions["click"].sum().to_pyarrow().as_py() == 1_047


PROFILE_NAMES = "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation"


def test_behaviour_of_taobao_ad_happens_to_pairs_of_category_and_brand(write: Write, read: Read, rows: Rows) -> None:
    log = write("a.csv", "user,time_stamp,btag,cate,brand\n1,50,pv,10,99\n1,49,buy,11,98\n1,50,cart,10,99\n")
    ads = write("b.csv", "adgroup_id,cate_id,campaign_id,customer,brand,price\n7,10,20,30,NULL,2.5\n8,11,21,31,99,1\n")
    sample = "user,time_stamp,adgroup_id,pid,nonclk,clk\n1,100,7,p,1,0\n2,101,9,p,0,1\n"
    # As in the real file the header ends in a blank.
    people = write("user_profile.csv", f"{PROFILE_NAMES},new_user_class_level \n1,0,2,2,3,,3,0,\n")
    raw = read("taobao_ad", log, ads, write("c.csv.gz", sample), people)
    assert rows(raw.impressions, *EVENT, "clk") == [("1", "7", 100, 0.0), ("2", "9", 101, 1.0)]
    assert sorted(rows(raw.events, "item", "time", "event_type")) == [
        ("10/99", 50, "cart"),
        ("10/99", 50, "pv"),
        ("11/98", 49, "buy"),
    ]
    assert rows(raw.items, "item", "category", "brand", "campaign", "advertiser") == [
        ("10/99", "10", "99", None, None),
        ("11/98", "11", "98", None, None),
        ("7", "10", None, "20", "30"),
        ("8", "11", "99", "21", "31"),
    ]
    assert rows(raw.users, "user", "age_level", "pvalue_level") == [("1", "3", None)]
    assert (raw.protocol, raw.tasks) == ("impressions", ("clk",))


def test_atomic_files_of_recbole_are_events_fields_and_profiles(write: Write, read: Read, rows: Rows) -> None:
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t5\t978300760\n1\t8\t3\t978302109.0\n"
    item = "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq\n"
    item += '7\tA "toy" story\t1995\tComedy\n8\tJumanji\t\tDrama\n'
    user = "user_id:token\tage:token\tgender:token\toccupation:token\n1\t25\tF\t9\n"
    paths = write("ml.user", user), write("ml.item", item), write("ml.inter", inter)
    raw = read("recbole", *paths)
    assert rows(raw.events, *EVENT, "sequence") == [("1", "7", 978300760, 0), ("1", "8", 978302109, 1)]
    assert rows(raw.items, "item", "genre", "release_year") == [("7", "Comedy", "1995"), ("8", "Drama", None)]
    assert rows(raw.users, "user", "age") == [("1", "25")]
    assert (raw.protocol, raw.impressions) == ("temporal", None)
    assert rows(raw.ratings, "item", "rating") == [("7", 5.0), ("8", 3.0)]


def test_the_given_split_of_fuxictr_is_kept(write: Write, tmp_path: Path) -> None:
    head, texts = (
        "user_id,item_id,cate_id,city,click_history,clk\n",
        {
            "train": "u1,i1,c1,x,,1\nu1,i2,c2,x,i1,0\nu2,i1,c1,y,,1\n",
            "valid": "u1,i3,c1,x,i1,1\n",
            "test": "u1,i2,c2,x,i1^i3,0\nu2,i3,c1,y,i1,1\n",
        },
    )
    dataset = prepare("fuxictr", [write(f"{name}.csv", head + text) for name, text in texts.items()], tmp_path / "data")
    assert dataset.manifest.protocol == "given"
    assert [dataset.manifest.counts[f"{split}_examples"] for split in ("train", "validation", "test")] == [3, 1, 2]


def event(kind: str, timestamp: Any, **parts: Any) -> str:
    return json.dumps({"event": kind, "id": f"{kind}-{timestamp}", "timestamp": timestamp, **parts}) + "\n"


def fields(**values: Any) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in values.items()]


PETS = (
    event("item", "1599391466000", item="i1", fields=fields(title="cat", genres=["a", "b"], price=9.5))
    + event("item", "1599391466000", item="i2", fields=fields(title="dog"))
    + event("user", "1599391466000", user="ann", fields=fields(age=33))
    + event("ranking", "1599391467000", user="ann", session="s1", items=[{"id": "i1", "relevancy": 1.5}, {"id": "i2"}])
    + event("interaction", 1599391468999, user="ann", type="click", item="i2", ranking="ranking-1599391467000")
    # Of a session; outside of a ranking; of nobody.
    + event("interaction", "2020-09-06T13:25:00.5+02:00", session="s2", type="buy", item="i3")
    + event("ranking", "1599391601000", items=[{"id": "i1"}])
    + event("interaction", "1599391602000", type="click", item="i1")
    + event("item", "1599391603000", item="i1", fields=fields(title="tomcat"))
)


def test_rankings_of_metarank_are_impressions_and_interactions_are_events(write: Write, read: Read, rows: Rows) -> None:
    raw = read("metarank", write("events.jsonl.gz", PETS))
    assert rows(raw.events, *EVENT, "event_type") == [
        ("ann", "i2", 1599391468, "click"),
        ("s2", "i3", 1599391500, "buy"),
    ]
    assert rows(raw.impressions, *EVENT, "response") == [
        ("ann", "i1", 1599391467, 0.0),
        ("ann", "i2", 1599391467, 1.0),
    ]
    assert rows(raw.items, "item", "title", "genres") == [("i1", "tomcat", '["a","b"]'), ("i2", "dog", None)]
    assert (raw.protocol, raw.event_types) == ("impressions", True)


def test_lines_of_metarank_that_are_no_json_are_refused(write: Write, read: Read) -> None:
    with pytest.raises(Exception, match="Malformed JSON"):
        read("metarank", write("events.jsonl", PETS + "{not json}\n"))
