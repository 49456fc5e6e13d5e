"""The command line as a whole: the commands, their common options, usage errors."""

from __future__ import annotations

import functools
import inspect
import keyword
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lifelong.cli.extras import COMMANDS, EXAMPLES, GROUPS
from lifelong.cli.terminal import Reply, Terminal, report, run_command
from lifelong.errors import StoreLockedError, UsageError
from lifelong.launch import INTERRUPTED, launch

TOGETHER = ("train", "evaluate")
"""Commands that several processes of torchrun may run together."""

_IDS = {"user", "users", "items"}
"""Options that hold ids. Names of files need not be UTF-8."""

_IMPORTS: list[str] = []
"""What `--import` names; imported when the command runs, so that errors are reported as those of commands."""

_JSON = inspect.Parameter(
    "as_json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")
    ],
)
_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", help="Show logs, and tracebacks of errors.")],
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = build(_asked(words))(words, prog_name="lifelong", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        # Newer releases of Typer contain their own copy of Click, so usage errors are recognised by their methods.
        show = getattr(error, "format_message", None)
        if show is None:
            raise
        from lifelong.config import plain

        option, said, problem = show().partition("': ")
        _report_usage(error, option + said + plain(problem), as_json="--json" in words)
        return int(getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0


class _Grouped(TyperGroup):
    """All commands on the front page of the help, by what they are for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write them."""
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(90)) for name in names])


def _asked(words: Sequence[str]) -> Iterable[str]:
    """The command of a command line, whose module alone is loaded; all where it names none."""
    at = 0
    while words[at : at + 1] == ["--import"]:
        at += 2
    return [name for name in words[at : at + 1] if name in COMMANDS] or COMMANDS


def build(commands: Iterable[str] = COMMANDS) -> Any:
    """The tree of some commands (a Click group)."""
    app = typer.Typer(
        name="lifelong",
        cls=_Grouped,
        help="Predict how users respond to items, from whole histories: one small memory per user, updated per event.",
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for name in commands:
        # `try` cannot be a name in Python.
        attribute = f"{name}_" if keyword.iskeyword(name) else name
        module = import_module(f"lifelong.cli.{attribute}")
        function = getattr(module, attribute)
        app.command(name, short_help=_first_part(function), epilog=f"\b\nExample:\n  {EXAMPLES[name]}")(
            with_common_options(function)
        )
    program: Any = typer.main.get_command(app)
    for parameter in (parameter for command in program.commands.values() for parameter in command.params):
        if parameter.param_type_name == "argument":
            # Newer releases of Typer would print its Python type, as in `list[str]`, after its name.
            parameter.display_type_rich = lambda ctx: ""
    return program


def _first_part(function: Callable[..., Reply]) -> str:
    """What a command does, up to the first colon or semicolon: a line in the list of commands."""
    sentence = re.split(r"[:;.](?:\s|$)", inspect.getdoc(function) or "")[0]
    return f"{sentence}."


def with_common_options(function: Callable[..., Reply]) -> Callable[..., int]:
    """Wrap `command(terminal, ...) -> Reply` for Typer: adds `--json` and `--debug`, and reports errors."""
    signature = inspect.signature(function, eval_str=True)
    parameters = [*list(signature.parameters.values())[1:], _JSON, _DEBUG]

    def call(*, as_json: bool, debug: bool, **options: Any) -> int:
        def body(terminal: Terminal) -> Reply:
            _check_processes(function.__name__)
            _check_ids(options)
            if _IMPORTS:
                from lifelong.plugins import import_modules

                import_modules(_IMPORTS)
            try:
                return function(terminal, **options)
            except StoreLockedError as error:
                fix = _way_to_owned(function.__name__, options)
                raise StoreLockedError(error.found, expected=error.expected, fix=fix) from error

        return run_command(body, as_json=as_json, debug=debug)

    functools.update_wrapper(call, function)
    # Whoever unwraps it would find the signature without the two options.
    del call.__wrapped__  # type: ignore[attr-defined]
    call.__signature__ = signature.replace(parameters=parameters, return_annotation=int)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _way_to_owned(command: str, options: Collection[str]) -> str:
    """What to do where another process owns the store, by what a command can do."""
    if "key_file" in options:
        return f"stop that process; or, if it is a service, ask it: lifelong {command} ... --store http://HOST:PORT"
    if command == "ingest":
        return "stop that process; or, if it is a service, send it the events: POST /v1/events"
    return "stop that process"


def _check_ids(options: Mapping[str, Any]) -> None:
    """Refuse ids that the shell gave in another encoding."""
    for name in _IDS & options.keys():
        values = options[name]
        # Some commands ask for a number of users under the same name.
        for value in values if isinstance(values, list | tuple) else [values]:
            if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise UsageError(
                    f"{name}: {value!r} is not text in UTF-8",
                    expected="ids in UTF-8",
                    fix="convert the text to UTF-8, or set a UTF-8 locale in the terminal",
                )


def _check_processes(command: str) -> None:
    if launch().several and command not in TOGETHER:
        raise UsageError(
            f"torchrun started {launch().count} processes of `lifelong {command}`",
            expected=f"one process; only {' and '.join(TOGETHER)} can share their work",
            fix=f"lifelong {command}, without torchrun",
        )


def _show_version(wanted: bool) -> None:
    if wanted:
        from lifelong.version import __version__

        sys.stdout.write(f"lifelong {__version__}\n")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
    imports: Annotated[
        list[str],
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import a module that registers models, sources, stores or metrics. Repeatable.",
        ),
    ] = [],  # noqa: B006
) -> None:
    """The options before the command."""
    # Replaced and not added to: one process may run several commands, as tests do.
    _IMPORTS[:] = imports


def _report_usage(error: Exception, message: str, *, as_json: bool) -> None:
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "lifelong"
    parts = {"type": "Usage", "found": message or "no command was given", "expected": "", "fix": f"{command} --help"}
    report(parts, as_json=as_json)
