"""Puts the commands together: names, common options, usage errors."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from lifelong.cli.terminal import Reply, Terminal, report, run_command
from lifelong.errors import UsageError
from lifelong.launch import INTERRUPTED, launch

COMMANDS = (
    "prepare",
    "tune",
    "train",
    "evaluate",
    "compare",
    "backfill",
    "switch",
    "ingest",
    "score",
    "explain",
    "verify",
    "serve",
    "forget",
    "export",
    "bench",
    "models",
    "doctor",
    "demo",
)
"""Names of the commands, in the order of the data's journey; `lifelong.cli.<name>` holds the function `<name>`."""

TOGETHER = ("train", "evaluate")
"""Commands that several processes of torchrun do together."""

_JSON = inspect.Parameter(
    "as_json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; the rest on stderr.")],
)
_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", help="Show logs, and where an error happened.")],
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = build()(words, prog_name="lifelong", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        # Typer carries its own copy of Click in newer releases: its usage errors are known by their shape.
        show = getattr(error, "format_message", None)
        if show is None:
            raise
        _report_usage(error, show(), as_json="--json" in words)
        return int(getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0


def build() -> Any:
    """The command tree (a Click group)."""
    app = typer.Typer(
        name="lifelong",
        help="Predict a user's response from her whole history: one small memory per user, written per event.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for name in COMMANDS:
        module = import_module(f"lifelong.cli.{name}")
        app.command(name)(with_common_options(getattr(module, name)))
    return typer.main.get_command(app)


def with_common_options(function: Callable[..., Reply]) -> Callable[..., int]:
    """Turn `command(terminal, ...) -> Reply` into what Typer calls: `--json` and `--debug` added, errors reported."""
    signature = inspect.signature(function, eval_str=True)
    parameters = [*list(signature.parameters.values())[1:], _JSON, _DEBUG]

    def call(*, as_json: bool, debug: bool, **options: Any) -> int:
        def body(terminal: Terminal) -> Reply:
            _check_processes(function.__name__)
            return function(terminal, **options)

        return run_command(body, as_json=as_json, debug=debug)

    functools.update_wrapper(call, function)
    del call.__wrapped__  # type: ignore[attr-defined]
    call.__signature__ = signature.replace(parameters=parameters, return_annotation=int)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _check_processes(command: str) -> None:
    if launch().several and command not in TOGETHER:
        raise UsageError(
            f"torchrun started {launch().count} processes of `lifelong {command}`",
            expected=f"one process; only {' and '.join(TOGETHER)} share their work",
            fix=f"lifelong {command}, without torchrun",
        )


def _show_version(wanted: bool) -> None:
    if wanted:
        from lifelong import __version__

        sys.stdout.write(f"lifelong {__version__}\n")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Carries the options that stand before the command."""


def _report_usage(error: Exception, message: str, *, as_json: bool) -> None:
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "lifelong"
    parts = {"type": "Usage", "found": message or "no command was given", "expected": "", "fix": f"{command} --help"}
    report(parts, as_json=as_json)
