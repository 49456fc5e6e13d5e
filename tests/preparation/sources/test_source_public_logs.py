"""KuaiRand, Yambda and Instacart, by their published columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.errors import ConfigError, SourceError

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
SHOWN = """user_id,video_id,date,hourmin,time_ms,is_click,is_like,long_view,is_rand,tab
1,10,20220421,400,1650485801301,1,0,1,0,1
1,11,20220421,401,1650485861301,0,1,0,0,1
2,10,20220421,402,1650485921301,0,0,0,1,0
"""
VIDEOS = 'video_id,author_id,video_type,upload_dt,music_id,tag\n10,7,NORMAL,2022-04-01,5,"11,12"\n11,8,AD,,6,\n'
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num_range,"
    'fans_user_num_range,friend_user_num_range,register_days_range\n1,full_active,0,0,1,"(0,10]",0,0,730+\n'
)
ORDERS = "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order\n"
ORDERS += "5,1,prior,1,2,08,\n6,1,train,2,3,07,15.0\n7,2,test,1,3,07,\n"
LINES = "order_id,product_id,add_to_cart_order,reordered\n"
PRODUCTS = 'product_id,product_name,aisle_id,department_id\n30,"Tea, ""green""",3,4\n31,Salt,5,6\n'


def test_exposures_of_kuairand_are_impressions_with_several_labels(write: Write, read: Read, rows: Rows) -> None:
    paths = write("video_features_basic.csv", VIDEOS), write("user_features.csv", USERS), write("log.csv", SHOWN)
    raw = read("kuairand", *paths, labels="is_click,is_like", demographics="keep")
    assert rows(raw.impressions, "user", "item", "time", "is_click", "is_like") == [
        ("1", "10", 1650485801, 1.0, 0.0),
        ("1", "11", 1650485861, 0.0, 1.0),
        ("2", "10", 1650485921, 0.0, 0.0),
    ]
    assert rows(raw.events, "user", "item") == [("1", "10"), ("1", "11")]
    assert rows(raw.items, "item", "author_id", "tag") == [("10", "7", "11,12"), ("11", "8", None)]
    assert rows(raw.users, "user", "follow_user_num_range") == [("1", "(0,10]")]
    assert (raw.tasks, raw.protocol) == (("is_click", "is_like"), "impressions")
    assert len(rows(read("kuairand", paths[2], history="all").events, "user")) == 3


def test_statistics_of_the_whole_period_and_wrong_labels_are_refused(write: Write, read: Read) -> None:
    log = write("log.csv", SHOWN)
    with pytest.raises(SourceError, match="counts, show_cnt"):
        read("kuairand", log, write("video_features_statistic.csv", "video_id,counts,show_cnt\n10,1,2\n"))
    with pytest.raises(ConfigError, match=r"labels: is_rand.*is_click"):
        read("kuairand", log, labels="is_click,is_rand")
    with pytest.raises(SourceError, match="no file of users"):
        read("kuairand", log, demographics="keep")
    with pytest.raises(SourceError, match="'x' is not a number") as caught:
        read("kuairand", write("log.csv", SHOWN + "2,10,20220421,402,1650485921301,x,0,0,1,0\n"))
    assert caught.value.line == 5


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """`multi_event.parquet` with a listen of each length, and a like."""
    number = pa.uint32()
    return parquet(
        tmp_path / "multi_event.parquet",
        uid=pa.array([1, 1, 2], number),
        timestamp=pa.array([5, 10, 10], number),
        item_id=pa.array([7, 8, 7], number),
        is_organic=pa.array([1, 0, 1], pa.uint8()),
        played_ratio_pct=pa.array([100, 20, None], pa.uint16()),
        event_type=["listen", "listen", "like"],
    )


def test_listens_and_likes_of_yambda_are_events_with_types(music: Path, tmp_path: Path, read: Read, rows: Rows) -> None:
    artists = parquet(tmp_path / "artists.parquet", artist_id=[3, 4, 5], item_id=[7, 7, 8])
    albums = parquet(tmp_path / "albums.parquet", album_id=[9], item_id=[7])
    raw = read("yambda", artists, music, albums, targets="like")
    assert rows(raw.events, "user", "item", "time", "event_type") == [
        ("1", "7", 5, "listen"),
        ("1", "8", 10, "listen"),
        ("2", "7", 10, "like"),
    ]
    assert rows(raw.items, "item", "artist", "album") == [("7", "4", "9"), ("8", "5", None)]
    assert raw.record["conflicting_fields"] == {"artist": 1, "album": 0}
    assert (raw.target_types, raw.protocol, raw.record["short_listens"]) == (("like",), "temporal", 0)


def test_short_listens_are_left_out_where_asked(music: Path, read: Read, rows: Rows) -> None:
    raw = read("yambda", music, listened="50")
    assert rows(raw.events, "item", "event_type") == [("7", "listen"), ("7", "like")]
    assert raw.record["short_listens"] == 1


def test_other_files_of_yambda_are_named(tmp_path: Path, read: Read) -> None:
    with pytest.raises(SourceError, match="no file of events"):
        read("yambda", parquet(tmp_path / "artists.parquet", artist_id=[3], item_id=[7]))
    with pytest.raises(SourceError, match="no such column") as caught:
        read("yambda", parquet(tmp_path / "likes.parquet", uid=[1], item_id=[7], timestamp=[5]))
    assert caught.value.column == "played_ratio_pct"


def test_orders_of_instacart_are_ordinal_moments(write: Write, read: Read, rows: Rows) -> None:
    lines = write("prior.csv", LINES + "5,30,1,0\n5,31,2,0\n"), write("train.csv", LINES + "6,30,1,1\n")
    raw = read("instacart", write("orders.csv", ORDERS), *lines, write("products.csv", PRODUCTS))
    assert rows(raw.events, "user", "item", "time") == [("1", "30", 1), ("1", "31", 1), ("1", "30", 2)]
    assert rows(raw.items, "item", "aisle", "department") == [("30", "3", "4"), ("31", "5", "6")]
    assert (raw.time_unit, raw.record["orders_without_products"]) == ("ordinal", 1)


@pytest.mark.parametrize(
    ("orders", "lines", "words", "place"),
    [
        (ORDERS, LINES + "5,30,1,0\n99,30,1,0\n", r"not in orders\.csv", ("lines.csv", 3)),
        (ORDERS + "5,1,prior,3,2,08,\n", LINES + "5,30,1,0\n", "this order is there twice", ("orders.csv", 5)),
        (ORDERS + "8,1,late,3,2,08,\n", LINES, "'late' is not one", ("orders.csv", 5)),
        (ORDERS + "8,1,prior,x,2,08,\n", LINES, "'x' is not a whole number", ("orders.csv", 5)),
    ],
)
def test_what_is_wrong_in_instacart_is_named(
    write: Write, read: Read, orders: str, lines: str, words: str, place: tuple[str, int]
) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        read("instacart", write("orders.csv", orders), write("lines.csv", lines))
    assert (Path(str(caught.value.file)).name, caught.value.line) == place
