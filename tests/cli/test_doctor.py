"""`lifelong doctor`."""

import re
import tomllib
from pathlib import Path

from lifelong.cli import doctor
from lifelong.cli.extras import EXTRAS

UNSEEN = {"typing-extensions", "uvloop"}
"""Brought by extras, and not needed by a command on its own."""


def test_the_document_says_versions_machine_extras_and_commands(run):
    document = run("doctor", "--json").document
    assert document["cores"] >= 1
    assert document["memory_bytes"] is None or document["memory_bytes"] > 2**20
    assert document["packages"]["onnxruntime"] is not None
    assert document["extras"]["serve"] == {"installed": True, "missing": []}
    assert document["commands"]["serve"] == {"possible": True, "needs": []}


def test_a_missing_extra_rules_its_commands_out_and_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: name != "torch")
    document = run("doctor", "--json").document
    assert document["extras"]["train"] == {"installed": False, "missing": ["torch"]}
    assert document["commands"]["train"] == {"possible": False, "needs": ["train"]}
    assert document["commands"]["serve"]["possible"]
    assert "pip install 'lifelong[train]'" in run("doctor").stdout


def test_every_package_of_an_extra_is_looked_for():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for extra, modules in EXTRAS.items():
        needed = {re.split("[<>=;[]", word)[0] for word in project["optional-dependencies"][extra]}
        found = {doctor.distribution_of(module) for module in modules}
        assert needed - UNSEEN - {"lifelong"} <= found, extra


def test_a_store_is_looked_at_and_a_problem_is_a_no(run, filled, tmp_path, monkeypatch):
    found = run("doctor", "--store", filled, "--json")
    assert found.code in (0, 1) and "nothing is lost" in found.document["survives"]["kill of a process that writes"]
    monkeypatch.setattr("lifelong.online.store.checkup._FREE", 2.0)
    found = run("doctor", "--store", filled)
    assert found.code == 1 and "To do: the disk of" in found.stdout
    assert run("doctor", "--store", f"rocksdb://{tmp_path}/none").code == 1


def test_the_format_of_a_store_is_said(run, filled):
    assert run("doctor", "--store", filled, "--json").document["facts"]["format"] == "1"
