"""What all commands have in common: help, exit codes, errors."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from support.commands import reference

from lifelong.cli import main, terminal
from lifelong.cli.extras import COMMANDS, GROUPS
from lifelong.cli.program import build, with_common_options
from lifelong.cli.terminal import Reply, Terminal, run_command
from lifelong.errors import ConfigError, DataError, UsageError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_the_common_options(run, command):
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert f"lifelong {command}" in outcome.stdout
    assert "--json" in outcome.stdout and "--debug" in outcome.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_values_have_names_and_not_types_of_python(run, command):
    text = run(command, "--help").stdout
    assert not re.findall(r"<(?:\w+|int range|list\[\w+\])>", text)
    names = {option.metavar for name, option in OPTIONS if name == command and option.metavar}
    assert not [name for name in names if "_" in name]


def test_the_help_names_every_command(run):
    outcome = run("--help")
    assert outcome.code == 0
    assert all(command in outcome.stdout for command in COMMANDS)


def test_the_help_groups_all_commands_by_what_they_are_for(run):
    page = run("--help").stdout
    places = [page.index(f"{title}:\n") for title in ("Start", "Data and models", "Serve", "Operate")]
    assert places == sorted(places)
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)


OPTIONS = [
    (name, parameter)
    for name, command in build().commands.items()
    for parameter in command.params
    if parameter.param_type_name == "option" and parameter.opts[0] != "--help"
]


def test_a_word_means_one_thing_in_all_commands():
    words = {option.opts[0] for _, option in OPTIONS}
    assert not words & {"--from", "--option", "--minutes", "--max-hours", "--patience", "--idle", "--users"}
    assert {name for name, option in OPTIONS if option.opts[0] == "--column"} == {"prepare", "backfill", "ingest"}
    with_store = {name for name, option in OPTIONS if option.opts[0] == "--store"}
    assert with_store >= {"backup", "doctor", "forget", "export", "switch", *GROUPS["Serve"]}
    for word in ("--mapping", "--column", "--max-time", "--key-file", "--codec"):
        assert len({option.metavar for _, option in OPTIONS if option.opts[0] == word} - {None}) <= 1, word


def test_there_are_no_more_options_than_can_be_kept_in_mind():
    assert len(COMMANDS) <= 20
    assert sum(option.name not in ("as_json", "debug") for _, option in OPTIONS) <= 124


@pytest.mark.parametrize("text", ["1", "1.5h", "soon", "-3d", "3 d"])
@pytest.mark.parametrize(
    "words",
    [
        ["forget", "--store", "memory://", "--inactive"],
        ["ingest", ".", "new.csv", "--store", "memory://", "--max-ahead"],
        ["ingest", ".", "new.csv", "--store", "memory://", "--max-idle"],
        ["compare", ".", "--out", "report", "--max-time"],
        ["demo", "--max-time"],
    ],
    ids=lambda words: " ".join(words[::99] + words[-1:]),
)
def test_a_duration_has_one_form_everywhere(run, words, text):
    outcome = run(*words, text, "--json")
    assert outcome.code == 2
    assert words[-1] in outcome.error["found"] and "30s, 15m, 2h or 7d" in outcome.error["found"]


def test_no_command_is_a_question_for_help(run):
    outcome = run()
    assert outcome.code == 0
    assert outcome.stdout == run("--help").stdout


def test_the_version(run):
    assert run("--version").stdout.startswith("lifelong ")


def test_an_unknown_command_is_bad_usage_and_says_where_help_is(run):
    outcome = run("prepair")
    assert outcome.code == 2
    assert "prepair" in outcome.stderr and "to do: lifelong --help" in outcome.stderr
    assert outcome.stdout == ""


def test_an_unknown_option_is_bad_usage_also_for_machines(run):
    outcome = run("doctor", "--frobnicate", "--json")
    assert outcome.code == 2
    assert "--frobnicate" in outcome.error["found"]
    assert outcome.error["fix"] == "lifelong doctor --help"


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["prepare", "taobao"], "--out"),
        (["train", "data"], "--out"),
        (["train", "data", "--out", "artifact"], "--model"),
        (["evaluate", "artifact"], "DATA"),
        (["compare", "data"], "--out"),
        (["backfill", "artifact", "data"], "--store"),
        (["ingest", "artifact", "--store", "memory://"], "FILE...|URL"),
        (["score", "artifact"], "--store"),
        (["verify", "artifact", "data"], "--store"),
        (["serve", "artifact"], "--store"),
    ],
)
def test_what_a_command_misses_is_named(run, command, missing):
    outcome = run(*command, "--json")
    assert outcome.code == 2
    assert missing in outcome.error["found"]


def _fail(error):
    def body(terminal):
        raise error

    return body


def test_an_error_is_printed_in_its_three_parts(capsys):
    error = DataError("a hole", expected="no hole", fix="fill it")
    assert run_command(_fail(error), as_json=False, debug=False) == 1
    assert capsys.readouterr().err == "error: a hole\nexpected: no hole\nto do: fill it\n"


@pytest.mark.parametrize(
    "words",
    [
        ["forget", "a", "\udcff", "--store", "http://127.0.0.1:1"],
        ["export", "--user", "\udcff", "--store", "memory://"],
        ["score", ".", "--store", "memory://", "--user", "u", "--items", "i1,\udcff"],
    ],
    ids=lambda words: words[0],
)
def test_an_id_in_another_encoding_is_bad_usage(run, words):
    outcome = run(*words)
    assert outcome.code == 2
    assert "is not text in UTF-8" in outcome.stderr


def test_a_usage_error_exits_with_two():
    assert run_command(_fail(UsageError("x")), as_json=False, debug=False) == 2


def test_all_config_problems_are_listed(capsys):
    assert run_command(_fail(ConfigError(["a is wrong", "b too"])), as_json=False, debug=False) == 2
    assert capsys.readouterr().err == "error: a is wrong\nerror: b too\n"


def test_config_problems_are_a_list_for_machines(capsys):
    run_command(_fail(ConfigError(["a is wrong", "b too"])), as_json=True, debug=False)
    assert json.loads(capsys.readouterr().out)["error"]["problems"] == ["a is wrong", "b too"]


def test_an_unexpected_error_is_short_without_debug(capsys):
    assert run_command(_fail(ZeroDivisionError("oh")), as_json=False, debug=False) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: oh" in err and "--debug" in err
    assert "Traceback" not in err


def test_debug_shows_where_an_error_happened(capsys):
    assert run_command(_fail(ZeroDivisionError("oh")), as_json=False, debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_process_without_its_peers_ends_with_its_exit_code_whatever_their_threads_do():
    """A thread that is still there when the interpreter ends may abort the process; here something always does."""
    program = """
