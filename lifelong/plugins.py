"""Models, sources, stores and metrics of other packages.

    entry points `lifelong.models`, `.sources`, `.stores`, `.metrics`     loaded when used
    lifelong --import my_module ..., or LIFELONG_IMPORT=my_module                       a module that calls `register`

Child processes inherit the variable, so they know the same parts. Names of this package cannot be taken.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, TypeVar, get_args

from lifelong.errors import LifelongError, PluginError, UsageError

Kind = Literal["models", "sources", "stores", "metrics"]
T = TypeVar("T")
VARIABLE = "LIFELONG_IMPORT"

_REGISTERED: dict[str, dict[str, Any]] = {kind: {} for kind in get_args(Kind)}
_imported: set[str] = set()


def register(kind: Kind, name: str, part: Any) -> None:
    """Make a part known under a name, in this process.

    Args:
        kind: "models" (a class, such as a `MemoryModel`), "sources" (a function that gives a `RawLog`), "stores" (a
            function of a URL and `read_only` that gives a `MemoryStore`; the name is the scheme), or "metrics" (a
            function of a `Sample` that gives a value per example). `lifelong.plugin` has these names.
        name: letters, digits and underscores.
        part: what the name stands for; the same one may be registered again.

    Raises:
        UsageError: there is no such kind, the name is none or taken by another part, or the part cannot be called.
    """
    if not isinstance(kind, str) or kind not in _REGISTERED:
        raise UsageError(
            f"parts of the kind {kind!r}",
            expected=f"one of {', '.join(_REGISTERED)}",
            fix='register("models", "my_model", MyModel)',
        )
    if not isinstance(name, str) or not name.isidentifier():
        raise UsageError(
            f"{kind} named {name!r}", expected="letters, digits and underscores", fix="rename it, as in my_model"
        )
    _check_callable(kind, name, part)
    if _REGISTERED[kind].setdefault(name, part) is not part:
        raise UsageError(f"two {kind} named {name!r}", expected="a name for each", fix="rename one of them")


def _check_callable(kind: str, name: str, part: Any) -> None:
    if not callable(part):
        expected = "a class" if kind == "models" else "a function or a class"
        fix = f"give {expected} itself, not its name or what it returns"
        raise UsageError(f"{kind} named {name!r} of type {type(part).__name__}", expected=expected, fix=fix)


def import_modules(names: list[str]) -> None:
    """Import modules that register parts, in this process and in those that it starts.

    Raises:
        UsageError: a module cannot be imported, and why.
    """
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*imported(), *names]))
    _import_named()


def imported() -> list[str]:
    """The modules that `--import` or the variable names, in this process or its parents."""
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]


def _import_named() -> None:
    """Import what the variable names, each once; modules of the current folder are found too."""
    new = [name for name in imported() if name not in _imported]
    here = str(Path.cwd())
    if new and not {"", here} & set(sys.path):
        sys.path.insert(0, here)
    for name in new:
        # First, as the module may look things up while it is imported.
        _imported.add(name)
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"the module {name!r} cannot be imported: {error}",
                expected="a module on the path or in this folder",
                fix="check --import (import_modules), or LIFELONG_IMPORT",
            ) from error
        except LifelongError:
            raise
        except SystemExit as error:
            raise _left(f"the module {name!r}", error) from error
        except Exception as error:
            raise UsageError(
                f"the module {name!r} fails while it is imported: {type(error).__name__}: {error}",
                fix="repair it; the traceback says where (--debug shows it)",
            ) from error


def _left(part: str, error: SystemExit) -> PluginError:
    """The error for a part that ends the process while it is imported, which would look like a success."""
    return PluginError(
        f"{part} calls sys.exit({error.code!r}) while it is imported",
        expected="a module that registers parts when it is imported, and does nothing else",
        fix="put what is for the command line below `if __name__ == '__main__':`",
    )


@contextmanager
def named_in_errors(
    kind: Kind, name: str | Callable[[], str | None], doing: str, *, expected: str = "", only: tuple[str, ...] = ()
) -> Iterator[None]:
    """Name the part of another package that failed, where its own error would not.

    Errors of `lifelong`, of a part of this package, and of a machine without room on its disk or in its memory stay; so
    do those of files, unless they come from the part's own lines.

    Args:
        kind: of the part.
        name: of the part; or a function that gives it, called when there is an error.
        doing: what it failed at, as in "failed while `its files were read`".
        expected: what it has to be; said where the error does not come from its own lines.
        only: if given, an error of other lines than its own stays, unless its type is of one of these packages.

    Raises:
        PluginError: instead of the part's own error.
    """
    try:
        yield
    except LifelongError:
        raise
    except Exception as error:
        part_name = name if isinstance(name, str) else name()
        part = _REGISTERED[kind].get(part_name) if part_name is not None else None
        if part is None or part_name is None or _of_the_machine(error):
            raise
        module = _module_of(part)
        line = _line_in(module, error)
        other = isinstance(error, OSError) or (only and type(error).__module__.partition(".")[0] not in only)
        if line is None and other:
            raise
        where = "" if line is None else f" ({line})"
        raise PluginError(
            f"the {kind.removesuffix('s')} {part_name!r} of the module {module!r} failed while {doing}: "
            f"{type(error).__name__}: {str(error).strip() or 'no message'}{where}",
            expected="" if line else expected,
            fix=f"repair {module}, or ask who wrote it; the traceback says where (--debug shows it)",
        ) from error


@contextmanager
def modules_named_in_errors() -> Iterator[None]:
    """The same for a whole command: names the module that an error was raised in, and what it registers.

    Raises:
        PluginError: instead of the error.
    """
    try:
        yield
    except LifelongError:
        raise
    except Exception as error:
        parts = [(kind, name, part) for kind, registered in _REGISTERED.items() for name, part in registered.items()]
        for module in dict.fromkeys(_module_of(part) for _, _, part in parts):
            if (line := _line_in(module, error)) is None or _of_the_machine(error):
                continue
            names = [f"{kind.removesuffix('s')} {name!r}" for kind, name, part in parts if _module_of(part) == module]
            raise PluginError(
                f"the module {module!r}, which registers the {', the '.join(names)}, failed: "
                f"{type(error).__name__}: {str(error).strip() or 'no message'} ({line})",
                fix=f"repair {module}, or ask who wrote it; the traceback says where (--debug shows it)",
            ) from error
        raise


def _of_the_machine(error: Exception) -> bool:
    """Whether a disk or memory is full: that is reported elsewhere, and is not the part's fault."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return True
    return any(words in str(error).lower() for words in ("out of memory", "no space left", "max_temp_directory_size"))


