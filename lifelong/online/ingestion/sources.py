"""Which source a file is, and whether its first lines are still those that were applied.

name: given, else the path
known to the store --> applied lines equal, mapping too? --yes--> the run continues after them
|                                                        `--no---> refused
|- new path --> applied as another file? --all of it, exactly--> its lines are duplicates
|                                        |--it begins with it--> refused
|                                        `--no-----------------> a new source
`- new name --> has it events that were applied? --yes--> refused, unless events have ids
`--no--> a new source
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lifelong.errors import SourceError, UsageError
from lifelong.online.ingestion.file_reader import FileReader
from lifelong.online.ingestion.prefix import Prefix, traced
from lifelong.online.ingestion.task import batches_of
from lifelong.online.ingestion.text_lines import EVERY
from lifelong.online.store.contract import BACKFILL, SOURCES, MemoryStore

Points = Mapping[int, str]
_EVERYWHERE = [str(number) for number in range(4_096)]
"""User ids, enough of them for every part of a store to hold some."""
_RESTORE = "restore them and run again; write lines that are new into a file of their own"


@dataclass(frozen=True, slots=True)
class Source:
    """A file as a source.

    Args:
        name: of its watermark.
        record: name under which the store keeps what was applied; None for a copy of a file that was applied.
        known: digests of its lines that were applied, by how many they are.
    """

    name: str
    record: str | None
    known: Points = field(default_factory=dict)


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
        SourceError: lines that were applied are other ones now; or the file has lines that were applied as another
            source; or it cannot be read.
        UsageError: the name is taken, or the lines were applied with another mapping.
    """
    if named == BACKFILL:
        raise UsageError(
            f"a source named {named!r}",
            expected="another name: a backfill has this one",
            fix="choose another name with --source (source=NAME)",
        )
    known, path = known_sources(store), reader().path
    record = (usual or path_source(path)) if named is None else named
    if record in known:
        _check_mapping(reader(), record, known[record])
        _check_lines(reader, record, known)
        return Source(known[record][0].source, record, points_of(known[record]))
    if max(store.positions(record, 0, _EVERYWHERE)) >= 0:
        raise UsageError(
            f"{record!r} is the name of a source that is no file",
            expected="another name: events of a topic were applied under this one",
            fix="choose another name with --source (source=NAME)",
        )
    if named is not None:
        _check_events(reader, known)
    return (_copied(reader, known) if named is None else None) or Source(record, record)


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
    ((_, digest),) = reader.digests([EVERY])
    return f"table:{digest}"


def known_sources(store: MemoryStore) -> dict[str, list[Prefix]]:
    """Name -> what was applied of the source in each part of the store."""
    found = defaultdict(list)
    for name, value in store.scan(SOURCES):
        if name != BACKFILL:
            found[name].append(Prefix.from_json(value))
    return found


def points_of(prefixes: Sequence[Prefix]) -> dict[int, str]:
    """Number of lines -> digest; where several parts have one the longer, in rising order."""
    found: dict[int, str] = {}
    for prefix in prefixes:
        for number, digest in prefix.points.items():
            found[number] = max(digest, found.get(number, ""), key=len)
    return dict(sorted(found.items()))


def _agreement(reader: FileReader, points: Points) -> tuple[int, int | None]:
    """(number of lines that certainly agree, a number of lines that do not agree; None if all do)."""
    agreed = 0
    for number, (there, digest) in zip(points, reader.digests(list(points)), strict=False):
        if there < number or not digest.startswith(points[number]):
            return agreed, number
        agreed = number
    return agreed, None


def _check_mapping(reader: FileReader, name: str, prefixes: Sequence[Prefix]) -> None:
    """Refuse to read the rest of a file otherwise than its lines that were applied.

    Raises:
        UsageError: says how they were read.
    """
    for prefix in prefixes:
        # Item fields that only one of the two artifacts has say nothing.
        now = reader.rows.reading
        other = {ours: was for ours, was in prefix.columns.items() if now.get(ours, was) != was}
        if not other:
            continue
        found = ", ".join(f"{ours}={now[ours]}" for ours in other if now[ours] is not None)
        words = [f"--column '{ours}={was}'" for ours, was in other.items() if was is not None]
        without = ", ".join(ours for ours, was in other.items() if was is None)
        fix = " ".join(["give", *words]) if words else ""
        fix += " and " * bool(words and without) + f"say nothing of {without}" * bool(without)
        fix += "; if the first lines were read wrongly, fill a new store"
        if not any(one.traces for one in prefixes):
            # All of its lines were left out, as no events: nothing can come twice.
            fix = "no event of it was applied: with the right mapping, give it a name of its own: --source NAME"
        raise UsageError(
            f"{reader.path}: its first lines were applied as {name} with another mapping than"
            f" {found or 'without ' + ', '.join(other)}; nothing was applied",
            expected="one mapping for all lines of a file",
            fix=fix,
        )


