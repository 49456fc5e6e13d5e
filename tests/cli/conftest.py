"""Runs commands in this process, as the console script does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
def program(tmp_path: Path) -> Path:
    """The console script of an environment that is not on the path."""
    path = tmp_path / "my env" / "bin" / "lifelong"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom lifelong.cli import main\nsys.exit(main())\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> Outcome:
        code = main([str(word) for word in words])
        out = capsys.readouterr()
        return Outcome(code, out.out, out.err)

    return call


@pytest.fixture(scope="session")
def artifact() -> Path:
    """HPMN with periods 1, 2, 4 on `tiny_dataset`, untrained; `tests/assets/make_tiny_artifact.py` wrote it."""
    return Path(__file__).parents[1] / "assets" / "tiny_artifact"


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Three events of u1 and one of u2."""
    path = tmp_path / "events.csv"
    path.write_text(
        "user,item,time,event_type\n"
        "u1,i1,1700000000,view\nu1,i2,1700000500,buy\nu2,i3,1700000500,view\nu1,i11,1700090500,view\n"
    )
    return path


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store that is not there yet."""
    return f"rocksdb://{tmp_path}/store"


@pytest.fixture
def filled(run: Run, artifact: Path, url: str, events: Path) -> str:
    """A store with those events."""
    assert run("ingest", artifact, "--store", url, events).code == 0
    return url
