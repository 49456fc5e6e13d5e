"""KuaiRand (Pure, 1K, 27K): short videos with every exposure logged, and answers of several kinds.

The role of a file follows from its header: logs (`log_standard_*.csv`, `log_random_*.csv`), optional
`video_features_basic_*.csv` and `user_features_*.csv`. `video_features_statistic_*.csv` are refused: their counts are
of the whole period and would let the future in. Every exposure is an impression, labelled by the columns of `labels`;
exposures with a positive one are the events.

Source: Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022.

Options:
    labels: answers to predict, separated by commas, of `is_click`, `long_view`, `is_like`, `is_follow`, `is_comment`,
        `is_forward`, `is_hate` and `is_profile_enter`. Default: `is_click`.
    history: `positive` (default) or `all`: which exposures are events.
    fields: columns of the video features that are item fields. Default: author_id, video_type, music_id, tag.
    demographics: `drop` (default) or `keep`: columns of the user features that are bands or states, as profiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.errors import ConfigError
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.mapping import ItemsMapping, TableMapping, UsersMapping, validated
from lifelong.preparation.sources.rawlog import RawLog
from lifelong.preparation.sources.table import read_mapped
from lifelong.preparation.sources.table_rows import open_log
from lifelong.preparation.sources.text import Layout, header_names

LABELS = (
    "is_click",
    "long_view",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "is_profile_enter",
)
FIELDS = ("author_id", "video_type", "music_id", "tag")
PROFILE_FIELDS = (
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
)
OPTIONS: dict[str, str | tuple[str, ...]] = {
    "labels": "is_click",
    "history": ("positive", "all"),
    "fields": ",".join(FIELDS),
    "demographics": ("drop", "keep"),
}
MARKERS = {"log": "is_click", "videos": "video_type", "users": "user_active_degree"}
"""Role -> the column that only files of this role have."""


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the csv files."""
    labels = staging.words(options["labels"])
    strange = [name for name in labels if name not in LABELS]
    if strange or not labels:
        raise ConfigError([f"labels: {', '.join(strange) or 'none'}"], fix=f"some of {', '.join(LABELS)}")
    profiles = options["demographics"] == "keep"
    roles = staging.by_marker(
        ((path, header_names(path, Layout((), header=True, quoted=True))) for path in paths),
        MARKERS,
        dict.fromkeys(("log", "users") if profiles else ("log",), ""),
        expected="logs, video_features_basic and user_features, by their headers",
    )
    sections: dict[str, Any] = {}
    if roles["videos"]:
        files, fields = _names(roles["videos"]), list(staging.words(options["fields"]))
        sections["items"] = validated(ItemsMapping, {"files": files, "item": "video_id", "fields": fields})
    if profiles:
        files = _names(roles["users"])
        sections["users"] = validated(UsersMapping, {"files": files, "user": "user_id", "fields": list(PROFILE_FIELDS)})
    named = {"user": "user_id", "item": "video_id", "time": "time_ms", "time_unit": "ms", "labels": labels}
    mapping = validated(TableMapping, {"name": "KuaiRand", **named, "history": options["history"], **sections})
    return read_mapped(connection, open_log(connection, roles["log"], mapping), mapping)


def _names(paths: Sequence[Path]) -> list[str]:
    return [str(path.resolve()) for path in paths]
