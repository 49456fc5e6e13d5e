"""Which source a file is, and whether its first lines are still those that were applied.

    name: given, else the path
      known to the store --> applied lines equal? --yes--> the run continues after them
      |                                         `--no---> refused: restore them, or give another name
      `- new --> applied as another file? --all of it, exactly--> its lines are duplicates
                                        |--it begins with it----> refused: continue that source, or give a name
                                        `--no-------------------> a new source

Stores of earlier releases name the source after the content of the file, and know no digest: there an unchanged file is
recognised by its content, and from then on by its path.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lifelong.errors import SourceError, UsageError
from lifelong.ingestion.file_reader import FileReader, unreadable
from lifelong.ingestion.prefix import Prefix
from lifelong.memory.filled import BACKFILL
from lifelong.store.contract import SOURCES, MemoryStore

Points = Mapping[int, str]
_ALL = 2**62
_EVERYWHERE = [str(number) for number in range(4_096)]
"""User ids, enough of them for every part of a store to hold some."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file as a source.

    Args:
        name: of its watermark.
        record: name under which the store keeps what was applied; None for a copy of a file that was applied.
        begun: what an earlier release has applied, to be kept under that name; None if there is nothing.
    """

    name: str
    record: str | None
    begun: Prefix | None = None


def find_source(
    store: MemoryStore, reader: Callable[[], FileReader], named: str | None, *, usual: str | None = None
) -> Source:
    """The source that a file is.

    Args:
        store: in which it is looked up.
        reader: gives a reader of the file, from its beginning.
        named: name of the source, None for the usual one.
        usual: by default the path.

    Raises:
        SourceError: lines that were applied are other ones now; or the file begins with what was applied from another
            path; or it cannot be read.
        UsageError: the name is taken.
    """
    if named == BACKFILL:
        raise UsageError(
            f"a source named {named!r}",
            expected="another name: a backfill has this one",
            fix="choose another name with --source",
        )
    known, path = _known(store), reader().path
    if not reader().regular:
        fix = "write what comes from it into a file"
        raise SourceError("can be read only once", file=str(path), expected="a file", fix=fix)
    record = (usual or path_source(path)) if named is None else named
    if record in known:
        _check(reader(), record, known[record])
        return Source(known[record][0].source, record)
    name = content_source(path) if named is None else named
    if max(store.positions(name, 0, _EVERYWHERE)) >= 0:
        return Source(name, record, _first_lines(reader(), store.watermark(name, 0), name))
    copied = _copied(reader, known) if named is None else None
    return copied or Source(record, record)


def path_source(path: Path) -> str:
    """The name of a file as a source: its path.

    >>> path_source(Path("/data/../data/events.csv"))
    'file:/data/events.csv'
    """
    return f"file:{path.resolve()}"


def table_source(reader: FileReader) -> str:
    """The name of a table in memory as a source: a digest of its values, whatever library it is of.

    Raises:
        SourceError: it cannot be read.
    """
    ((_, digest),) = reader.digests([_ALL])
    return f"table:{digest}"


def content_source(path: Path) -> str:
    """The name of a file as a source in stores of earlier releases: a hash of its content.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return f"file:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise unreadable(path, error) from error


def _known(store: MemoryStore) -> dict[str, list[Prefix]]:
    """Name -> what was applied of the source in each part of the store."""
    found = defaultdict(list)
    for name, value in store.scan(SOURCES):
        if name != BACKFILL:
            found[name].append(Prefix.from_json(value))
    return found


def _points(prefixes: Sequence[Prefix]) -> dict[int, str]:
    """Number of lines -> digest; where several parts have one the longer, in rising order."""
    found: dict[int, str] = {}
    for prefix in prefixes:
        for number, digest in prefix.points.items():
            found[number] = max(digest, found.get(number, ""), key=len)
    return dict(sorted(found.items()))


def _first_lines(reader: FileReader, number: int, name: str) -> Prefix:
    """The first lines of a file, as if they had been applied now."""
    # If the reader stops at an error, the file has at least the lines before it.
    list(reader.digests([number] if number > 0 else []))
    return reader.digest.prefix(name)


def _agreement(reader: FileReader, points: Points) -> tuple[int, int | None]:
    """(number of lines that certainly agree, a number of lines that do not agree; None if all do)."""
    agreed = 0
    for number, (there, digest) in zip(points, reader.digests(points), strict=False):
        if there < number or not digest.startswith(points[number]):
            return agreed, number
        agreed = number
    return agreed, None


def _check(reader: FileReader, name: str, prefixes: Sequence[Prefix]) -> None:
    """Refuse a file in which lines that were applied are not what they were.

    Raises:
        SourceError: says about where they differ.
    """
    points = _points(prefixes)
    agreed, other = _agreement(reader, points)
    if other is None:
        return
    applied, lines = max(points), reader.digest.lines
    if lines < other:
        found = f"{applied:,} lines were applied as {name}, and now there are {lines:,}"
    else:
        found = f"lines that were applied as {name} are other ones now: one of {agreed + 1:,} to {other:,}"
        found += f" (of {applied:,} that were applied)"
    raise SourceError(
        f"{found}; nothing was applied",
        file=str(reader.path),
        expected="the lines that were applied, in their places; those after them may be corrected, or new",
        fix="restore them and run again; or, if the file holds other events, say so with another name: --source NAME",
    )


def _copied(reader: Callable[[], FileReader], known: Mapping[str, Sequence[Prefix]]) -> Source | None:
    """The source that the whole file is a copy of; None if nothing was applied from another path that it begins with.

    Raises:
        SourceError: it begins with what was applied from another path.
    """
    points_of = {name: points for name, prefixes in known.items() if (points := _points(prefixes))}
    first = sorted({min(points) for points in points_of.values()})
    digest_of = dict(reader().digests(first))
    worst: tuple[int, str] = 0, ""
    for name, points in points_of.items():
        if not digest_of.get(min(points), "").startswith(points[min(points)]):
            continue
        agreed, other = _agreement(reader(), points)
        prefixes = known[name]
        if other is None and all(prefix.lines == agreed for prefix in prefixes) and _ends(reader(), agreed):
            return Source(prefixes[0].source, None)
        worst = max(worst, (agreed, name))
    agreed, name = worst
    if agreed == 0:
        return None
    path = reader().path
    raise SourceError(
        f"the first {agreed:,} lines were applied already, as {name}; nothing was applied",
        file=str(path),
        expected="a file of new events, or the file under the path or name under which it was applied",
        fix=f"if it was moved, continue it with --source '{name}'; if these are other events, give them a name of their"
        " own: --source NAME",
    )


def _ends(reader: FileReader, number: int) -> bool:
    """Whether a file has exactly this many lines."""
    ((there, _),) = reader.digests([number + 1])
    return there == number
