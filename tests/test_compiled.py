"""Where compiled loops are kept, in processes that may write here and there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")

from lifelong.compiled import compiling_said, jit

SOURCE = Path(__file__).parents[1] / "lifelong" / "compiled.py"
LOOPS = """
from lifelong.compiled import jit

@jit
def doubled(number):
    return 2 * number
"""
CALL = """
import os

import numba

import lifelong.compiled

# All that compiling imports is read while it still can be; then root, who may write everywhere, becomes nobody.
numba.njit(lambda number: 2 * number)(1)
if os.getuid() == 0:
    os.setuid(65_534)

from lifelong.loops import doubled
print(doubled(4), doubled.stats.cache_path, sum(doubled.stats.cache_hits.values()))
"""
NOBODY = 65_534


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, with a package of one compiled function."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "lifelong").mkdir()
    shutil.copyfile(SOURCE, folder / "lifelong" / "compiled.py")
    (folder / "lifelong" / "__init__.py").touch()
    (folder / "lifelong" / "loops.py").write_text(LOOPS)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def call(place: Path, *, temporary: Path, home: str = "/nonexistent") -> tuple[str, str, int]:
    """What the function gives, where it is kept, and whether it was there; root calls it as nobody."""
    found = subprocess.run(
        [sys.executable, "-B", "-c", CALL],
        env={"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": str(temporary), "PYTHONPATH": str(place)},
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    result, folder, hits = found.stdout.split()
    return result, folder, int(hits)


def installed(place: Path) -> Path:
    """Lets what is there only be read; gives a folder for temporary files."""
    for path in place.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder = place / "temporary"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_what_was_compiled_is_kept_next_to_the_source_where_that_can_be_written(place: Path) -> None:
    (place / "lifelong" / "__pycache__").mkdir()
    (place / "lifelong" / "__pycache__").chmod(0o777)
    there = str(place / "lifelong" / "__pycache__")
    assert call(place, temporary=place) == ("8", there, 0)
    assert call(place, temporary=place) == ("8", there, 1)


def test_where_neither_the_package_nor_home_can_be_written_a_folder_of_the_user_is_made(place: Path) -> None:
    temporary = installed(place)
    result, folder, hits = call(place, temporary=temporary)
    assert (result, hits) == ("8", 0) and Path(folder).is_relative_to(temporary)
    (made,) = temporary.iterdir()
    assert made.stat().st_mode & 0o777 == 0o700
    assert call(place, temporary=temporary)[2] == 1


def test_a_folder_that_others_may_write_is_not_used_and_functions_run_without(place: Path) -> None:
    temporary = installed(place)
    user = NOBODY if os.getuid() == 0 else os.getuid()
    planted = temporary / f"lifelong-{user}"
    planted.mkdir()
    planted.chmod(0o777)
    os.chown(planted, user, -1)
    assert call(place, temporary=temporary) == ("8", "None", 0)
    assert not any(planted.iterdir())


def test_what_came_with_the_package_is_used_where_it_can_only_be_read(place: Path) -> None:
    shipped = place / "lifelong" / "__pycache__"
    shipped.mkdir()
    shipped.chmod(0o777)
    call(place, temporary=place)
    temporary = installed(place)
    result, folder, hits = call(place, temporary=temporary)
    assert (result, hits) == ("8", 1) and Path(folder).is_relative_to(temporary)


def test_it_is_said_once_that_loops_are_compiled_and_not_where_they_are_known() -> None:
    # Of a function without a file nothing is kept from an earlier run of the tests.
    names = dict[str, Any]()
    exec("def halved(number):\n    return number / 2\n", names)
    loop, said = jit(names["halved"]), list[str]()
    with compiling_said(said.append):
        loop(1)
        loop(1.0)
    assert len(said) == 1 and said[0].startswith("compiling loops, which later runs reuse")
    with compiling_said(said.append):
        loop(2)
    assert len(said) == 1
