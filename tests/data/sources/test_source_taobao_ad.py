from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import SourceError

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
SAMPLE = "user,time_stamp,adgroup_id,pid,nonclk,clk\n1,100,7,p,1,0\n2,101,9,p,0,1\n"
ADS = "adgroup_id,cate_id,campaign_id,customer,brand,price\n7,10,20,30,NULL,2.5\n8,11,21,31,99,0.1\n"
LOG = "user,time_stamp,btag,cate,brand\n1,50,pv,10,99\n1,49,buy,11,98\n1,50,cart,10,99\n"
PROFILE = "userid,cms_segid,cms_group_id\n1,0,2\n"


@pytest.fixture
def files(write: Write) -> Callable[..., list[Path]]:
    """The three needed files, with replacements."""

    def written(sample: str = SAMPLE, ads: str = ADS, log: str = LOG) -> list[Path]:
        return [write("a.csv", log), write("b.csv", ads), write("c.csv.gz", sample)]

    return written


def test_impressions_are_labelled_by_their_click(files: Any, read: Read, rows: Rows) -> None:
    raw = read("taobao_ad", *files())
    assert rows(raw.impressions, "user", "item", "time", "response") == [("1", "7", 100, 0.0), ("2", "9", 101, 1.0)]
    assert (raw.protocol, raw.tasks) == ("impressions", ("response",))


def test_behaviour_without_items_happens_to_a_pseudo_item_with_the_fields_of_ads(
    files: Any, read: Read, rows: Rows
) -> None:
    raw = read("taobao_ad", *files())
    assert rows(raw.events, "item", "time", "event_type") == [
        ("10/99", 50, "pv"),
        ("11/98", 49, "buy"),
        ("10/99", 50, "cart"),
    ]
    assert rows(raw.items, "item", "category", "brand", "campaign", "advertiser") == [
        ("10/99", "10", "99", None, None),
        ("11/98", "11", "98", None, None),
        ("7", "10", None, "20", "30"),
        ("8", "11", "99", "21", "31"),
    ]


def test_quirks_and_unused_files_are_counted(files: Any, write: Write, read: Read) -> None:
    record = read("taobao_ad", *files(), write("user_profile.csv", PROFILE)).record
    counted = {name: record[name] for name in ("ties", "unsorted", "users_without_events", "ads_without_meta")}
    assert counted == {"ties": 1, "unsorted": 1, "users_without_events": 1, "ads_without_meta": 1}
    assert (record["user_profile"]["rows"], record["raw_sample"]["rows"]) == (1, 2)


@pytest.mark.parametrize(
    ("changed", "name", "column"),
    [
        ({"sample": SAMPLE.replace("0,1\n", "0,2\n")}, "c.csv.gz", "6 (clk)"),
        ({"sample": SAMPLE.replace(",101,", ",x,")}, "c.csv.gz", "2 (time_stamp)"),
        ({"log": LOG.replace("buy", "sell")}, "a.csv", "3 (btag)"),
        ({"log": LOG.replace("1,49,buy,11,98", "1,49,buy,11")}, "a.csv", 5),
        ({"ads": ADS.replace("8,11", ",11")}, "b.csv", "1 (adgroup_id)"),
    ],
)
def test_a_wrong_line_is_named(files: Any, read: Read, changed: dict[str, str], name: str, column: object) -> None:
    with pytest.raises(SourceError) as caught:
        read("taobao_ad", *files(**changed))
    assert (Path(caught.value.file).name, caught.value.line, caught.value.column) == (name, 3, column)


def test_an_unknown_header_and_an_absent_file_are_errors(files: Any, write: Write, read: Read) -> None:
    with pytest.raises(SourceError, match="its header is a, b"):
        read("taobao_ad", *files(), write("other.csv", "a,b\n"))
    with pytest.raises(SourceError, match="no behavior_log file"):
        read("taobao_ad", *files()[1:])