def _module_of(part: Any) -> str:
    return str(getattr(part, "__module__", None) or type(part).__module__)


def _line_in(module: str, error: Exception) -> str | None:
    """File and line of a module, or of another one of its package, where an error was raised or passed on."""
    top = f"{module.partition('.')[0]}."
    # From the inside out: the innermost line of the module is the nearest to the fault.
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        name = str(frame.f_globals.get("__name__", ""))
        if name == module or (f"{name}.".startswith(top) and top != "lifelong."):
            return f"{Path(frame.f_code.co_filename).name}, line {line}"
    return None


class Registry(MutableMapping[str, T]):
    """Name -> part: those of this package, and those of others.

    Args:
        kind: of the parts.
        own: of this package; a text `module:name` is loaded when it is first used.
        reserved: other names that cannot be taken.
        check: called with the name and the part of another package when it is looked up; raises if it is none.

    >>> stores = Registry("stores", {"memory": print})
    >>> stores["memory"], "nothing" in stores
    (<built-in function print>, False)
    """

    def __init__(
        self,
        kind: Kind,
        own: Mapping[str, T | str],
        *,
        reserved: Collection[str] = (),
        check: Callable[[str, Any], None] | None = None,
    ) -> None:
        self.kind, self._own, self._reserved, self._check = kind, dict(own), frozenset(reserved), check

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        entry_of: dict[str, EntryPoint] = {}
        for entry in entry_points(group=f"lifelong.{self.kind}"):
            taken = entry_of.get(entry.name)
            if self._has(entry.name) or (taken is not None and taken.value != entry.value):
                other = "this package" if taken is None else taken.value
                fix = "rename it, or uninstall that package"
                raise UsageError(f"{entry.value} and {other} register {self.kind} named {entry.name!r}", fix=fix)
            entry_of[entry.name] = entry
        return entry_of

    def _has(self, name: str) -> bool:
        return name in self._own or name in self._reserved

    def check_names(self) -> None:
        """Check that no other package has registered one of this package's names.

        Raises:
            UsageError: one has, and which name.
        """
        taken = [name for name in _REGISTERED[self.kind] if self._has(name)]
        if taken:
            raise UsageError(f"{self.kind} named {taken[0]!r}, which this package has", fix="rename them")

    def __getitem__(self, name: str) -> T:
        if name in self._own:
            self.check_names()
            own = self._own[name]
            if isinstance(own, str):
                own = self._own[name] = resolve_name(own)
            return own
        _import_named()
        self.check_names()
        registered = _REGISTERED[self.kind]
        if name not in registered and name in self._entries:
            part = self._load(self._entries[name])
            # Another thread may have loaded it meanwhile: both get the one that was first.
            registered.setdefault(name, part)
        registered_part: T = registered[name]
        if self._check is not None:
            self._check(name, registered_part)
        return registered_part

    def _load(self, entry: EntryPoint) -> Any:
        try:
            loaded = entry.load()
        except LifelongError:
            raise
        except SystemExit as error:
            part_of = f"{entry.value}, which a package registers as {self.kind} {entry.name!r},"
            raise _left(part_of, error) from error
        except Exception as error:
            problem = error if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
            raise UsageError(
                f"{entry.value}, which a package registers as {self.kind} {entry.name!r}, cannot be loaded: {problem}",
                fix=f"repair or uninstall {entry.dist.name if entry.dist else 'that package'}",
            ) from error
        _check_callable(self.kind, entry.name, loaded)
        return loaded

    def __iter__(self) -> Iterator[str]:
        _import_named()
        self.check_names()
        return iter(dict.fromkeys([*self._own, *_REGISTERED[self.kind], *self._entries]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __setitem__(self, name: str, part: T) -> None:
        self._own[name] = part

    def __delitem__(self, name: str) -> None:
        del self._own[name]
