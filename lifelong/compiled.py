"""How loops are compiled, for everything that has some. No torch.

Numba compiles a function when it is first called, which takes about a second, and keeps the result in a folder:

    $NUMBA_CACHE_DIR, if it is set --> `__pycache__` next to the source --> the user's cache --> a folder of the user's
                                       in the temporary folder --> nowhere

The first of these that can be written is taken. What was compiled next to the source, where that can only be read now
(an installation in an image), is copied to it. Compiled functions hold no lock, so that several threads run at once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
from numba import config, njit
from numba.core import event

Array = npt.NDArray[Any]
_settings: Any = config


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles a function; see `numba.njit` for the options.

    >>> @compiled()
    ... def double(number):
    ...     return 2 * number
    >>> double.py_func(3)
    6
    """

    def decorate(function: Callable[..., Any]) -> Any:
        source = Path(function.__code__.co_filename)
        if not source.is_file():
            return _compile(function, options, cache=False)
        try:
            dispatcher = _compile(function, options, cache=True)
        except RuntimeError:
            # Neither the folder of the package nor the user's cache can be written.
            with _temporary_folder() as there:
                dispatcher = _compile(function, options, cache=there)
        if dispatcher.stats.cache_path is not None:
            _bring(source, function.__qualname__, Path(dispatcher.stats.cache_path))
        return dispatcher

    return decorate


def _compile(function: Callable[..., Any], options: dict[str, Any], *, cache: bool) -> Any:
    # With Python's rules a division by zero would raise, and each division be checked; NumPy's give inf or NaN.
    return njit(nogil=True, cache=cache, error_model="numpy", **options)(function)


@contextlib.contextmanager
def compiling_said(say: Callable[[str], None]) -> Iterator[None]:
    """Say so once if a loop has to be compiled in here; not where all are read from the cache.

    Args:
        say: is given a line, from the thread that compiles.
    """
    with event.install_listener("numba:compile", _Compiling(say)):
        yield


class _Compiling(event.Listener):
    """Says one line when the first function is compiled."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say: Callable[[str], None] | None = say

    def on_start(self, event: Any) -> None:
        say, self._say = self._say, None
        if say is not None:
            say("compiling loops, which later runs reuse: up to a minute ...")

    def on_end(self, event: Any) -> None:
        pass


@contextlib.contextmanager
def _temporary_folder() -> Iterator[bool]:
    """Let Numba put things into a folder that only this user may write, and read; whether there is one."""
    user = getattr(os, "getuid", lambda: 0)()
    before, folder = _settings.CACHE_DIR, Path(tempfile.gettempdir()) / f"lifelong-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        # What lies there is run: another user's folder of that name is not for us.
        mine = stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o077
    except OSError:
        mine = False
    if mine:
        _settings.CACHE_DIR = str(folder)
    try:
        yield mine
    finally:
        _settings.CACHE_DIR = before


def _bring(source: Path, name: str, folder: Path) -> None:
    """Copy what was compiled of a function next to its source to where Numba looks for it."""
    shipped = source.parent / "__pycache__"
    if folder == shipped or not shipped.is_dir():
        return
    for path in shipped.glob(f"{source.stem}.{name}-*.nb[ci]"):
        there = folder / path.name
        # Without the copy the function is compiled again, which only takes time.
        with contextlib.suppress(OSError):
            # A copy is younger than its source, until the package is installed anew.
            if not there.exists() or there.stat().st_mtime < path.stat().st_mtime:
                shutil.copyfile(path, there)


jit: Callable[[Callable[..., Any]], Callable[..., Any]] = compiled()
"""For whole numbers; sums of fractions stay in the order in which they are written."""
