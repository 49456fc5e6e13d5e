from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import ConfigError, SourceError
from lifelong.preparation.prepare import PrepareSettings, prepare
from lifelong.preparation.sources.taobao_ad import PROFILE_FIELDS

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
SAMPLE = "user,time_stamp,adgroup_id,pid,nonclk,clk\n1,100,7,p,1,0\n2,101,9,p,0,1\n"
ADS = "adgroup_id,cate_id,campaign_id,customer,brand,price\n7,10,20,30,NULL,2.5\n8,11,21,31,99,0.1\n"
LOG = "user,time_stamp,btag,cate,brand\n1,50,pv,10,99\n1,49,buy,11,98\n1,50,cart,10,99\n"
NAMES = "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation"
PROFILE = f"{NAMES},new_user_class_level \n1,0,2,2,3,,3,0,\n3,5,4,1,4,2,3,1,2\n"
"""In the format of the real file: its header ends in a blank, and two of its columns are often empty."""


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
    assert (record["users_without_events"], record["ads_without_meta"]) == (1, 1)
    assert (record["user_profile"]["rows"], record["raw_sample"]["rows"]) == (2, 2)


def test_profiles_of_users_are_taken_where_they_are_asked_for(files: Any, write: Write, read: Read, rows: Rows) -> None:
    told = write("user_profile.csv", PROFILE)
    raw = read("taobao_ad", *files(), told, demographics="keep")
    assert raw.user_fields == PROFILE_FIELDS
    assert rows(raw.users, "user", *PROFILE_FIELDS) == [
        ("1", "0", "2", "2", "3", None, "3", "0", None),
        ("3", "5", "4", "1", "4", "2", "3", "1", "2"),
    ]
    plain = read("taobao_ad", *files(), told)
    assert (plain.users, plain.user_fields) == (None, ())
    with pytest.raises(ConfigError, match="demographics = 'yes' is not one of drop, keep"):
        read("taobao_ad", *files(), told, demographics="yes")


def test_of_two_rows_of_a_user_the_value_that_stands_last_counts(
    files: Any, write: Write, read: Read, rows: Rows
) -> None:
    told = write("user_profile.csv", PROFILE + "1,0,2,1,,4,3,0,\n")
    raw = read("taobao_ad", *files(), told, demographics="keep")
    found = rows(raw.users, "user", "final_gender_code", "age_level", "pvalue_level")
    assert found == [("1", "1", "3", "4"), ("3", "1", "4", "2")]
    assert {name: n for name, n in raw.record["conflicting_profiles"].items() if n} == {"final_gender_code": 1}


@pytest.mark.parametrize(
    ("profile", "line", "column", "message"),
    [
        (PROFILE + "4,5,4\n", 4, 4, "3 values"),
        (PROFILE.replace("\n3,", "\n,"), 3, "1 (userid)", "there is no value"),
        (PROFILE.replace("age_level", "age"), 1, "age_level", "the header has no such column"),
    ],
)
def test_a_wrong_profile_is_named(
    files: Any, write: Write, read: Read, profile: str, line: int, column: object, message: str
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read("taobao_ad", *files(), write("user_profile.csv", profile), demographics="keep")
    assert (Path(caught.value.file).name, caught.value.line, caught.value.column) == ("user_profile.csv", line, column)


def test_profiles_that_are_asked_for_need_their_file(files: Any, read: Read) -> None:
    with pytest.raises(SourceError, match="there is no file of user_profile"):
        read("taobao_ad", *files(), demographics="keep")


def test_users_are_prepared_with_their_profiles(files: Any, write: Write, tmp_path: Path) -> None:
    shown = SAMPLE + "3,110,8,p,1,0\n1,120,8,p,0,1\n"
    paths = [*files(sample=shown, log=LOG + "3,52,fav,10,99\n"), write("user_profile.csv", PROFILE)]
    settings = PrepareSettings(threads=1, cuts=(0.3, 0.6), options={"demographics": "keep"})
    dataset = prepare("taobao_ad", paths, tmp_path / "data", settings=settings)
    gender = dataset.profile_vocabularies["user.final_gender_code"]
    at = dataset.schema.user_fields.index("final_gender_code")
    found = {
        user: gender.value_of(int(dataset.profile_UF[place, at])) for place, user in enumerate(dataset.users.ids())
    }
    # User 2 has no row.
    assert found == {"1": "2", "2": None, "3": "1"}


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
    with pytest.raises(SourceError, match="its columns are a, b"):
        read("taobao_ad", *files(), write("other.csv", "a,b\n"))
    with pytest.raises(SourceError, match="no file of behavior_log"):
        read("taobao_ad", *files()[1:])