def _check_lines(reader: Callable[[], FileReader], name: str, known: Mapping[str, Sequence[Prefix]]) -> None:
    """Refuse a file in which lines that were applied are not what they were.

    Raises:
        SourceError: says about where they differ.
    """
    points, first = points_of(known[name]), reader()
    agreed, other = _agreement(first, points)
    if other is None:
        return
    applied, lines, path = max(points), first.digest.lines, str(first.path)
    if lines < other:
        found = f"{applied:,} lines were applied as {name}, and now there are {lines:,}"
    else:
        found = f"lines that were applied as {name} are other ones now: one of {agreed + 1:,} to {other:,}"
        found += f" (of {applied:,} that were applied)"
    fix = _RESTORE
    if not _applied_events(reader(), known):
        # Nothing that is in it was applied, so under another name nothing comes twice.
        fix = f"if the older file was moved, continue it first with --source '{name}'; then give this one a name of its"
        fix += " own: --source NAME"
    raise SourceError(
        f"{found}; nothing was applied",
        file=path,
        expected="the lines that were applied, in their places; those after them may be corrected, or new",
        fix=fix,
    )


def _applied_events(reader: FileReader, known: Mapping[str, Sequence[Prefix]]) -> dict[str, int]:
    """Name of a source -> the first line of a file with an event of it, as far as traces of events tell."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, prefixes in known.items():
        for trace in {trace for prefix in prefixes for trace in prefix.traces}:
            names[trace].append(name)
    found: dict[str, int] = {}
    # Where the file cannot be read, the run stops by itself, after the lines before.
    with suppress(SourceError), closing(batches_of(reader, None, skip=EVERY)) as batches:
        for batch in batches if names else ():
            for place, trace in traced(batch.table, names):
                for name in names[trace]:
                    found.setdefault(name, int(batch.offsets[place]))
    return found


def _copied(reader: Callable[[], FileReader], known: Mapping[str, Sequence[Prefix]]) -> Source | None:
    """The source that the whole file is a copy of; None if nothing was applied from another path that it begins with.

    Raises:
        SourceError: it begins with what was applied from another path.
    """
    points_of_name = {name: points for name, prefixes in known.items() if (points := points_of(prefixes))}
    first = sorted({min(points) for points in points_of_name.values()})
    digest_of = dict(reader().digests(first))
    worst: tuple[int, str] = 0, ""
    for name, points in points_of_name.items():
        if not digest_of.get(min(points), "").startswith(points[min(points)]):
            continue
        agreed, other = _agreement(reader(), points)
        prefixes = known[name]
        if other is None and all(prefix.lines == agreed for prefix in prefixes) and _ends(reader(), agreed):
            _check_mapping(reader(), name, prefixes)
            return Source(prefixes[0].source, None, points)
        # The source with which most lines agree says most of what the file is.
        worst = max(worst, (agreed, name))
    agreed, name = worst
    if agreed == 0:
        return None
    raise _known_already(reader, f"the first {agreed:,} lines were applied already", name, known[name])


def _check_events(reader: Callable[[], FileReader], known: Mapping[str, Sequence[Prefix]]) -> None:
    """Refuse a file under a new name with events that were applied already.

    Raises:
        SourceError: says as what.
    """
    # Those with ids may come again: the ids tell.
    if reader().rows.reading["event_id"] is None:
        for name, line in _applied_events(reader(), known).items():
            raise _known_already(reader, f"the event of line {line:,} was applied already", name, known[name])


def _known_already(reader: Callable[[], FileReader], found: str, name: str, prefixes: Sequence[Prefix]) -> SourceError:
    fix = "write lines that are new into a file of their own"
    if _agreement(reader(), points_of(prefixes))[1] is None:
        fix = f"if it is the same file, continue it with --source '{name}'; else {fix}"
    return SourceError(
        f"{found}, as {name}; nothing was applied",
        file=str(reader().path),
        expected="a file of new events, or the file under the path or name under which it was applied",
        fix=fix,
    )


def _ends(reader: FileReader, number: int) -> bool:
    """Whether a file has exactly this many lines."""
    ((there, _),) = reader.digests([number + 1])
    return there == number
