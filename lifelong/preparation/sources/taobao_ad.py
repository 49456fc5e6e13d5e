"""Taobao display ads: real impressions (`raw_sample`), ads (`ad_feature`), and behaviour (`behavior_log`).

The role of a file follows from its header. Targets are the impressions of ads, with the label `clk`. Events come from
`behavior_log`, which has no items, only a category and a brand: each such pair is a pseudo-item `category/brand`, with
the category and brand of ads, so that a history informs about an ad through these two fields. Ads also have `campaign`
and `advertiser`. Clicks on ads are labels only, not events. The column `pid` is not used, and `user_profile` only where
profiles are asked for; else its users are checked and counted.

Known quirks, all counted: ties, exact duplicates (kept), unsorted rows, ads without a row in `ad_feature`, users who
were shown ads but have no event (their history is empty), profiles that differ between rows of one user (the last value
wins). A brand `NULL` is a missing brand. The last name in the header of `user_profile` ends in a blank.

Options:
    demographics: `drop` (default) or `keep`: the fields of `user_profile` as fields of the users' profiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis

from lifelong.preparation.engine import count
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.rawlog import RawLog
from lifelong.preparation.sources.text import Column, Layout, header_names, staged

OPTIONS = {"demographics": ("drop", "keep")}
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
MARKERS = {"raw_sample": "clk", "ad_feature": "campaign_id", "behavior_log": "btag", "user_profile": "userid"}
"""Role -> the column that only files of this role have."""


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the csv files."""
    asked = options["demographics"] == "keep"
    roles = staging.by_marker(
        ((path, header_names(path, LAYOUTS["raw_sample"])) for path in paths),
        MARKERS,
        dict.fromkeys(MARKERS if asked else ("raw_sample", "ad_feature", "behavior_log"), ""),
        expected=f"a header of {', '.join(f'{role} (with {column})' for role, column in MARKERS.items())}",
    )
    layouts = LAYOUTS if asked else LAYOUTS | {"user_profile": _USERS_ALONE}
    found = {role: staged(connection, files, layouts[role]) for role, files in roles.items() if files}
    table = {role: rows for role, (rows, _) in found.items()}
    behaviour, shown, ads = table["behavior_log"], table["raw_sample"], table["ad_feature"]
    log = behaviour.mutate(item=behaviour["category"] + "/" + behaviour["brand"])
    events = log.select("user", "item", "time", "sequence", "event_type")
    record: dict[str, Any] = {role: places.record() for role, (_, places) in found.items()}
    known = ads.select("item", "sequence", **{name: _value(ads[name]) for name in FIELDS})
    clicked = shown["clk"].cast("float64")
    strangers = shown.select("user").distinct().anti_join(behaviour, "user")
    record["users_without_events"] = count(strangers)
    record["ads_without_meta"] = staging.without_meta(shown, ads)
    record["conflicting_fields"] = staging.conflicts(known, FIELDS)
    profiles = _profiles(table["user_profile"]) if asked else None
    if asked:
        record["conflicting_profiles"] = staging.conflicts(profiles, PROFILE_FIELDS, key="user")
    return RawLog(
        name="Taobao display ads",
        events=events,
        items=ibis.union(staging.one_row_per_item(known, FIELDS), _pseudo_items(log)),
        items_within=lambda keep: ibis.union(staging.one_row_per_item(known, FIELDS), _pseudo_items(keep(log))),
        item_fields=FIELDS,
        users=staging.one_row_per_item(profiles, PROFILE_FIELDS, key="user") if asked else None,
        user_fields=PROFILE_FIELDS if asked else (),
        event_types=True,
        impressions=shown.select("user", "item", "time", "sequence", response=clicked),
        protocol="impressions",
        record=record,
    )


def _pseudo_items(log: Any) -> Any:
    """The items of behaviours: a category and a brand, and no campaign or advertiser."""
    pseudo, nothing = log.select("item", "category", "brand").distinct(), ibis.null("string")
    pseudo = pseudo.mutate(brand=_value(pseudo["brand"]), campaign=nothing, advertiser=nothing)
    return pseudo.select("item", *FIELDS)


def _profiles(table: Any) -> Any:
    """Rows of `user_profile`, null where a value is missing."""
    return table.select("user", "sequence", **{name: _value(table[name]) for name in PROFILE_FIELDS})


def _value(column: Any) -> Any:
    """A column with null for the texts that mean no value."""
    return ibis.ifelse(column.isin(["", "NULL"]), ibis.null("string"), column)
