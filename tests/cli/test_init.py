"""`lifelong init`."""

import re
import shlex
import subprocess

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
    outcome = run("init", tmp_path, "--json")
    assert outcome.code == 2 and "not empty" in outcome.error["found"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_next_command_can_be_pasted_where_a_folder_has_a_blank_in_its_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Next: cd 'my shop', and" in run("init", "my shop").stdout
    assert "Next: cd 'my model'\n" in run("new", "model", "my_shop_model", "--out", "my model").stdout
    monkeypatch.chdir("my shop")
    prepared = run("prepare", "table", "log.csv", "--mapping", "mapping.toml", "--out", "my data")
    assert "Next: lifelong train 'my data' --model tally" in prepared.stdout
    trained = run("train", "my data", "--model", "popularity", "--out", "my artifact")
    assert "Next: lifelong evaluate 'my artifact' 'my data'\n" in trained.stdout


def test_a_place_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("x")
    for words in (("init",), ("new", "model", "my_shop_model", "--out")):
        outcome = run(*words, tmp_path / "file" / "shop", "--json")
        assert outcome.code == 1 and str(tmp_path / "file") in outcome.error["found"], outcome
