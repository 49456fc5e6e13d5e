"""Taobao display ads: real impressions (`raw_sample`), ads (`ad_feature`), and behaviour (`behavior_log`).

What a file is, is told by its header. Targets are the impressions of ads, label `clk`. Events come from `behavior_log`,
which names no item but a category and a brand: each such pair is a pseudo-item `category/brand`, with the category and
brand of ads, so that a history tells of an ad through these two fields. Ads have `campaign` and `advertiser` besides.
Clicks on ads are labels only, not events. The column `pid` is not used, and `user_profile` only where profiles are
asked for; else its users are checked and counted.

Known quirks, all counted: ties, exact duplicates (kept), unsorted rows, ads without a row in `ad_feature`, users who
were shown ads but have no event (their history is empty), profiles that differ between rows of one user (the value that
stands last wins). A brand `NULL` is a missing brand. The last name in the header of `user_profile` ends in a blank.

Options:
    demographics: `drop` (default) or `keep`: the fields of `user_profile` as fields of the users' profiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis

from lifelong.data.sources.rawlog import RawLog
from lifelong.data.sources.staging import (
    check_choice,
    check_files,
    check_options,
    conflicts,
    count,
    count_quirks,
    one_row_per_item,
    require_events,
    stage,
    without_meta,
)
from lifelong.data.sources.text import Column, Layout, Places, header_names, rows
from lifelong.errors import SourceError

OPTIONS = {"demographics": "drop"}
FIELDS = ("category", "brand", "campaign", "advertiser")
PROFILE_FIELDS = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
BEHAVIOURS = ("pv", "ipv", "cart", "fav", "buy")
LAYOUTS = {
    "raw_sample": Layout(
        (
            Column("user", "id"),
            Column("time", "integer", header="time_stamp"),
            Column("item", "id", header="adgroup_id"),
            Column("clk", "string", ("0", "1")),
        ),
        header=True,
    ),
    "ad_feature": Layout(
        (
            Column("item", "id", header="adgroup_id"),
            Column("category", header="cate_id"),
            Column("campaign", header="campaign_id"),
            Column("advertiser", header="customer"),
            Column("brand"),
        ),
        header=True,
    ),
    "behavior_log": Layout(
        (
            Column("user", "id"),
            Column("time", "integer", header="time_stamp"),
            Column("event_type", choices=BEHAVIOURS, header="btag"),
            Column("category", "id", header="cate"),
            Column("brand", "id"),
        ),
        header=True,
    ),
    "user_profile": Layout((Column("user", "id", header="userid"), *map(Column, PROFILE_FIELDS)), header=True),
}
_USERS_ALONE = Layout(LAYOUTS["user_profile"].columns[:1], header=True)
TOLD_BY = {"raw_sample": "clk", "ad_feature": "campaign_id", "behavior_log": "btag", "user_profile": "userid"}


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the csv files.

    Raises:
        SourceError: a line is not what it should be, or a file is absent.
        ConfigError: an option is unknown or wrong.
    """
    settings = check_options(options, OPTIONS, source="taobao_ad")
    check_choice(settings, "demographics", ("keep", "drop"))
    asked = settings["demographics"] == "keep"
    roles = _roles(check_files(paths, source="taobao_ad"), with_profiles=asked)
    layouts = LAYOUTS if asked else LAYOUTS | {"user_profile": _USERS_ALONE}
    places = {role: Places() for role in roles}
    table = {
        role: stage(connection, rows(files, layouts[role], places[role]), layouts[role].schema())
        for role, files in roles.items()
    }
    behaviour, shown, ads = table["behavior_log"], table["raw_sample"], table["ad_feature"]
    log = _with_items(behaviour)
    events = log.select("user", "item", "time", "sequence", "event_type")
    record: dict[str, Any] = {role: placed.record() for role, placed in places.items()} | count_quirks(events)
    require_events(record, source="taobao_ad", files=roles["behavior_log"])
    known = ads.select("item", "sequence", **{name: _value(ads[name]) for name in FIELDS})
    pseudo = log.select("item", "category", "brand").distinct()
    nothing = ibis.null("string")
    pseudo = pseudo.mutate(brand=_value(pseudo["brand"]), campaign=nothing, advertiser=nothing)
    clicked = shown["clk"].cast("float64")
    strangers = shown.select("user").distinct().anti_join(behaviour, "user")
    record["users_without_events"] = count(strangers)
    record["ads_without_meta"] = without_meta(shown, ads)
    record["conflicting_fields"] = conflicts(known, FIELDS)
    profiles = _profiles(table["user_profile"]) if asked else None
    if asked:
        record["conflicting_profiles"] = conflicts(profiles, PROFILE_FIELDS, key="user")
    return RawLog(
        name="Taobao display ads",
        events=events,
        items=ibis.union(one_row_per_item(known, FIELDS), pseudo.select("item", *FIELDS)),
        item_fields=FIELDS,
        users=one_row_per_item(profiles, PROFILE_FIELDS, key="user") if asked else None,
        user_fields=PROFILE_FIELDS if asked else (),
        event_types=True,
        impressions=shown.select("user", "item", "time", "sequence", response=clicked),
        protocol="impressions",
        record=record,
    )


def _roles(files: Sequence[Path], *, with_profiles: bool) -> dict[str, list[Path]]:
    """Role -> files.

    Raises:
        SourceError: a file has none, or one of those that are needed is absent.
    """
    roles: dict[str, list[Path]] = {}
    for path in files:
        names = header_names(path, LAYOUTS["raw_sample"])
        role = next((role for role, column in TOLD_BY.items() if column in names), None)
        if role is None:
            raise SourceError(
                f"its header is {', '.join(names) or 'empty'}",
                file=str(path),
                line=1,
                expected=f"the header of {', '.join(TOLD_BY)} (told by {', '.join(TOLD_BY.values())})",
            )
        roles.setdefault(role, []).append(path)
    for role in ("raw_sample", "ad_feature", "behavior_log", *(("user_profile",) if with_profiles else ())):
        if role not in roles:
            raise SourceError(f"there is no {role} file among {', '.join(map(str, files))}", expected=f"{role}.csv")
    return roles


def _with_items(behaviour: Any) -> Any:
    """Behaviour rows with their pseudo-item."""
    return behaviour.mutate(item=behaviour["category"] + "/" + behaviour["brand"])


def _profiles(told: Any) -> Any:
    """Rows of `user_profile`, null where a value is missing."""
    return told.select("user", "sequence", **{name: _value(told[name]) for name in PROFILE_FIELDS})


def _value(column: Any) -> Any:
    """A column with null for the texts that mean none."""
    return ibis.ifelse(column.isin(["", "NULL"]), ibis.null("string"), column)
