"""Raw formats: one module per source.

A source checks its files while it stages them, from disk to disk in bounded memory, and records what it saw. `SOURCES`
maps the names on the command line to a `Source`; the module of a format, and the libraries that it needs, are loaded
when it is used.

    files --text.py | parquet.py--> tables in the connection --one module per format--> RawLog --> prepare
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.errors import SourceError, require
from lifelong.plugins import Registry
from lifelong.preparation.sources.rawlog import RawLog, Source

__all__ = ["SOURCES", "RawLog", "Source"]


@dataclass(frozen=True, slots=True)
class _Format:
    """A source with a module that is imported at its first call.

    Args:
        module: name of the module in this package; its `OPTIONS` are the names and defaults of its options, or the
            possible values, the default first. None: it checks them itself.
        summary: what it reads, for the help of the command line.
        engines: table engines that can read it.
        finds_files: whether it may be given no file, or folders.
    """

    module: str
    summary: str
    engines: tuple[str, ...] = ("duckdb", "spark")
    finds_files: bool = False

    def __call__(self, connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
        for library in ("ibis", "pyarrow"):
            require(library, extra="train", purpose="reading raw logs")
        from lifelong.preparation.engine import count
        from lifelong.preparation.sources.staging import check_files, check_options

        module, files = importlib.import_module(f"{__name__}.{self.module}"), [Path(path) for path in paths]
        if module.OPTIONS is not None:
            options = check_options(options, module.OPTIONS, source=self.module)
        reader: Source = module.read
        log = reader(connection, files if self.finds_files else check_files(files, source=self.module), options)
        if not count(log.events):
            named = ", ".join(map(str, files))
            raise SourceError(
                f"the source {self.module!r} has no events",
                file=named,
                expected="at least one event",
                fix="check the files: they hold no row that is an event",
            )
        return log


SOURCES: MutableMapping[str, Source] = Registry[Source](
    "sources",
    {
        source.module: source
        for source in (
            _Format("taobao", "Taobao UserBehavior csv: user, item, category, behaviour, time"),
            _Format("amazon", "Amazon 2014 reviews and meta, JSON and Python-literal lines"),
            _Format("xlong", "XLong: 1,000 events a line, given positive, negative and split"),
            _Format("taobao_ad", "Taobao Ad: raw_sample, ad_feature, behavior_log csv; real impressions"),
            _Format("ebnerd", "EB-NeRD behaviors, history and articles parquet; real impressions", ("duckdb",)),
            _Format("completejourney", "The Complete Journey: the parquet files of the pip package", finds_files=True),
            _Format("movielens", "MovieLens ratings and movies, csv or ::"),
            _Format("kuairand", "KuaiRand logs, video and user features, csv; real impressions, several labels"),
            _Format("yambda", "Yambda flat parquet: listens, likes, artists and albums"),
            _Format(
                "vk_lsvd", "VK-LSVD weeks, users_metadata and items_metadata, parquet; real impressions, several labels"
            ),
            _Format("taobao_mm", "Taobao-MM raw samples, user_features and item_features, parquet", ("duckdb",)),
            _Format("instacart", "Instacart orders, order_products and products, csv"),
            _Format("recbole", "RecBole atomic files: .inter, optional .item and .user"),
            _Format("fuxictr", "FuxiCTR csv or parquet: dataset_config.yaml, train, valid and test"),
            _Format("metarank", "Metarank events, JSON lines: rankings, interactions, items, users; real impressions"),
            _Format("table", "any csv or parquet with a mapping file"),
            _Format("served", "the impressions log of `lifelong serve`, with events or labels", finds_files=True),
            _Format("synthetic", "worlds with known answers; no files", finds_files=True),
        )
        if isinstance(source, _Format)
    },
)
