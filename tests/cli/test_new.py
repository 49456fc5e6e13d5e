"""`lifelong new`."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]


def test_every_command_of_a_new_project_works_as_printed(run, tmp_path, monkeypatch):
    folder = tmp_path / "shop"
    assert run("new", "project", folder).code == 0
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
    score = called[-2][1:]
    assert score[0] == "score"
    copied = copy_of_the_store(folder, tmp_path / "volume")
    here, there = (run(*score[:3], url, *score[4:], "--json") for url in ("rocksdb://store", f"rocksdb://{copied}"))
    assert here.document == there.document and here.document["count"] > 20


def copy_of_the_store(folder, volume):
    """What the compose file's first service makes of the project's store; here its user stays who it is."""
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    copying, service = services["memories"], services["lifelong"]
    assert copying["volumes"][1] == service["volumes"][1] == "store:/data"
    assert service["depends_on"] == {"memories": {"condition": "service_completed_successfully"}}
    volume.mkdir()
    text = copying["command"][0].replace("/filled", str(folder / "store")).replace("/data", str(volume))
    for _ in range(2):
        program = [*copying["entrypoint"], text.replace("chown -R 10001:10001", "test -d")]
        subprocess.run(program, check=True)
        (volume / "store" / "kept").touch()
    # The second time nothing is copied.
    assert (volume / "store" / "kept").exists() and [path.name for path in volume.iterdir()] == ["store"]
    (volume / "store" / "kept").unlink()
    return volume / "store"


def test_a_folder_with_something_in_it_is_left_alone(run, tmp_path):
    (tmp_path / "mine").write_text("x")
    outcome = run("new", "project", tmp_path, "--json")
    assert outcome.code == 2 and "not empty" in outcome.error["found"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_next_command_can_be_pasted_where_a_folder_has_a_blank_in_its_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Next: cd 'my shop', and" in run("new", "project", "my shop").stdout
    assert "Next: cd 'my models/my_shop_model'\n" in run("new", "model", "my models/my_shop_model").stdout
    monkeypatch.chdir("my shop")
    prepared = run("prepare", "table", "log.csv", "--mapping", "mapping.toml", "--out", "my data")
    assert "Next: lifelong train 'my data' --model tally" in prepared.stdout
    trained = run("train", "my data", "--model", "popularity", "--out", "my artifact")
    assert "Next: lifelong evaluate 'my artifact' 'my data'\n" in trained.stdout
    # Popularity is not served.
    assert "Next:" not in run("evaluate", "my artifact", "my data").stdout
    run("train", "my data", "--model", "hpmn", "--out", "my memory", "--set", "train.max_epochs=1")
    measured = run("evaluate", "my memory", "my data").stdout
    assert "Next: lifelong backfill 'my memory' 'my data' --store rocksdb://store\n" in measured
    filled = run("backfill", "my memory", "my data", "--store", "rocksdb://my store").stdout
    assert re.search(r"seconds \d+\.\d,", filled)
    assert "Next: lifelong serve 'my memory' --store 'rocksdb://my store'\n" in filled


def test_a_place_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("x")
    for kind in ("project", "model"):
        outcome = run("new", kind, tmp_path / "file" / "my_shop", "--json")
        assert outcome.code == 1 and str(tmp_path / "file") in outcome.error["found"], outcome


def test_commands_name_the_program_where_it_is_not_on_the_path(program, tmp_path):
    """Where it was called by its path, also from the new folder; they are run as printed."""
    shell = {**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}

    def sh(command, folder):
        done = subprocess.run(command, shell=True, cwd=folder, env=shell, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    sh("'my env/bin/lifelong' new project shop", tmp_path)
    first = re.search(r"```sh\n(.*?)```", (tmp_path / "shop" / "README.md").read_text(), re.DOTALL)[1].splitlines()[0]
    assert first.startswith(f"'{program}' prepare table")
    sh(first, tmp_path / "shop")
    assert (tmp_path / "shop" / "data" / "dataset.json").exists()
    prepare = "prepare table shop/log.csv --mapping shop/mapping.toml --out data"
    assert "Next: 'my env/bin/lifelong' train data" in sh(f"'my env/bin/lifelong' {prepare}", tmp_path)
    printed = sh("'my env/bin/lifelong' new model my_shop_model", tmp_path)
    assert f"'{program}' --import my_shop_model train DATA" in printed
    assert f"{sys.executable} -m pytest test_my_shop_model.py" in printed


@pytest.mark.parametrize(
    ("origin", "dependency"),
    [
        ('{"url": "file:///src/lifelong", "dir_info": {}}', "lifelong[train] @ file:///src/lifelong"),
        (
            '{"url": "https://host/lifelong", "vcs_info": {"vcs": "git", "commit_id": "a1b2"}}',
            "lifelong[train] @ git+https://host/lifelong@a1b2",
        ),
        (None, "lifelong[train]"),
    ],
)
def test_a_new_model_depends_on_this_package_from_where_it_was_installed(
    run, tmp_path, monkeypatch, origin, dependency
):
    # Its class by asking: once any package imports the `importlib_metadata` of PyPI, that one finds the distributions.
    monkeypatch.setattr(type(metadata.distribution("lifelong")), "read_text", lambda self, name: origin)
    assert run("new", "model", tmp_path / "fading_words").code == 0
    project = tomllib.loads((tmp_path / "fading_words" / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == [dependency]
