"""The output of a command: one JSON document or a summary on stdout; progress, logs and errors on stderr."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import IO, TYPE_CHECKING, Any, NoReturn

from lifelong.cli.extras import COMMANDS, EXTRAS
from lifelong.errors import LifelongError, LostProcessError, MissingExtraError
from lifelong.launch import INTERRUPTED, Launch, launch
from lifelong.plugins import modules_named_in_errors

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from lifelong.offline.reports.tables import Table

logger: logging.Logger = logging.getLogger(__name__)
_COMMAND = re.compile(rf"(?<![\w/.-])lifelong (?=(?:{'|'.join(COMMANDS)}|--help|--import)\b)")
_TYPED = re.compile(r"\bcurl -|/lifelong'? | -m pip ")
"""Other commands, and a program that is named by its path."""
_PIP = re.compile(r"(?<![\w/.-])pip install (?='lifelong\[)")
_TIME_TO_NOTICE = 2.0
"""Seconds that torchrun has to see which process ended first."""
_WIDTH = 160
"""Width of output that does not go to a terminal."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of a command.

    Args:
        document: for machines (`--json`); None if the command has already emitted it.
        summary: for people, printed line by line; strings or Rich tables.
        exit_code: 1 if the command ran and its answer is "no", as when `verify` finds a difference.
    """

    document: Mapping[str, Any] | None
    summary: list[RenderableType] = field(default_factory=list)
    exit_code: int = 0


class Terminal:
    """Where a running command reports its progress.

    Args:
        as_json: whether stdout is reserved for one JSON document.
        silent: print nothing, since another process prints for all.
    """

    as_json: bool

    def __init__(self, *, as_json: bool, silent: bool = False) -> None:
        self.as_json, self._silent = as_json, silent
        self._stdout: IO[str] = sys.stdout

    @property
    def console(self) -> Console:
        """The console on stderr."""
        return _console(stderr=True)

    def say(self, message: str) -> None:
        """Print one line of progress."""
        if not self._silent:
            _print(self.console, runnable(message))

    def emit(self, document: Mapping[str, Any], *, indent: int | None = None) -> None:
        """Print the JSON document; on one line for a command that continues afterwards, such as `serve`."""
        if self.as_json and not self._silent:
            self._stdout.write(json.dumps(finite(document), indent=indent, default=str) + "\n")
            self._stdout.flush()

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar on stderr; the function inside takes (done, total)."""
        with _bar(self.console) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def finish(self, reply: Reply) -> int:
        """Print a command's outcome."""
        if reply.document is not None:
            self.emit(reply.document, indent=2)
        if not self.as_json and not self._silent:
            console = _console(stderr=False)
            for shown in reply.summary:
                _print(console, runnable(shown) if isinstance(shown, str) else shown)
        return reply.exit_code


def _print(console: Console, part: RenderableType) -> None:
    """Print a line or a table; a line with a command is not broken, so that it can be copied."""
    whole = isinstance(part, str) and (_COMMAND.search(part) or _TYPED.search(part)) is not None
    console.print(part, markup=False, highlight=False, soft_wrap=whole or None)


def columns(*names: str, rows: Iterable[Sequence[str]]) -> RenderableType:
    """A table of texts with these columns."""
    from rich.table import Table as RichTable

    shown = RichTable(*names)
    for row in rows:
        shown.add_row(*row)
    return shown


def rich_table(table: Table) -> list[RenderableType]:
    """A table and its caption, as a terminal shows them."""
    from lifelong.offline.reports.tables import text

    shown = columns(*table.columns, rows=([text(cell) for cell in row] for row in table.rows))
    return [shown, *([table.caption] if table.caption else [])]


def run_command(function: Callable[[Terminal], Reply], *, as_json: bool, debug: bool) -> int:
    """Run a command's body, print its reply or its error, and give the exit code."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if debug else logging.WARNING, format="%(name)s: %(message)s"
    )
    process = Launch()
    try:
        process = launch()
        terminal = Terminal(as_json=as_json, silent=not process.first)
        # What libraries print must not end up in the document.
        quiet = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
        with quiet, modules_named_in_errors():
            reply = function(terminal)
    except KeyboardInterrupt as error:
        text = str(error) or "interrupted"
        if process.first:
            report({"type": "Interrupted", "found": text, "expected": "", "fix": ""}, as_json=as_json)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        _trace(debug=debug)
        _report_from(process, error_document(_missing(error)), as_json=as_json)
        return 1
    except LifelongError as error:
        _trace(debug=debug)
        # A wrong command or wrong data is wrong in all processes of a machine: one of them reports it.
        if process.local_rank == 0 or isinstance(error, LostProcessError):
            _report_from(process, error_document(error), as_json=as_json)
        if process.several and isinstance(error, LostProcessError):
            _leave(error.exit_code)
        return error.exit_code
    except Exception as error:
        logger.debug("a command failed", exc_info=True)
        _trace(debug=debug)
        if isinstance(error, OSError) and error.filename is not None:
            _report_from(process, _of_file(error), as_json=as_json)
            return 1
        fix = "" if debug else "run again with --debug to see where it happened"
        text = f"{type(error).__name__}: {error}"
        _report_from(process, {"type": "Internal", "found": text, "expected": "", "fix": fix}, as_json=as_json)
        return 1
    return terminal.finish(reply)


def _leave(code: int) -> NoReturn:
    """End this process without the interpreter's own ending.

    The threads of a process group that has lost a peer may still hold tensors, and need the interpreter to drop them:
    where it is ending already, they abort the process, and its exit code would be that of a crash.
    """
    # `os._exit` throws away what is still in the buffers.
    sys.stdout.flush()
    sys.stderr.flush()
    # torchrun looks at its processes ten times a second and names the first of them that it finds ended: that has to be
    # the one that was lost, not this one.
    time.sleep(_TIME_TO_NOTICE)
    os._exit(code)


def _report_from(place: Launch, parts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print an error of one of several processes; only the first may use stdout."""
    # Two processes that write to one stdout would break the document.
    if place.first:
        report(parts, as_json=as_json)
    else:
        names = [f"{place}: {problem}" for problem in parts.get("problems") or [parts["found"]]]
        report({**parts, "problems": names}, as_json=False)


