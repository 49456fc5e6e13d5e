"""A loss of power at any moment of a recorded run: what a disk may hold then.

    process under power_loss.c --> log of its file operations --cut--> what was synced, and a part of what was not

What is certain: the content of a file up to its last `fsync` or `fdatasync` that had returned, and the names in a
folder up to the last `fsync` of the folder; a name that was synced says nothing about the content behind it, nor a
content about its name. Of what came later (`MODELS`):

    nothing     nothing of it is there
    in order    all up to some moment is there, the last write of it torn at any byte
    names       names are there up to some moment, as a journal keeps them; of data any pages, see below
    any         names are there up to some moment, another one in each folder; of each write any sectors or pages: one
                that is missing inside a file is zeros, and a file may have grown without its data

So a file may be empty, end with zeros or have holes; a rename may be there without the content, or not be there; what
was removed may be there again. Names of one folder keep their order, which every file system with a journal gives and
RocksDB relies on: CURRENT is renamed before the folder that has a new MANIFEST is synced.

Sources: LazyFS (Ramos et al., "When Amnesia Strikes", VLDB 2024) for what is dropped; ALICE (Pillai et al., "All File
Systems Are Not Created Equal", OSDI 2014) for what is kept of names and of parts of writes.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MODELS = ("nothing", "in order", "names", "any")
_HEAD = struct.Struct("<QQIIc7x")
_SOURCE = Path(__file__).with_name("power_loss.c")
_CREATED, _EMPTIED = 1, 2
SAID = "!"
"""Kind of a record that is no operation of a file: what a client says."""
SYNC = "sync"
"""Said by a client that has brought everything to the disk, as the command does."""


def recorder() -> Path | None:
    """The library that records, compiled; None where there is no C compiler."""
    return library(_SOURCE)


@functools.cache
def library(source: Path) -> Path | None:
    """A library to be loaded with LD_PRELOAD, compiled; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    made = Path(tempfile.mkdtemp(prefix="lifelong-library-")) / f"{source.stem}.so"
    words = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(made), str(source), "-ldl", "-lpthread"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return made if done.returncode == 0 else None


def recording(root: Path, log: Path) -> dict[str, str]:
    """Variables of the environment of a process whose operations below a folder are recorded."""
    return {"LD_PRELOAD": str(recorder()), "LIFELONG_RECORD_ROOT": str(root), "LIFELONG_RECORD_LOG": str(log)}


class Speaker:
    """Puts what a client knows between the operations: at its place in their order.

    Args:
        log: of the recording.
    """

    def __init__(self, log: Path) -> None:
        self._file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(self, word: str) -> None:
        """Put down a word."""
        data = word.encode()
        os.write(self._file, _HEAD.pack(0, 0, len(data), 0, SAID.encode()) + data)


@dataclass(frozen=True, slots=True)
class Record:
    """One operation, or a word of a client."""

    kind: str
    handle: int
    offset: int
    data: bytes
    second: bytes


def records(log: Path) -> list[Record]:
    """All of a recording, in order."""
    data, at, found = log.read_bytes(), 0, []
    while at < len(data):
        handle, offset, length, second, kind = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        end = at + length + second
        found.append(Record(kind.decode(), handle, offset, data[at : at + length], data[at + length : end]))
        at = end
    return found


@dataclass(slots=True, eq=False)
class Node:
    """A file or folder: what is certain, what it is now, and changes of its content that are not certain.

    A change is (number, offset, data); without data the file gets the length `offset`.
    """

    folder: bool = False
    sure: bytearray = field(default_factory=bytearray)
    unsure: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    names: dict[str, Node] = field(default_factory=dict)
    sure_names: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Renaming:
    """Names that change together: (folder, name, what has it now)."""

    number: int
    names: tuple[tuple[Node, str, Node | None], ...]


