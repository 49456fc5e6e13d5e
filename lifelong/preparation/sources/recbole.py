"""RecBole atomic files: `.inter`, and optionally `.item` and `.user`.

The first line names columns and types, `user_id:token`, `item_id:token`, `timestamp:float`. The role of a file follows
from its columns: one with users and items has the interactions, one with items or users alone their fields. Columns
of the types token and token_seq (a list of words, one value here) are fields. Types float and float_seq are not, except
that of `rating` and of the time. Other files (`.kg`, `.link`, `.net`) are refused.

Options:
    user, item, time, rating: names of these columns. Default: those of RecBole, `user_id`, `item_id`, `timestamp` and
        `rating`.
    event_type: column with the kind of event. Default: none.
    fields: columns of the `.item` files that are item fields, separated by commas. Default: all that are no float.
    threshold: rating from which a row is a positive label; then every row is an impression, and an event too. Default:
        none, labels are sampled, unless `--tasks` asks for ratings.
    separator: between values. Default: a tab.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.errors import ConfigError, SourceError
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.mapping import ItemsMapping, TableMapping, UsersMapping, validated
from lifelong.preparation.sources.rawlog import RawLog
from lifelong.preparation.sources.table import read_mapped
from lifelong.preparation.sources.table_rows import open_log
from lifelong.preparation.sources.text import Layout, header_names

OPTIONS: dict[str, str | tuple[str, ...]] = {
    "user": "user_id",
    "item": "item_id",
    "time": "timestamp",
    "time_unit": ("s", "ms", "us", "ns", "ordinal"),
    "rating": "rating",
    "event_type": "",
    "fields": "",
    "threshold": "",
    "separator": "\t",
}
TYPES = ("token", "token_seq", "float", "float_seq")


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the atomic files."""
    delimiter = {"\\t": "\t", "tab": "\t"}.get(options["separator"], options["separator"])
    headers = {path: _header(path, delimiter) for path in paths}
    roles = _roles(headers, options)
    if not roles["inter"]:
        raise SourceError(
            "there is no file of interactions",
            file=str(paths[0]),
            expected="an .inter file",
            fix="name the folder of the dataset, or its .inter file",
        )
    mapping = _mapping(headers, roles, options, delimiter)
    raw = read_mapped(connection, open_log(connection, roles["inter"], mapping), mapping)
    if not options["threshold"]:
        raw.protocol = "temporal"
    return raw


def _header(path: Path, delimiter: str) -> dict[str, str]:
    """Name of each column -> its type."""
    named = header_names(path, Layout((), header=True, delimiter=delimiter))
    header = dict[str, str]()
    for at, text in enumerate(named):
        name, _, kind = text.rpartition(":")
        if not name or kind not in TYPES:
            raise SourceError(
                f"the header has {text!r}",
                file=str(path),
                line=1,
                column=at + 1,
                expected=f"NAME:TYPE with one of the types {', '.join(TYPES)}, such as user_id:token",
                fix="write the header as RecBole does",
            )
        header[name] = kind
    return header


def _roles(headers: Mapping[Path, Mapping[str, str]], options: Mapping[str, str]) -> dict[str, list[Path]]:
    """The files of interactions, items and users."""
    roles: dict[str, list[Path]] = {"inter": [], "item": [], "user": []}
    for path, header in headers.items():
        has_user, has_item = options["user"] in header, options["item"] in header
        if not has_user and not has_item:
            raise SourceError(
                f"its columns are {', '.join(header) or 'none'}",
                file=str(path),
                line=1,
                expected=f"a file with {options['user']}:token, {options['item']}:token or both",
                fix="leave out .kg, .link and .net files, or name the columns with --option user=, item=, or what is"
                " between values with --option separator=",
            )
        roles["inter" if has_user and has_item else "user" if has_user else "item"].append(path)
    return roles


def _mapping(
    headers: Mapping[Path, Mapping[str, str]],
    roles: Mapping[str, Sequence[Path]],
    options: Mapping[str, str],
    delimiter: str,
) -> TableMapping:
    """What the headers and the options say, as a mapping of `table`."""
    inter = headers[roles["inter"][0]]
    threshold = staging.check_number(options, "threshold")
    rated = options["rating"] in inter
    if threshold is not None and not rated:
        raise ConfigError(
            [f"threshold = {threshold:g} is for a rating, and there is no column {options['rating']}"],
            fix="leave out the threshold, or name the column: --option rating=NAME",
        )
    text = {"delimiter": delimiter, "quoted": False}
    sections: dict[str, Any] = {}
    for role, kind in (("item", ItemsMapping), ("user", UsersMapping)):
        if roles[role]:
            header = headers[roles[role][0]]
            fields = _fields(header, options[role], options["fields"] if role == "item" else "")
            files = [str(path.resolve()) for path in roles[role]]
            column = _column(header, options[role], roles[role][0])
            numbers = {"numbers": [name for name in fields if header[name] == "float"]} if role == "item" else {}
            sections[f"{role}s"] = validated(kind, {**text, "files": files, role: column, "fields": fields, **numbers})
    first = roles["inter"][0]
    named = {name: _column(inter, options[name], first) for name in ("user", "item", "time")}
    if options["event_type"]:
        named["event_type"] = _column(inter, options["event_type"], first)
    if rated:
        named["rating"] = f"{options['rating']}:{inter[options['rating']]}"
    given = {"name": f"RecBole {first.stem}", **text, **named, **sections, "time_unit": options["time_unit"]}
    return validated(TableMapping, given if threshold is None else {**given, "threshold": threshold})


def _column(header: Mapping[str, str], name: str, path: Path) -> str:
    """A column as the header has it."""
    if name not in header:
        raise SourceError(
            f"there is no column {name} (there are {', '.join(header)})",
            file=str(path),
            line=1,
            expected="a user, an item and a time in each row: the order of events is what a memory keeps",
            fix="name the column with --option user=, item= or time=",
        )
    return f"{name}:{header[name]}"


def _fields(header: Mapping[str, str], key: str, wanted: str) -> dict[str, str]:
    """Field -> column: the wanted ones, or all that are no float."""
    chosen = staging.words(wanted) or [name for name, kind in header.items() if name != key and "float" not in kind]
    absent = [name for name in chosen if name not in header]
    if absent:
        raise ConfigError(
            [f"fields: there is no column {name}" for name in absent], fix=f"columns: {', '.join(header)}"
        )
    return {name: f"{name}:{header[name]}" for name in chosen}
