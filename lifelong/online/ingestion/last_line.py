"""Puts a whole line in the place of one that was applied without its end.

    log of the user    .. event of the line as it was ..   -->   .. event of the whole line ..
    memory             of the log as it was                -->   of the whole log, folded again

Both are one commit, with the digest of the whole line. Other events of the user keep their places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lifelong.artifact.folder import Artifact
from lifelong.errors import SourceError, StoreUnavailableError
from lifelong.online.ingestion.file_reader import FileReader
from lifelong.online.ingestion.rows import Problem
from lifelong.online.ingestion.sources import finished_line, known_sources
from lifelong.online.memory.event import decode_event, encode_event
from lifelong.online.memory.runtime import identity_of
from lifelong.online.memory.updater import Updater, UserEvent
from lifelong.online.store.contract import ITEMS, SOURCES, Commit, MemoryStore, until_kept
from lifelong.online.store.ram import InMemoryStore


def correct_last_line(artifact: Artifact, store: MemoryStore, reader: Callable[[], FileReader], name: str) -> None:
    """Correct the last line that was applied of a file, if it was applied without its end and goes on now.

    Args:
        artifact: the one that is served.
        store: open for writing.
        reader: gives a reader of the file, from its beginning.
        name: under which the store keeps what was applied of the file.

    Raises:
        SourceError: the line as a whole is no event, or the event that was applied cannot be taken back; nothing has
            changed.
        StoreUnavailableError: the store does not answer.
    """
    prefixes = known_sources(store).get(name, [])
    found = finished_line(reader, prefixes) if prefixes else None
    if found is None:
        return
    cut, line = found
    applied, whole = max(prefix.lines for prefix in prefixes), reader()
    list(whole.digests([applied]))
    sources = {name: whole.prefix(prefixes[0].source).to_json()}
    wrong, right = whole.event(line[: cut.size]), whole.event(line)
    if isinstance(right, Problem):
        raise whole.bad(applied, right.found, column=right.column, expected=right.expected)

    def attempt(refused: frozenset[str] | None) -> None:
        why, change = _corrected(artifact, store, prefixes[0].source, applied, wrong, right)
        if why:
            raise SourceError(
                f"the event that was made of the line without its end cannot be taken back: {why}; nothing was applied",
                file=str(whole.path),
                line=applied,
                expected="its event in the log of the same user, which holds all of her events",
                fix="fill a new store from all files",
            )
        store.commit(_with_sources(change, sources))

    until_kept(attempt, lambda: StoreUnavailableError("others write this user all the time", fix="run it again"))


def _with_sources(change: Commit, sources: dict[str, bytes]) -> Commit:
    return replace(change, records={**change.records, SOURCES: sources})


def _corrected(
    artifact: Artifact, store: MemoryStore, source: str, line: int, wrong: UserEvent | Problem, right: UserEvent
) -> tuple[str, Commit]:
    """Why it cannot be done, "" if it can; and what it changes."""
    artifacts = store.artifact_list()
    stored = artifacts.require_served()
    if isinstance(wrong, Problem):
        return "it is no event", Commit()
    if store.positions(source, 0, [wrong.user])[0] < line:
        # This part of the store has not come so far.
        return "", Commit()
    if len(artifacts.artifacts) > 1:
        return "another artifact takes over", Commit()
    if wrong.user != right.user:
        return f"it is one of user {wrong.user!r}, and the whole line one of {right.user!r}", Commit()
    user, (record,) = right.user, store.read_many([right.user], space=stored.space)
    ((*log,),) = store.logs([(user, 0)])
    values = [value for _, value in log]
    old, new = encode_event(wrong), encode_event(right)
    if old not in values and new in values:
        # An earlier run was interrupted between the parts of a store.
        return "", Commit()
    if values.count(old) != 1:
        return f"the log of user {user!r} holds it {values.count(old)} times", Commit()
    count = Updater(artifact, store).runtime.decode([record]).count_B[0]
    if [number for number, _ in log] != list(range(1, int(count) + 1)):
        return f"the log of user {user!r} does not hold all events", Commit()
    place = values.index(old)
    values[place] = new
    memory = _memory(artifact, store, user, values)
    records, bases = {stored.space: {user: memory}}, {stored.space: {user: record}}
    return "", Commit(records, bases, events={(user, place + 1): new}, epoch=artifacts.epoch)


def _memory(artifact: Artifact, store: MemoryStore, user: str, log: Sequence[bytes]) -> bytes:
    """The memory after all events of a log."""
    scratch, found = InMemoryStore(), [decode_event(value) for value in log]
    items = [event.item for event in found]
    online = zip(items, store.read_many(items, space=ITEMS), strict=True)
    scratch.commit(Commit({ITEMS: {item: value for item, value in online if value is not None}}))
    updater = Updater(artifact, scratch, codec=identity_of(artifact, store).codec)
    events = [UserEvent(user, event.item, event.time, event.event_type, event.fields) for event in found]
    # With places in a source, times are not compared with the clock again.
    updater.apply(events, source="log", offsets=range(len(events)))
    (memory,) = scratch.read_many([user], space=scratch.artifact_list().require_served().space)
    assert memory is not None
    return memory
