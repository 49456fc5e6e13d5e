"""Work on all that is written next to memories while it is recorded (`support.power_loss`), and what must be there.

    python -m support.power_files ARTIFACT ROOT SOURCE LOG SEED

Steps follow one another, as in `support.power_work`: lines of a growing file are applied, of which each third is no
event and becomes a dead letter; users are taken out of letters and of impressions; the list of artifacts changes; the
store is backed up, and stores are made of backups. After a loss of power each step that was acknowledged is there in
full, and the one that was under way can be done again.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lifelong.artifact.folder import Artifact
from lifelong.atomic import write_whole
from lifelong.errors import UsageError
from lifelong.online.ingestion.dead_letters import FileLetters, forget_letters
from lifelong.online.ingestion.files import ingest
from lifelong.online.memory.event import decode_event
from lifelong.online.memory.takeover import change, drop
from lifelong.online.memory.verify import verify
from lifelong.online.serving.impressions import forget_impressions
from lifelong.online.store.artifact_list import ArtifactList, StoreIdentity
from lifelong.online.store.backup import backup, restore
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.folder import left_copies
from lifelong.online.store.rocksdb import RocksDbStore
from support.power_loss import Speaker

USERS = [f"u{number}" for number in range(6)]
_STEPS, _BAD = 40, 3
_KINDS = ("ingest", "letters", "impressions", "list", "backup", "restore")
_LIST = ("add", "ready", "serve", "back", "drop")
OTHER = StoreIdentity("other", "fp32", "[]")


@dataclass(frozen=True, slots=True)
class State:
    """What is there after some steps.

    Args:
        lines: of the file that were applied.
        clean: users who were taken out of the letters, each with the lines that there were.
        unseen: how many users were taken out of the impressions.
        listed: how often the list of artifacts has changed.
        backups: lines in each backup.
        restored: lines in each store that was made of a backup.
    """

    lines: int = 0
    clean: dict[str, int] = field(default_factory=dict)
    unseen: int = 0
    listed: int = 0
    backups: tuple[int, ...] = ()
    restored: tuple[int, ...] = ()

    def after(self, kind: str, size: int) -> State:
        """What is there after one more step."""
        if kind == "ingest":
            return replace(self, lines=self.lines + size)
        if kind == "letters":
            return replace(self, clean={**self.clean, USERS[size % len(USERS)]: self.lines})
        if kind == "impressions":
            return replace(self, unseen=self.unseen + 1)
        if kind == "list":
            return replace(self, listed=self.listed + 1)
        if kind == "backup":
            return replace(self, backups=(*self.backups, self.lines))
        return replace(self, restored=(*self.restored, self.backups[-1]))


def steps(seed: int) -> list[tuple[str, int]]:
    """Kind and size of each step of a seed."""
    chance, made = random.Random(seed), [("ingest", 20), ("backup", 0)]
    for _ in range(_STEPS):
        kind = chance.choices(_KINDS, [8, 2, 3, 5, 2, 2])[0]
        impressions = sum(one == "impressions" for one, _ in made)
        made.append(
            ("ingest" if kind == "impressions" and impressions == len(USERS) else kind, chance.randrange(1, 30))
        )
    return made


def lines(number: int) -> str:
    """So many lines of the file; each third one is no event."""
    rows = [
        f"{USERS[at % len(USERS)]},i{at % 5},{'never' if at % _BAD == 2 else 1_700_000_000 + at}\n"
        for at in range(number)
    ]
    return "user,item,time\n" + "".join(rows)


class Work:
    """The steps, below one folder.

    Args:
        artifact: of the memories.
        root: where everything is.
        source: the file that grows, somewhere else.
        seed: of the steps.
    """

    def __init__(self, artifact: Artifact, root: Path, source: Path, seed: int) -> None:
        self.artifact, self.root, self.source, self.steps = artifact, root, source, steps(seed)

    def begin(self) -> None:
        """Write what is there before the first step."""
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        (self.root / "impressions").mkdir()
        for number, users in enumerate([[*USERS, "kept"], *([user] for user in USERS)]):
            with write_whole(self.root / "impressions" / f"impressions-{number}.parquet") as draft:
                parquet.write_table(arrow.table({"user": users}), draft)

    def do(self, before: State, kind: str, size: int) -> State:
        """Do a step; when it returns it is acknowledged."""
        after, root = before.after(kind, size), self.root
        if kind == "ingest":
            self.source.write_text(lines(after.lines))
            with self.store() as store, contextlib.closing(FileLetters(root / "letters")) as letters:
                ingest(self.artifact, store, self.source, on_bad="skip", dead_letters=letters)
        elif kind == "letters":
            forget_letters(root / "letters", [USERS[size % len(USERS)]])
        elif kind == "impressions":
            forget_impressions(root / "impressions", [USERS[before.unseen]])
        elif kind == "list":
            with self.listed() as store:
                _change_list(store, before.listed)
        elif kind == "backup":
            backup(root / "store", root / f"backup-{len(before.backups)}")
        else:
            restore(root / f"backup-{len(before.backups) - 1}", root / f"restored-{len(before.restored)}")
        return after

    @contextlib.contextmanager
    def store(self) -> Iterator[MemoryStore]:
        """The store of the memories."""
        with contextlib.closing(RocksDbStore(self.root / "store")) as store:
            yield store

    @contextlib.contextmanager
    def listed(self) -> Iterator[MemoryStore]:
        """A store whose list of artifacts changes."""
        with contextlib.closing(RocksDbStore(self.root / "listed")) as store:
            store.bind(StoreIdentity("first", "fp32", "[]"))
            yield store

    def check(self, said: Sequence[str]) -> None:
        """Compare what a loss of power left with what was acknowledged; do the step again that was under way.

        Raises:
            AssertionError: it is not as it must be.
        """
        done, begun = (sum(word.startswith(kind) for word in said) for kind in ("done", "begin"))
        if "ready" not in said:
            return
        state = State()
        for kind, size in self.steps[:done]:
            state = state.after(kind, size)
        under_way = state if begun == done else state.after(*self.steps[done])
        self._check_list(state, under_way)
        self._check_copies("backup", state.backups, under_way.backups)
        self._check_copies("restored", state.restored, under_way.restored)
        if done:
            self._check_lines(state, under_way)
        if begun > done:
            kind, size = self.steps[done]
            with contextlib.suppress(UsageError):
                # A backup or a store that is there already is whole, as was checked.
                under_way = self.do(state, kind, size)
            if kind in ("backup", "restore"):
                assert left_copies(self.root) == [], "the next run removes what the last one left"
        self._check_lines(under_way, under_way)
        self._check_impressions(under_way)

    def _check_list(self, state: State, under_way: State) -> None:
        if under_way.listed == 0:
            return
        with self.listed() as store:
            found = store.artifact_list()
        wanted = [_list_after(state.listed), _list_after(under_way.listed)]
        # To drop an artifact takes two writes.
        assert replace(found, dropping=()) in wanted or (found.dropping and under_way.listed > state.listed), found

    def _check_copies(self, name: str, done: Sequence[int], under_way: Sequence[int]) -> None:
        """Each is as long as it was, and those that are there are whole."""
        for number, wanted in enumerate(under_way):
            folder, again = self.root / f"{name}-{number}", self.root / "again"
            if not folder.exists():
                assert number >= len(done), f"{folder.name} is gone"
                continue
            if name == "backup":
                restore(folder, again)
                folder = again
            with contextlib.closing(RocksDbStore(folder, read_only=True)) as store:
                assert len(_items(store)) == _events(wanted), folder
            shutil.rmtree(again, ignore_errors=True)

    def _check_lines(self, state: State, under_way: State) -> None:
        """Each event once, each letter of a line that was passed, and none of users who were taken out."""
        with self.store() as store:
            found = len(_items(store))
            assert _events(state.lines) <= found <= _events(under_way.lines), (found, state, under_way)
            if state == under_way:
                assert found == _events(state.lines) and verify(self.artifact, None, store).equal
        with contextlib.closing(FileLetters(self.root / "letters")) as letters:
            letters.flush()
        rows = _letters(self.root / "letters")
        for at in range(2, state.lines, _BAD):
            user = USERS[at % len(USERS)]
            if under_way.clean.get(user, 0) <= at:
                assert at in rows, f"the letter of line {at} is gone"
        if state == under_way:
            for at in rows:
                assert at >= state.clean.get(USERS[at % len(USERS)], 0), f"the letter of line {at} is there again"

    def _check_impressions(self, state: State) -> None:
        import pyarrow.parquet as parquet

        files, left = sorted((self.root / "impressions").glob("*.parquet")), USERS[state.unseen :]
        found = [parquet.read_table(path).column("user").to_pylist() for path in files]
        assert found == [[*left, "kept"], *([user] for user in left)]


def _events(number: int) -> int:
    """Events in so many lines."""
    return number - len(range(2, number, _BAD))


def _items(store: MemoryStore) -> list[str]:
    return [decode_event(value).item for user in USERS for value in store.events(user)]


def _letters(path: Path) -> set[int]:
    """Lines of the whole letters of a file; a letter that was cut cannot be read."""
    found = set()
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            # The first line holds the names of columns.
            found.add(json.loads(line)["offset"] - 2)
    return found


def _change_list(store: MemoryStore, number: int) -> None:
    kind = _LIST[number % len(_LIST)]
    if kind == "drop":
        drop(store, OTHER.artifact_id)
        return
    change(store, lambda artifact_list: _changed(artifact_list, kind))


def _changed(artifact_list: ArtifactList, kind: str) -> ArtifactList:
    if kind == "add":
        return artifact_list.add(OTHER)
    if kind == "ready":
        return artifact_list.turn(OTHER.artifact_id, "ready")
    return artifact_list.serve(OTHER.artifact_id) if kind == "serve" else artifact_list.back()


def _list_after(number: int) -> ArtifactList:
    """The list after so many changes."""
    found = ArtifactList.of(StoreIdentity("first", "fp32", "[]"))
    for at in range(number):
        kind = _LIST[at % len(_LIST)]
        if kind == "drop":
            found = found.drop(OTHER.artifact_id)
            found = found.emptied(found.dropping[0])
        else:
            found = _changed(found, kind)
    return found


def main(artifact: str, root: str, source: str, log: str, seed: str) -> None:
    """Do the work of a seed."""
    work = Work(Artifact.open(Path(artifact)), Path(root), Path(source), int(seed))
    speaker, state = Speaker(Path(log)), State()
    work.begin()
    speaker.say("sync")
    speaker.say("ready")
    for number, (kind, size) in enumerate(work.steps):
        speaker.say(f"begin {number}")
        state = work.do(state, kind, size)
        speaker.say(f"done {number}")


if __name__ == "__main__":
    main(*sys.argv[1:6])
