"""Work for a store while it is recorded (`support.power_loss`), and what must be there after a loss of power.

    python -m support.power_work ARTIFACT URL LOG SEED [unsynced]

Steps follow one another, each with a word in the recording before it begins and after it was acknowledged: batches of a
source with offsets, of clients with event ids, erasures, and things that make the store change its files. So after a
loss of power there are the steps that were acknowledged, in full, and the one that was under way or not.
"""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lifelong.artifact.folder import Artifact
from lifelong.online.memory.event import UserEvent, decode_event
from lifelong.online.memory.forgetting import forget
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import verify
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.opening import local_folder, open_store
from lifelong.online.store.rocksdb import RocksDbStore
from support.power_loss import Speaker

SOURCE = "log"
START = 1_700_000_000
USERS = [f"u{number}" for number in range(7)]
ERASED = "erased"
"""A user whose events come with offsets alone, and who is erased now and then."""
_STEPS = 60


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the work.

    Args:
        kind: "source", "client", "forget", "purge" or "reopen".
        events: of a batch.
        first: offset of the first one, of a batch of the source.
    """

    kind: str
    events: tuple[UserEvent, ...] = ()
    first: int = 0

    def do(self, updater: Updater) -> None:
        """Do it; when it returns it is acknowledged."""
        if self.kind == "source":
            offsets = range(self.first, self.first + len(self.events))
            updater.apply(self.events, source=SOURCE, offsets=offsets)
        elif self.kind == "client":
            updater.apply(self.events)
        elif self.kind == "forget":
            forget(updater.store, ERASED)
        elif self.kind == "purge":
            updater.store.purge()


def steps(seed: int) -> list[Step]:
    """The work of a seed; the same each time."""
    chance, offset, made = random.Random(seed), 0, list[Step]()
    for number in range(_STEPS):
        kind = chance.choices(["source", "client", "forget", "purge", "reopen"], [10, 10, 2, 1, 1])[0]
        if number == 0 or kind == "source":
            size = chance.choice([1, 2, 5, 30])
            users = [chance.choice([*USERS, ERASED]) for _ in range(size)]
            events = [UserEvent(user, f"i{number}.{at}", START + number, "view") for at, user in enumerate(users)]
            made.append(Step("source", tuple(events), offset))
            offset += size
        elif kind == "client":
            users = [chance.choice(USERS) for _ in range(chance.choice([1, 1, 3, 12]))]
            events = [
                UserEvent(user, f"c{number}.{at}", START + number, "view", event_id=f"{number}.{at}")
                for at, user in enumerate(users)
            ]
            made.append(Step("client", tuple(events)))
        else:
            made.append(Step(kind))
    return made


def expected(done: Sequence[Step]) -> dict[str, list[str]]:
    """User -> the items of the events, in their order, after some steps."""
    found: dict[str, list[str]] = {user: [] for user in [*USERS, ERASED]}
    for step in done:
        if step.kind == "forget":
            found[ERASED] = []
        for event in step.events:
            found[event.user].append(event.item)
    return found


def found_in(store: MemoryStore) -> dict[str, list[str]]:
    """The same, as the event log of a store has it."""
    return {user: [decode_event(value).item for value in store.events(user)] for user in [*USERS, ERASED]}


def check(artifact: Artifact, store: MemoryStore, seed: int, said: Sequence[str], *, whole: bool) -> None:
    """Compare a store that was opened after a loss of power with what was acknowledged, and go on with the work.

    Args:
        artifact: of the memories.
        store: opened.
        seed: of the work.
        said: in the recording up to then.
        whole: whether a step is in the store for all users or for none.

    Raises:
        AssertionError: an acknowledged event is missing, one is there twice, or a memory is not what its log gives.
    """
    work = steps(seed)
    told, begun = (sum(word.startswith(kind) for word in said) for kind in ("done", "begin"))
    assert told <= begun <= told + 1
    before, after, found = expected(work[:told]), expected(work[:begun]), found_in(store)
    if whole:
        assert found in (before, after), f"after {told} steps: {_difference(before, after, found)}"
    for user, items in found.items():
        assert items in (before[user], after[user]), f"after {told} steps: {_difference(before, after, found)}"
    # What was in doubt is sent again, and so is what was acknowledged just before.
    updater = Updater(artifact, store)
    for number, step in enumerate(work[max(0, told - 4) : begun + 2], max(0, told - 4)):
        if step.events or (step.kind == "forget" and number >= told):
            step.do(updater)
    wanted, found = expected(work[: begun + 2]), found_in(store)
    assert found == wanted, f"sent again after {told} steps: {_difference(wanted, wanted, found)}"
    report = verify(artifact, None, store)
    assert report.equal, report.reasons


def _difference(before: Any, after: Any, found: Any) -> str:
    return "; ".join(
        f"{user} has {found[user]}, not {before[user]} or {after[user]}"
        for user in found
        if found[user] not in (before[user], after[user])
    )


def _small_tables() -> None:
    """Let RocksDB change its files often: a new one of the log for each 16 KiB."""
    rocksdict: Any = importlib.import_module("rocksdict")

    opened = rocksdict.Rdict

    def small(place: str, options: Any, *, column_families: dict[str, Any], **more: Any) -> Any:
        for each in (options, *column_families.values()):
            each.set_write_buffer_size(16_384)
            each.set_level_zero_file_num_compaction_trigger(2)
        return opened(place, options, column_families=column_families, **more)

    rocksdict.Rdict = small


def main(folder: str, url: str, log: str, seed: str, *, unsynced: bool = False) -> None:
    """Do the work of a seed; it is not closed at the end: the last moment is like any other."""
    if url.startswith("rocksdb"):
        _small_tables()
    artifact, speaker = Artifact.open(Path(folder)), Speaker(Path(log))
    opened = partial(RocksDbStore, local_folder(url), sync=False) if unsynced else partial(open_store, url)
    store: MemoryStore = opened()
    for number, step in enumerate(steps(int(seed))):
        speaker.say(f"begin {number}")
        if step.kind == "reopen":
            store.close()
            store = opened()
        step.do(Updater(artifact, store))
        if step.kind == "purge" and url.startswith("redis"):
            # Its log is written anew, by a process of its own.
            port = url.rpartition(":")[2].partition("/")[0]
            subprocess.run(["valkey-cli", "-p", port, "bgrewriteaof"], check=True, capture_output=True)
        speaker.say(f"done {number}")


if __name__ == "__main__":
    main(*sys.argv[1:5], unsynced=sys.argv[5:] == ["unsynced"])
