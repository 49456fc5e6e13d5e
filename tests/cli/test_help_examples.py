"""The example in the help of each command runs, in the project that `lifelong new` makes."""

import shlex

import pytest

from lifelong.cli.extras import COMMANDS, EXAMPLES
from lifelong.cli.program import build

pytestmark = pytest.mark.torch

LONGER = {"try", "serve", "demo", "paper"}
"""Run by tests of their own: they read a large log, need its files, or do not end by themselves."""
SMALLER = {
    "tune": ("tally --trials 20", "lr --trials 1 --max-examples 200"),
    "train": ("tally", "lr --set train.max_epochs=1"),
    "compare": ("tally,counts,popularity --seeds 3", "counts,popularity --seeds 1"),
}
"""Changes that make an example quick; `tests/cli/test_new.py` trains Tally."""


def test_the_example_of_each_command_works(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The disk of the machine may be nearly full, which `doctor --store` answers with 1.
    monkeypatch.setattr("lifelong.online.store.checkup._FREE", 0.0)
    assert run("new", "project", "shop").code == 0
    monkeypatch.chdir(tmp_path / "shop")
    for command, example in EXAMPLES.items():
        if command in LONGER or command == "new":
            continue
        outcome = run(*shlex.split(example.replace(*SMALLER.get(command, ("", ""))))[1:], "--json")
        assert outcome.code == 0, f"{example}\n{outcome.stdout}{outcome.stderr}"
        assert outcome.document


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_ends_with_its_example(run, command):
    text = run(command, "--help").stdout
    assert "  Example:\n" in text and text.rstrip().endswith(f"    {EXAMPLES[command]}")
    words = shlex.split(EXAMPLES[command].split(" && ")[0])
    assert words[:2] == ["lifelong", command]
    # Reads the options, and calls nothing.
    build().commands[command].make_context(command, words[2:])


def test_the_list_of_commands_is_not_cut_off(run):
    assert "..." not in run("--help").stdout.split("Start:")[1]