def _write(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        offset, data = len(content), bytes(max(0, offset - len(content)))
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class Disk:
    """What is on the disk while a recording goes on.

    Args:
        root: the folder that was recorded; it was empty.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.tree, self.number = root.resolve(), Node(folder=True), 0
        self.said: list[str] = []
        self._handles: dict[int, Node] = {}
        self._begun: dict[int, list[int]] = {}
        self._unsure: list[Renaming] = []
        self._touched: dict[Node, None] = {}

    def play(self, *made: Record) -> None:
        """Go on by some operations."""
        for record in made:
            self._play(record)

    def _play(self, record: Record) -> None:
        self.number += 1
        place = self._handles.get(record.handle)
        if record.kind in "od":
            self._open(record)
        elif record.kind in "wt":
            assert place is not None
            place.unsure.append((self.number, record.offset, record.data if record.kind == "w" else None))
            self._touched[place] = None
        elif record.kind == "b":
            self._begun.setdefault(record.handle, []).append(self.number)
        elif record.kind == "s":
            assert place is not None
            self._sync(place, self._begun[record.handle].pop(0))
        elif record.kind in "rlum":
            self._name(record)
        else:
            self.said.append(record.data.decode())
            if self.said[-1] == SYNC:
                self._sync_all()

    def _at(self, path: bytes) -> tuple[Node, str]:
        """The folder of a path, and the name in it."""
        parts = Path(os.fsdecode(path)).relative_to(self.root).parts
        node = self.tree
        for part in parts[:-1]:
            node = node.names[part]
        return node, parts[-1] if parts else ""

    def _open(self, record: Record) -> None:
        folder, name = self._at(record.data)
        if record.offset & _CREATED and record.kind == "o":
            self._change((folder, name, Node()))
        node = folder.names[name] if name else folder
        self._handles[record.handle] = node
        if record.offset & _EMPTIED:
            node.unsure.append((self.number, 0, None))
            self._touched[node] = None

    def _name(self, record: Record) -> None:
        folder, name = self._at(record.data)
        if record.kind == "m":
            self._change((folder, name, Node(folder=True)))
        elif record.kind == "u":
            self._change((folder, name, None))
        else:
            other, second = self._at(record.second)
            gone = [(folder, name, None)] if record.kind == "r" else []
            self._change(*gone, (other, second, folder.names[name]))

    def _change(self, *names: tuple[Node, str, Node | None]) -> None:
        self._unsure.append(Renaming(self.number, names))
        for folder, name, node in names:
            _rename(folder.names, name, node)

    def _sync(self, node: Node, before: int) -> None:
        if node.folder:
            self._settle([one for one in self._unsure if one.number < before and any(n[0] is node for n in one.names)])
            return
        for _, offset, data in [one for one in node.unsure if one[0] < before]:
            _write(node.sure, offset, data)
        node.unsure = [one for one in node.unsure if one[0] >= before]
        if not node.unsure:
            self._touched.pop(node, None)

    def _settle(self, done: Sequence[Renaming]) -> None:
        for one in done:
            for folder, name, what in one.names:
                _rename(folder.sure_names, name, what)
        self._unsure = [one for one in self._unsure if one not in done]

    def _sync_all(self) -> None:
        self._settle(self._unsure)
        for node in list(self._touched):
            self._sync(node, self.number)

    def live(self) -> dict[str, bytes]:
        """Path -> content of each file as the process sees it."""
        found = {}
        for path, node in _walk(self.tree, {}):
            content = bytearray(node.sure)
            for _, offset, data in node.unsure:
                _write(content, offset, data)
            found[path] = bytes(content)
        return found

    def lose_power(self, to: Path, chance: random.Random, model: str) -> None:
        """Put what may be on the disk after a loss of power now into a new folder."""
        moment = self._moment(chance)
        often = chance.choice([0.2, 0.5, 0.8])
        names: dict[Node, dict[str, Node]] = {}
        moments = {folder: moment for one in self._unsure for folder, _, _ in one.names}
        if model == "any":
            moments = {folder: self._moment(chance) for folder in moments}
        for one in self._unsure if model != "nothing" else ():
            if all(one.number < moments[folder] for folder, _, _ in one.names):
                for folder, name, node in one.names:
                    _rename(names.setdefault(folder, dict(folder.sure_names)), name, node)
            else:
                # A rename from folder to folder is not there: then nothing that came later in either of them is.
                moments |= {folder: min(one.number, moments[folder]) for folder, _, _ in one.names}
        to.mkdir()
        for path, node in _walk(self.tree, names, sure=True):
            place = to / path
            if node.folder:
                place.mkdir()
            else:
                place.write_bytes(_left(node, chance, model, moment, often))

    def _moment(self, chance: random.Random) -> int:
        """A number of an operation that is not certain, or behind all of them."""
        numbers = [one.number for one in self._unsure] + [n for node in self._touched for n, _, _ in node.unsure]
        return chance.choice([*numbers, self.number + 1])


def _rename(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _walk(
    tree: Node, names: Mapping[Node, Mapping[str, Node]], *, sure: bool = False, above: str = ""
) -> Iterator[tuple[str, Node]]:
    """Path and node of all below a folder: as the process sees it, or what is sure with other names of some folders."""
    for name, node in names.get(tree, tree.sure_names if sure else tree.names).items():
        if sure or not node.folder:
            yield above + name, node
        if node.folder:
            yield from _walk(node, names, sure=sure, above=f"{above}{name}/")


def _left(node: Node, chance: random.Random, model: str, moment: int, often: float) -> bytes:
    """What is left of a file."""
    content = bytearray(node.sure)
    for number, offset, data in node.unsure if model != "nothing" else ():
        if model == "in order":
            if number > moment:
                break
            torn = data if data is None or number < moment else data[: chance.randrange(len(data) + 1)]
            if number < moment or data is not None:
                _write(content, offset, torn)
        elif data is None:
            if chance.random() < often:
                _write(content, offset, None)
        else:
            _write_pages(content, offset, data, chance, often)
    return bytes(content)


def _write_pages(content: bytearray, offset: int, data: bytes, chance: random.Random, often: float) -> None:
    """Some sectors or pages of a write; perhaps the file has grown without the others."""
    size, end = chance.choice([512, 4_096]), offset + len(data)
    if chance.random() < 0.5:
        content.extend(bytes(max(0, end - len(content))))
    at = offset
    while at < end:
        behind = min(end, at - at % size + size)
        if chance.random() < often:
            _write(content, at, data[at - offset : behind - offset])
        at = behind


@dataclass(frozen=True, slots=True)
class Cut:
    """One loss of power.

    Args:
        place: number of the operation before which it comes.
        model: of what is left; one of `MODELS`.
        seed: of the chance in it.
        said: what clients had said by then, in order.
    """

    place: int
    model: str
    seed: int
    said: tuple[str, ...]


def cuts(root: Path, made: Sequence[Record], number: int, seed: int, to: Path) -> Iterator[Cut]:
    """So many losses of power, spread over a recording; while each is given, its folder is at `to`."""
    chance = random.Random(seed)
    places = sorted(chance.randrange(len(made) + 1) for _ in range(number))
    disk, at = Disk(root), 0
    for turn, place in enumerate(places):
        disk.play(*made[at:place])
        at = place
        cut = Cut(place, MODELS[turn % len(MODELS)], chance.randrange(2**32), tuple(disk.said))
        shutil.rmtree(to, ignore_errors=True)
        disk.lose_power(to, random.Random(cut.seed), cut.model)
        yield cut
    shutil.rmtree(to, ignore_errors=True)
