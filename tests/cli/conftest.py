"""Runs commands in this process, as the console script does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lifelong.cli import main


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document of stdout."""
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, str]:
        """The error of a `--json` call, checked for its shape."""
        assert set(self.document) == {"error"}
        parts: dict[str, str] = self.document["error"]
        assert {"type", "found", "expected", "fix"} <= set(parts)
        assert parts["found"]
        return parts


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> Outcome:
        code = main([str(word) for word in words])
        out = capsys.readouterr()
        return Outcome(code, out.out, out.err)

    return call
