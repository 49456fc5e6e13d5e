"""Raw formats: one mapping file per source, or one module where a format is no table.

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

from lifelong.errors import SourceError, UsageError, require
from lifelong.offline.preparation.sources.rawlog import RawLog, Source
from lifelong.plugins import Registry

__all__ = ["MAPPINGS", "SOURCES", "RawLog", "Source", "is_mapped"]

MAPPINGS: Path = Path(__file__).parents[1] / "mappings"
"""Folder of the mapping files of public logs, one a source."""


@dataclass(frozen=True, slots=True)
class _Format:
    """A source with a module that is imported at its first call.

    Args:
        module: name of the source, and of its module in this package if it has no mapping; the module's `OPTIONS` are
            the names and defaults of its options, or the possible values, the default first. None: it checks them
            itself.
        summary: what it reads, for the help of the command line.
        finds_files: whether it may be given no file, or folders.
        mapping: the mapping file that `table` reads it by, if there is one.
    """

    module: str
    summary: str
    finds_files: bool = False
    mapping: Path | None = None

    def __call__(self, connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
        for library in ("ibis", "pyarrow"):
            require(library, extra="train", purpose="reading raw logs")
        from lifelong.offline.preparation.engine import count
        from lifelong.offline.preparation.sources.staging import check_files, check_options

        module = importlib.import_module(f"{__name__}.{'table' if self.mapping else self.module}")
        files = [Path(path) for path in paths]
        if self.mapping is not None:
            options = {**options, "mapping": str(self._own_mapping(options))}
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

    def _own_mapping(self, options: Mapping[str, str]) -> Path:
        """The mapping that comes with the package.

        Raises:
            UsageError: another one is given.
        """
        if "mapping" in options:
            raise UsageError(
                f"the source {self.module!r} has a mapping of its own, and {options['mapping']} was given",
                expected="a mapping with the source table",
                fix=f"lifelong prepare table ... --mapping {options['mapping']}",
            )
        assert self.mapping is not None
        return self.mapping


def is_mapped(source: str) -> bool:
    """Whether a source is a mapping file of this package."""
    return (MAPPINGS / f"{source}.toml").exists()


def _summary(mapping: Path) -> str:
    """The first line of a mapping file, which is a comment."""
    with mapping.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


SOURCES: MutableMapping[str, Source] = Registry[Source](
    "sources",
    {
        source.module: source
        for source in (
            *(_Format(path.stem, _summary(path), mapping=path) for path in sorted(MAPPINGS.glob("*.toml"))),
            _Format("taobao", "Taobao UserBehavior csv: user, item, category, behaviour, time"),
            _Format("amazon", "Amazon 2014 reviews and meta, JSON and Python-literal lines"),
            _Format("xlong", "XLong: 1,000 events a line, given positive, negative and split"),
            _Format("completejourney", "The Complete Journey: the parquet files of the pip package", finds_files=True),
            _Format("table", "any csv, JSON lines or parquet with a mapping file"),
            _Format("served", "the impressions log of `lifelong serve`, with events or labels", finds_files=True),
            _Format("synthetic", "worlds with known answers; no files", finds_files=True),
        )
    },
)
