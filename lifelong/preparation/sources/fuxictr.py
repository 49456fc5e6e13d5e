"""FuxiCTR data: `dataset_config.yaml`, and the csv or parquet files of training, validation and test.

The config names one or more datasets; each has `feature_cols`, `label_col` and the files (`train_data`, `valid_data`,
`test_data`, relative to the config). Files that are named with the config take their place: the role of each is the
word train, valid or test in its name.

Every row is an impression with the label; rows with a label above 0 are the events. The given split is kept (protocol
`given`). Sequence columns, such as a click history, are not read: a memory takes the same events from the rows. FuxiCTR
does not say which feature is the user, which the item and which the time, so options do.

Options:
    dataset: name of the dataset in the config. Default: the only one.
    user, item: columns. Default: `user_id` and `item_id`.
    time: column with the time in seconds; empty: rows are in the order in which they happened. Default: empty.
    fields: columns that are item fields, separated by commas. Default: categorical features with `item` as `source`.
    history: `positive` (default) or `all`: which rows are events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis

from lifelong.errors import ConfigError, SourceError, require
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.mapping import TableMapping, validated
from lifelong.preparation.sources.rawlog import RawLog
from lifelong.preparation.sources.table import read_mapped
from lifelong.preparation.sources.table_rows import SEQUENCE, open_log

OPTIONS: dict[str, str | tuple[str, ...]] = {
    "dataset": "",
    "user": "user_id",
    "item": "item_id",
    "time": "",
    "time_unit": ("s", "ms", "us", "ns", "iso"),
    "fields": "",
    "history": ("positive", "all"),
}
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
"""FuxiCTR's word for a split -> ours."""


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open a dataset by its config."""
    configs = [path for path in paths if path.suffix in (".yaml", ".yml")]
    if len(configs) != 1:
        raise SourceError(
            f"{len(configs)} files are named .yaml",
            file=str(paths[0]),
            expected="one dataset_config.yaml",
            fix="name the dataset's own dataset_config.yaml alone",
        )
    name, config = _dataset(configs[0], options["dataset"])
    named = _by_name([path for path in paths if path not in configs])
    files = {role: named.get(role) or _of_config(configs[0], config, role) for role in SPLITS}
    chosen = {role: found for role, found in files.items() if found}
    if not chosen.get("train") or not chosen.get("test"):
        raise SourceError(
            "the files of training and test are missing",
            file=str(configs[0]),
            expected="both",
            fix="name the folder that holds the files of the dataset",
        )
    mapping = _mapping(name, config, options, configs[0])
    opened = open_log(connection, [path for found in chosen.values() for path in found], mapping)
    raw = read_mapped(connection, opened, mapping)
    places = [role for role, found in chosen.items() for _ in found]
    shown = raw.impressions
    assert shown is not None
    whens = [(shown["sequence"] >= first, SPLITS[role]) for first, role in zip(opened.first, places, strict=True)]
    raw.impressions = shown.mutate(split=ibis.cases(*reversed(whens), else_="train"))
    raw.protocol = "given"
    raw.record["sequence_columns"] = len([each for each in _features(config) if each.get("type") == "sequence"])
    return raw


def _dataset(path: Path, wanted: str) -> tuple[str, Mapping[str, Any]]:
    """Name and settings of one dataset of a config."""
    yaml = require("yaml", extra="train", purpose="reading dataset_config.yaml")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SourceError(
            f"cannot be read: {error}", file=str(path), expected="YAML", fix="correct the file"
        ) from error
    datasets = {str(name): each for name, each in found.items() if isinstance(each, dict)} if found else {}
    name = wanted or (next(iter(datasets)) if len(datasets) == 1 else "")
    if name not in datasets:
        raise SourceError(
            f"it has no dataset {name!r}" if name else f"it has {len(datasets)} datasets",
            file=str(path),
            expected=f"one of {', '.join(datasets) or 'none'}",
            fix="name one with --option dataset=",
        )
    return name, datasets[name]


def _by_name(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Role -> files, by the word in their names."""
    roles: dict[str, list[Path]] = {}
    for path in paths:
        role = next((role for role in SPLITS if role in path.name.lower()), None)
        if role is None:
            raise SourceError(
                "its name does not say its split",
                file=str(path),
                expected=f"a name with {', '.join(SPLITS)}",
                fix="rename the file",
            )
        roles.setdefault(role, []).append(path)
    return roles


def _of_config(path: Path, config: Mapping[str, Any], role: str) -> list[Path]:
    """Files of a split as the config names them."""
    named = config.get(f"{role}_data")
    if not named:
        return []
    # FuxiCTR takes them relative to where it is called.
    found = [staging.expand(folder, str(named)) for folder in (path.parent, Path())]
    there = next((files for files in found if files[0].exists()), found[0])
    return staging.check_files(there, source="fuxictr")


def _features(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Active features, one for each name."""
    every = [each for each in config.get("feature_cols") or [] if each.get("active", True)]
    return [
        {**each, "name": str(name)}
        for each in every
        for name in (each["name"] if isinstance(each.get("name"), list) else [each.get("name")])
    ]


def _mapping(name: str, config: Mapping[str, Any], options: Mapping[str, str], path: Path) -> TableMapping:
    """What config and options say, as a mapping of `table`."""
    given = config.get("label_col") or []
    labels = [str(each["name"]) for each in (given if isinstance(given, list) else [given]) if each.get("name")]
    if not labels:
        raise SourceError(
            f"the dataset {name} has no label_col",
            file=str(path),
            expected="label_col: {name: click}",
            fix="add it to the file",
        )
    features = _features(config)
    fields = staging.words(options["fields"]) or [
        each["name"]
        for each in features
        if each.get("source") == "item" and each.get("type") == "categorical" and each["name"] != options["item"]
    ]
    known = {each["name"] for each in features}
    absent = [field for field in fields if field not in known]
    if absent:
        raise ConfigError(
            [f"fields: {field} is no active feature" for field in absent], fix=f"features: {', '.join(sorted(known))}"
        )
    time = {"time": options["time"], "time_unit": options["time_unit"]}
    if not options["time"]:
        time = {"time": SEQUENCE, "time_unit": "ordinal"}
    numbers = [each["name"] for each in features if each["name"] in fields and each.get("type") == "numeric"]
    named = {"user": options["user"], "item": options["item"], "labels": labels, "fields": fields, "numbers": numbers}
    return validated(TableMapping, {"name": f"FuxiCTR {name}", **named, **time, "history": options["history"]})
