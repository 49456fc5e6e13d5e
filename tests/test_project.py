"""The files around the package say what is true of it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import lifelong.dataset.folder
from lifelong.artifact import manifest
from lifelong.offline.evaluation import results
from lifelong.online.memory import codec
from lifelong.online.store import folder, redis
from lifelong.version import __version__

ROOT = Path(__file__).parents[1]


def test_the_page_of_versions_has_the_formats_of_this_release():
    page = (ROOT / "docs" / "versions.md").read_text()
    written = dict(re.findall(r"^\| ([a-z][^|(]*?)(?: \([^|]*)? \| [^|]* \| (\d+)", page, re.M))
    assert written == {
        "dataset": str(lifelong.dataset.folder.FORMAT_VERSION),
        "artifact": str(manifest.FORMAT_VERSION),
        "store in a folder": str(folder.SINGLE),
        "store on a Redis or Valkey server": str(redis.FORMAT_VERSION),
        "a user's memory in a store": str(codec.VERSION),
        "comparison": str(results.FORMAT_VERSION),
    }
    assert f"or {folder.SHARDED} (shards)" in page


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    log = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\d\S+) - (\d{4}-\d\d-\d\d)$", log, re.M)
    assert newest is not None
    assert (newest[1], newest[2]) == (__version__, str(citation["date-released"]))
    assert citation["version"] == __version__


def test_continuous_integration_calls_targets_that_exist_on_all_supported_pythons():
    job = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())["jobs"]["test"]
    makefile = (ROOT / "Makefile").read_text()
    called = [step["run"].removeprefix("make ") for step in job["steps"] if step.get("run", "").startswith("make ")]
    assert called == ["check", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in called)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = [line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python ::" in line]
    assert job["strategy"]["matrix"]["python"] == supported


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_forms_and_workflows_are_well_formed(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_links_of_the_front_page_are_of_files_that_exist():
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{page}: {target}"