import atexit, os
from lifelong.cli.terminal import run_command
from lifelong.errors import LostProcessError
def lost(terminal):
    raise LostProcessError("process 1 is gone")
atexit.register(os.abort)
raise SystemExit(run_command(lost, as_json=True, debug=False))
"""
    several = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | several, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["error"]["found"] == "process 1 is gone"


def test_ctrl_c_while_commands_are_loaded_exits_with_130(monkeypatch, capsys):
    def interrupted(commands):
        raise KeyboardInterrupt

    monkeypatch.setattr("lifelong.cli.program.build", interrupted)
    assert main(["--help"]) == 130
    assert capsys.readouterr().err == ""


def test_ctrl_c_exits_with_130():
    assert run_command(_fail(KeyboardInterrupt()), as_json=True, debug=False) == 130


def test_what_libraries_print_does_not_spoil_the_document(capsys):
    def body(terminal):
        print("noise")
        return Reply({"a": 1})

    assert run_command(body, as_json=True, debug=False) == 0
    out = capsys.readouterr()
    assert json.loads(out.out) == {"a": 1}
    assert "noise" in out.err


def test_numbers_that_json_has_not_become_null(capsys):
    run_command(lambda terminal: Reply({"a": [float("nan"), float("inf"), 1.5]}), as_json=True, debug=False)
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5]}


def test_people_get_the_summary_and_not_the_document(capsys):
    run_command(lambda terminal: Reply({"a": 1}, ["All is well [1]."]), as_json=False, debug=False)
    assert capsys.readouterr().out == "All is well [1].\n"


def test_the_answer_no_is_an_exit_code_of_its_own(capsys):
    assert run_command(lambda terminal: Reply({}, exit_code=1), as_json=False, debug=False) == 1


def test_a_command_gets_the_common_options():
    def greet(terminal: Terminal, name: str) -> Reply:
        return Reply({"hello": name})

    assert with_common_options(greet)(name="you", as_json=False, debug=False) == 0


def test_the_reference_page_is_fresh():
    path = ROOT / "docs" / "cli.md"
    assert path.read_text() == reference(), "stale: run `make pictures`"


def test_the_module_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "lifelong", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_a_printed_command_runs_where_it_is_printed(program, tmp_path):
    """A program that is not on the path names itself by its path, and what it prints runs."""

    def called(words, path):
        environment = {**os.environ, "PATH": path}
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    elsewhere = "/usr/bin:/bin"
    printed = called([program, "nonsense"], elsewhere).stderr.rpartition("to do: ")[2].strip()
    assert printed == "'my env/bin/lifelong' --help"
    assert called(shlex.split(printed), elsewhere).returncode == 0
    failed = called([program, "nonsense"], f"{program.parent}:{elsewhere}")
    assert failed.stderr.endswith("to do: lifelong --help\n")


def test_pip_is_named_so_that_it_installs_for_this_program(tmp_path, monkeypatch):
    here = tmp_path / "environment" / "bin"
    here.mkdir(parents=True)
    for name in ("python", "pip"):
        (here / name).write_text("#!/bin/sh\n")
        (here / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    fix = "pip install 'lifelong[train]'"
    monkeypatch.setenv("PATH", f"{here}:/usr/bin:/bin")
    assert terminal.runnable(fix) == fix
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert terminal.runnable(fix) == "environment/bin/python -m pip install 'lifelong[train]'"
    assert terminal.runnable("pip install lifelong") == "pip install lifelong"
    # Where uv made the environment, it has no pip.
    monkeypatch.setattr(terminal.importlib.util, "find_spec", lambda name: None)
    assert terminal.runnable(fix) == fix


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("Next: lifelong train data --model tally --out artifact", False),
        ("Next: .venv/bin/lifelong train data --model tally --out artifact", False),
        ("Try: curl -H 'Content-Type: application/json' http://localhost/", False),
        ("Protocol temporal, negatives popularity, item fields item", True),
    ],
)
def test_a_line_with_a_command_is_not_broken(line, broken):
    console = Console(width=30, file=io.StringIO())
    terminal._print(console, line)
    assert ("\n" in console.file.getvalue().strip()) == broken
