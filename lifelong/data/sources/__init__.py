"""Raw formats: one file a source.

A source checks its files while it stages them, from disk to disk in bounded memory, and says what it saw. `SOURCES`
maps the name that the command line knows to a `Source`; a format's module, and the libraries it needs, load when it is
used.

    files --text.py | parquet.py--> tables in the connection --one module a format--> RawLog --> prepare
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.data.sources.rawlog import RawLog, Source
from lifelong.errors import require

__all__ = ["SOURCES", "RawLog", "Source"]


@dataclass(frozen=True, slots=True)
class _Format:
    """A source whose module is imported at its first call.

    Args:
        module: name of the module in this package.
        summary: what it reads, for the command line's help.
        engines: that can read it.
    """

    module: str
    summary: str
    engines: tuple[str, ...] = ("duckdb", "spark")

    def __call__(self, connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
        for library in ("ibis", "pyarrow"):
            require(library, extra="train", purpose="reading raw logs")
        reader: Source = importlib.import_module(f"{__name__}.{self.module}").read
        return reader(connection, [Path(path) for path in paths], options)


SOURCES: dict[str, Source] = {
    source.module: source
    for source in (
        _Format("taobao", "Taobao UserBehavior csv: user, item, category, behaviour, time"),
        _Format("amazon", "Amazon 2014 reviews and meta, JSON and Python-literal lines"),
        _Format("xlong", "XLong: 1,000 events a line, given positive, negative and split"),
        _Format("taobao_ad", "Taobao Ad: raw_sample, ad_feature, behavior_log csv; real impressions"),
        _Format("ebnerd", "EB-NeRD behaviors, history and articles parquet; real impressions", ("duckdb",)),
        _Format("completejourney", "The Complete Journey: the parquet files of the pip package"),
        _Format("movielens", "MovieLens ratings and movies, csv or ::"),
        _Format("table", "any csv or parquet with a mapping file"),
        _Format("served", "the impressions log of `lifelong serve`, with events or labels"),
        _Format("synthetic", "worlds with known answers; no files"),
    )
    if isinstance(source, _Format)
}
