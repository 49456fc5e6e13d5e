"""Runs the blocks of a tutorial in their order, and compares what they print with what the page shows.

```sh      lifelong commands, cd, curl        -> in this process; `lifelong serve` gives the app that curl calls
```python  statements; names stay             -> in this process
```text    what the block before it prints    -> compared by `differences`

PYTHONPATH=tests python -m support.tutorial docs/tutorials/own-log.md    prints what each block prints
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lifelong.artifact.folder import Artifact
from lifelong.cli import main
from lifelong.online.serving.app import create_app
from lifelong.online.store.opening import open_store
from support.client import Client

_BLOCK = re.compile(r"^```(sh|python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FRAME = re.compile(r"[\u2500-\u257f]+")
_NUMBER = re.compile(r"[+-]?\d*\.\d+")
_ANY = "..."


@dataclass(frozen=True)
class Step:
    """A block, what the page shows of its output (None: nothing is shown), and what it printed."""

    code: str
    shown: str | None
    printed: str


@dataclass
class Session:
    """A reader who follows the page in one folder."""

    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    client: Client | None = None

    def run(self, language: str, code: str) -> str:
        """What the block prints on stdout."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            if language == "python":
                exec(compile(code, "tutorial", "exec"), self.names)
            else:
                for line in code.replace("\\\n", " ").splitlines():
                    try:
                        self._command(shlex.split(line, comments=True))
                    except Exception as error:
                        error.add_note(err.getvalue())
                        raise
        return out.getvalue()

    def _command(self, words: list[str]) -> None:
        if not words:
            return
        program, *rest = words
        if program == "cd":
            os.chdir(rest[0])
        elif program == "curl":
            print(self._called(rest))
        elif words[:2] == ["lifelong", "serve"]:
            self._serve(rest[1], rest[rest.index("--store") + 1])
        elif program == "lifelong":
            code = main(rest)
            if code:
                raise RuntimeError(f"{' '.join(words)} ends with {code}")
        else:
            raise ValueError(f"a tutorial has no {program}")

    def _serve(self, artifact: str, url: str) -> None:
        store = self.closing.enter_context(contextlib.closing(open_store(url)))
        self.client = Client(create_app(Artifact.open(Path(artifact)), store))

    def _called(self, words: list[str]) -> str:
        assert self.client is not None, "curl comes after lifelong serve"
        address = next(word for word in words if word.startswith("http://"))
        path = "/" + address.split("/", 3)[3]
        body = words[words.index("--json") + 1] if "--json" in words else None
        reply = self.client.get(path) if body is None else self.client.post(path, json.loads(body))
        assert reply.status_code == 200, reply.text
        return reply.text


def run_page(page: Path) -> Iterator[Step]:
    """Run the blocks of a page in the current folder."""
    blocks = _BLOCK.findall(page.read_text())
    session = Session()
    with session.closing:
        for (language, code), (following, shown) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
            if language != "text":
                printed = session.run(language, code)
                yield Step(code, shown if following == "text" else None, printed)


def differences(shown: str, printed: str) -> list[str]:
    """Lines of the page that are not printed, in their order.

    Frames of tables and the space round words do not count. A line `...` stands for any lines, `...` in a word for any
    letters, and in the last word of a line for any words. Of a number with a point the size counts and not the last
    digits, which differ between machines.
    """
    expected, found = _lines(shown), _lines(printed)
    place, free = 0, False
    for line in expected:
        if line == [_ANY]:
            free = True
            continue
        last = len(found) if free else min(place + 1, len(found))
        match = next((other for other in range(place, last) if _same(line, found[other])), None)
        if match is None:
            return [f"not printed: {' '.join(line)}", *(f"printed: {' '.join(each)}" for each in found[place:])]
        place, free = match + 1, False
    return [] if free or place == len(found) else [f"not shown: {' '.join(each)}" for each in found[place:]]


def _lines(text: str) -> list[list[str]]:
    words = [_FRAME.sub(" ", line).split() for line in text.splitlines()]
    return [each for each in words if each]


def _same(expected: list[str], found: list[str]) -> bool:
    if _ANY in expected[-1]:
        last = len(expected) - 1
        found = [*found[:last], " ".join(found[last:])]
    if len(expected) != len(found):
        return False
    return all(_same_word(left, right) for left, right in zip(expected, found, strict=True))


def _same_word(expected: str, found: str) -> bool:
    if _NUMBER.sub("#", expected) == _NUMBER.sub("#", found):
        pairs = zip(_NUMBER.findall(expected), _NUMBER.findall(found), strict=True)
        return all(abs(float(left) - float(right)) <= 0.1 + 0.1 * abs(float(left)) for left, right in pairs)
    return re.fullmatch(re.escape(expected).replace(re.escape(_ANY), ".*"), found) is not None


if __name__ == "__main__":
    chosen = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for step in run_page(chosen):
            print(f"```\n{step.code}```\n{step.printed}")
