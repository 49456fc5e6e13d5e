"""Every error that this package makes says what to do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lifelong import errors
from lifelong.errors import LifelongError, SourceError, UsageError

PACKAGE = Path(errors.__file__).parent
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LifelongError)}


def made(text):
    """Errors that a source makes: kind, line, and whether each has something to do."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in KINDS:
                yield name, node.lineno, any(is_fix(word) for word in node.keywords)


def is_fix(word):
    """Whether a keyword of a call gives something to do; what ** brings is not looked into."""
    if word.arg != "fix":
        return word.arg is None
    return not isinstance(word.value, ast.Constant) or bool(word.value.value)


def test_errors_have_a_fix():
    without, found = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        for kind, line, has_fix in made(path.read_text()):
            found += 1
            if not has_fix:
                without.append(f"{path.relative_to(PACKAGE)}:{line} {kind}")
    assert found > 400
    assert without == []


@pytest.mark.parametrize(
    ("source", "has_fix"),
    [
        ("UsageError('no', fix='call it')", True),
        ("UsageError('no', **parts)", True),
        ("errors.UsageError('no', fix=fix)", True),
        ("UsageError('no', expected='yes')", False),
        ("errors.StoreError('no')", False),
        ("StoreError('no', fix='')", False),
    ],
)
def test_an_error_without_a_fix_is_found(source, has_fix):
    assert [has for _, _, has in made(source)] == [has_fix]


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        ("mapping", SourceError, "To do: correct the line"),
        ("address", UsageError, "To do: begin it with http:// or https://"),
        ("ranking", UsageError, "To do: separate the places by commas"),
        ("item", UsageError, "To do: give each as text"),
        ("profile", UsageError, "To do: profile="),
        ("kind", UsageError, "To do: register"),
    ],
)
def test_it_is_part_of_the_message(tmp_path, call, kind, words):
    from lifelong.cli.evaluate import _places
    from lifelong.cli.remote import Remote
    from lifelong.config import read_mapping
    from lifelong.online.scoring.answer import ScoreRequest, checked_requests
    from lifelong.plugins import register

    (tmp_path / "mapping.json").write_text("{user: 1}")
    calls = {
        "mapping": lambda: read_mapping(tmp_path / "mapping.json"),
        "address": lambda: Remote.of("localhost", None),
        "ranking": lambda: _places("ten"),
        "item": lambda: checked_requests([ScoreRequest("u1", [7])]),
        "profile": lambda: ScoreRequest("u1", ["i1"], profile="age=35-44"),
        "kind": lambda: register("model", "fading", dict),
    }
    with pytest.raises(kind, match=words):
        calls[call]()


OPTION = re.compile(r"(?<!\w)--[a-z-]+")
PLACES = ("offline/preparation/settings.py", "offline/preparation/vault.py", "offline/preparation/ratings.py")
PLACES += ("offline/training/checkpoint.py", "offline/training/trainer.py", "offline/training/tuning.py")


@pytest.mark.parametrize("place", PLACES)
def test_an_error_that_a_python_call_raises_names_no_option_of_a_command(place):
    calls = [node for node in ast.walk(ast.parse((PACKAGE / place).read_text())) if isinstance(node, ast.Call)]
    fixes = [ast.unparse(word.value) for call in calls for word in call.keywords if word.arg == "fix"]
    assert fixes and not [fix for fix in fixes if OPTION.search(fix)]


COMMAND = re.compile(r"\b(lifelong [a-z]+|torchrun)\b[^`]*")
PYTHON = re.compile(r"[iI]n Python (by )?(\w|\{\w+\})+=|\(\w+=|\(import_modules\)|traceback says")
OF_COMMANDS = ("cli", "serving")


def test_an_error_that_names_an_option_names_the_argument_of_python_too():
    named, found = 0, []
    for path in sorted(PACKAGE.rglob("*.py")):
        if not set(path.relative_to(PACKAGE).parts) & set(OF_COMMANDS):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            fixes = [ast.unparse(word.value) for call in calls for word in call.keywords if word.arg == "fix"]
            named += sum(bool(PYTHON.search(fix)) for fix in fixes)
            found += [
                (path.name, fix) for fix in fixes if OPTION.search(COMMAND.sub("", fix)) and not PYTHON.search(fix)
            ]
    assert named > 10
    assert found == []
