"""`lifelong new`: a package of one's own with a model in it, its test and its pyproject.toml."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from lifelong.cli.terminal import Reply, Terminal, python, runnable
from lifelong.errors import UsageError

_MODEL = '''"""TITLE: a fading mean of everything the user did.

    memory = keep * memory + (1 - keep) * tanh(W event)          keep: a trained number in (0, 1) per dimension

Change the equation in `write_vector` and, for whole histories at once, in `encode_vector`: the test holds the two to
equal numbers.

State: `width` numbers.

Shapes: B users, L padded history length, C targets per user, D state width, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from lifelong.data.events import InputSpec
from lifelong.models.base import MemoryModel
from lifelong.models.settings import Share, setting
from lifelong.nn.linear_scan import linear_scan
from lifelong.nn.masks import clear_padding
from lifelong.nn.recurrent import states_at
from lifelong.plugins import register
from pydantic import PositiveInt
from torch import Tensor, nn


@dataclass(frozen=True)
class CLASSConfig:
    """Settings of `NAME`."""

    embedding: PositiveInt = setting(16, "width of each field's embedding")
    width: PositiveInt = setting(32, "width of the state")
    dropout: Share = setting(0.1, "share of the head's hidden units dropped in training")


class CLASSMemory(NamedTuple):
    """The state, zeros before the first event."""

    count_B: Tensor
    mean_BD: Tensor


class CLASS(MemoryModel[CLASSMemory]):
    """A fading mean of the user's events."""

    Config = CLASSConfig
    title = "TITLE"
    source = "this package"
    state = "one vector"

    def __init__(self, inputs: InputSpec, config: CLASSConfig) -> None:
        super().__init__(inputs, embedding=config.embedding, interest=config.width, dropout=config.dropout)
        self.config: CLASSConfig = config
        self.remember(CLASSMemory, (config.width,))
        self.project = nn.Linear(self.event_width, config.width)
        self.keep = nn.Parameter(torch.linspace(0.0, 4.0, config.width))

    def write_vector(self, memory: CLASSMemory, event_BE: Tensor) -> CLASSMemory:
        """Fold one event of each user in."""
        keep_D, new_BD = torch.sigmoid(self.keep), torch.tanh(self.project(event_BE))
        return CLASSMemory(memory.count_B + 1, keep_D * memory.mean_BD + (1 - keep_D) * new_BD)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> CLASSMemory:
        """The same for whole histories at once: the memory after this many events, at each position."""
        keep_D = torch.sigmoid(self.keep)
        new_BLD = torch.tanh(self.project(clear_padding(event_BLE, length_B)))
        mean_BLD = linear_scan(keep_D.expand_as(new_BLD), (1 - keep_D) * new_BLD)
        return CLASSMemory(position_BC, states_at(mean_BLD, position_BC))

    def read_vector(self, memory: CLASSMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """What the head gets for each target: here the state itself, whatever the target."""
        return memory.mean_BD.expand(*target_BCE.shape[:-1], -1), None


register("models", "NAME", CLASS)
'''
_TEST = '''"""NAME against everything that a model of lifelong must do."""

import NAME  # noqa: F401  (registers the model)
import pytest
from lifelong.testing.model_contract import ModelCase, checks_for

CASE = ModelCase("NAME")


@pytest.mark.parametrize("check", checks_for(CASE), ids=lambda check: check.__name__)
def test_contract(check):
    check(CASE)
'''
_PROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "lifelong-DASHED"
version = "0.1.0"
description = "TITLE, a model for lifelong"
requires-python = ">=3.11"
dependencies = ["lifelong[train]"]

# Where it is installed, every command, comparison and search knows the model.
[project.entry-points."lifelong.models"]
NAME = "NAME:CLASS"

[tool.setuptools]
py-modules = ["NAME"]
"""


def new(
    terminal: Terminal,
    kind: Annotated[Literal["model"], typer.Argument(help="What to create.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model and its module, such as my_model.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Folder to create; by default NAME.")] = None,
) -> Reply:
    """Create a package with a working model of your own, its test, and its pyproject.toml."""
    folder = out or Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty", expected="a new folder", fix="choose another --out")
    words = name.split("_")
    meanings = {
        "DASHED": name.replace("_", "-"),
        "CLASS": "".join(map(str.capitalize, words)),
        "TITLE": " ".join(map(str.capitalize, words)),
        "NAME": name,
    }
    _check_name(name, meanings["CLASS"])
    texts = {f"{name}.py": _MODEL, f"test_{name}.py": _TEST, "pyproject.toml": _PROJECT}
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        for word, meaning in meanings.items():
            text = text.replace(word, meaning)
        (folder / file).write_text(text, encoding="utf-8")
    return Reply(
        {"name": name, "folder": str(folder), "files": list(texts)},
        [
            f"{folder} has {', '.join(texts)}",
            f"Next: cd {quote(str(folder))}",
            f"      {python()} -m pytest test_{name}.py",
            runnable(f"      lifelong --import {name} train DATA --model {name} --out ARTIFACT", elsewhere=True),
            f"      {python()} -m pip install -e .     # then without --import",
        ],
    )


def _check_name(name: str, title: str) -> None:
    """Check that a module, a class and a distribution can have this name, and that no other one has it.

    Args:
        name: of the model and its module.
        title: of the class.
    """
    if not re.fullmatch("[a-z]([a-z0-9_]*[a-z0-9])?", name) or keyword.iskeyword(name):
        expected = "small letters a to z, digits and underscores, a letter first and no underscore last"
        raise UsageError(f"a model named {name!r}", expected=f"{expected}, such as my_model", fix="choose another name")
    found = importlib.util.find_spec(name)
    # A folder without __init__.py is found as a module, too, and hides none.
    if found is not None and found.origin is not None:
        raise UsageError(
            f"a model named {name!r}, as a module that is installed already ({found.origin})",
            expected="a name that no other module has",
            fix=f"for example my_{name}",
        )
    imports = [line for line in _MODEL.splitlines() if re.match("(from|import) ", line)]
    if any(re.search(rf"\b{title}\b", line) for line in imports) or _is_known(name):
        raise UsageError(
            f"a model named {name!r}, which is a name of lifelong",
            expected="another name",
            fix=f"for example my_{name}",
        )


def _is_known(name: str) -> bool:
    """Whether lifelong has a model of this name; without torch, which the models need, nobody can say."""
    if name == "all" or importlib.util.find_spec("torch") is None:
        return name == "all"
    from lifelong.models import all_names

    return name in all_names()