def _missing(error: ModuleNotFoundError) -> LifelongError:
    """An error that names the extra of a module that is not installed."""
    top = (error.name or "").partition(".")[0]
    extra = next(
        (name for name, modules in EXTRAS.items() if top in {module.partition(".")[0] for module in modules}), None
    )
    fix = f"pip install 'lifelong[{extra}]'" if extra else f"install {top}"
    return MissingExtraError(f"this command needs the package {top!r}, which is not installed", fix=fix)


def _of_file(error: OSError) -> dict[str, Any]:
    """What the system says of a file or folder, such as an --out in a place that cannot be written."""
    return {
        "type": "File",
        "found": f"{error.filename}: {error.strerror}",
        "expected": "files and folders that this user can read and write",
        "fix": "name another place, or change its rights",
    }


def error_document(error: LifelongError) -> dict[str, Any]:
    """An error for machines: type, found, expected, fix, and all problems where there are several."""
    parts: dict[str, Any] = {
        "type": type(error).__name__,
        "found": error.found,
        "expected": error.expected,
        "fix": error.fix,
    }
    problems = getattr(error, "problems", None)
    return parts | ({"problems": problems} if problems else {})


def report(parts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print an error: found, expected, to do."""
    if as_json:
        sys.stdout.write(json.dumps({"error": parts}, indent=2) + "\n")
        sys.stdout.flush()
        return
    problems = parts.get("problems") or [parts["found"]]
    lines = [f"error: {line}" for line in problems]
    lines += [f"{name}: {parts[key]}" for name, key in (("expected", "expected"), ("to do", "fix")) if parts[key]]
    sys.stderr.write(runnable("\n".join(lines)) + "\n")


def runnable(text: str, *, elsewhere: bool = False) -> str:
    """A text with its commands as they run in this shell: `.venv/bin/lifelong train ...` where that is needed.

    `pip install` becomes `.venv/bin/python -m pip install` where `pip` alone would not install for this program.

    Args:
        text: with commands such as `lifelong train`.
        elsewhere: they run in another folder than this one.
    """
    program = _program()
    program = quote(str(Path(program).absolute()) if elsewhere and program != "lifelong" else program)
    text = _PIP.sub(lambda _: f"{_pip()} install ", text)
    return text if program == "lifelong" else _COMMAND.sub(lambda _: f"{program} ", text)


def python() -> str:
    """The Python of this environment, as a command: its path where `python` alone is another one."""
    path = shutil.which("python")
    return "python" if path and Path(path).absolute() == Path(sys.executable) else quote(sys.executable)


def _pip() -> str:
    """What installs for this Python; `pip` where that does, or where this Python has none (as in what uv makes)."""
    here, pip = Path(sys.executable), shutil.which("pip")
    if importlib.util.find_spec("pip") is None or (pip and Path(pip).absolute().parent == here.absolute().parent):
        return "pip"
    return f"{quote(_near(here))} -m pip"


def _near(path: Path) -> str:
    """A path as it is typed in this folder: relative where it lies below it."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def _program() -> str:
    """How this program was called, if `lifelong` alone would not find it."""
    called = Path(sys.argv[0])
    path = shutil.which("lifelong")
    if called.name != "lifelong" or not called.exists() or (path and Path(path).samefile(called)):
        return "lifelong"
    return _near(called)


def finite(value: Any) -> Any:
    """A document with None in place of NaN and infinities, which JSON does not have.

    >>> finite({"auc": float("nan"), "users": 3})
    {'auc': None, 'users': 3}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value


def _trace(*, debug: bool) -> None:
    if debug:
        traceback.print_exc(file=sys.stderr)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # A file or a pipe has no width of its own.
    return Console(file=stream) if stream.isatty() else Console(file=stream, width=_WIDTH, soft_wrap=True)


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
