"""`lifelong init`."""

import re
import shlex

import pytest

pytestmark = pytest.mark.torch


def test_every_command_of_a_new_project_works_as_printed(run, tmp_path, monkeypatch):
    folder = tmp_path / "shop"
    assert run("init", folder).code == 0
    monkeypatch.chdir(folder)
    text = (folder / "README.md").read_text()
    commands = re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1].splitlines()
    called = [shlex.split(line) for line in commands]
    assert " ".join(words[1] for words in called) == "prepare train evaluate backfill verify ingest score serve"
    for words in called[:-1]:
        outcome = run(*words[1:], "--json", *(["--set", "train.max_epochs=1"] if words[1] == "train" else []))
        assert outcome.code == 0, outcome.stdout + outcome.stderr
        if words[1] == "ingest":
            assert outcome.document["applied"] == 3
        if words[1] == "verify":
            assert outcome.document["equal"]


def test_a_folder_with_something_in_it_is_left_alone(run, tmp_path):
    (tmp_path / "mine").write_text("x")
    outcome = run("init", tmp_path, "--json")
    assert outcome.code == 2 and "not empty" in outcome.error["found"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
