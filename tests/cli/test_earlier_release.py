"""What the release 0.1.0 left on a disk opens, with the same answers; `tests/assets/make_version_0_1_0.py` made it."""

from __future__ import annotations

import json
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lifelong.artifact.folder import Artifact
from lifelong.errors import StoreForeignError
from lifelong.memory.runtime import identity_of, identity_with
from lifelong.memory.takeover import add
from lifelong.store.artifact_list import check_identity
from lifelong.store.opening import open_store

ARCHIVE = Path(__file__).parents[1] / "assets" / "version_0_1_0.tar.xz"
NOW = 1_602_000_000


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What 0.1.0 answered; its files are in the current folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return json.loads(Path("answers.json").read_text())


@pytest.fixture(params=["tally", "hpmn"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def store_of(name: str) -> str:
    return f"rocksdb://store-{name}"


def test_doctor_says_the_formats(run, left, name):
    artifact = run("doctor", "--artifact", name, "--json").document
    assert (artifact["format_version"], artifact["model"]) == (1, name)
    store = run("doctor", "--store", store_of(name), "--json").document
    assert store["facts"]["format"] == "1"


def test_scores_are_those_that_it_gave(run, left, name):
    items = ",".join(left[name]["scores"])
    words = ("--store", store_of(name), "--user", "u1", "--items", items, "--time", NOW, "--json")
    found = run("score", name, *words)
    assert {one["item"]: one["score"] for one in found.document["scores"]} == pytest.approx(
        left[name]["scores"], abs=1e-4
    )


@pytest.mark.full
def test_the_service_gives_the_same_scores_and_takes_events(left, name):
    testclient = pytest.importorskip("fastapi.testclient")
    from lifelong.serving.app import create_app

    with closing(open_store(store_of(name))) as store, testclient.TestClient(create_app(Path(name), store)) as client:
        body = {"user": "u1", "items": list(left[name]["scores"]), "time": NOW}
        found = client.post("/v1/score", json=body).json()
        assert {one["item"]: one["score"] for one in found["scores"]} == pytest.approx(left[name]["scores"], abs=1e-4)
        event = {"user": "u1", "item": "i3", "time": NOW}
        assert client.post("/v1/events", json={"events": [event]}).json()["applied"] == 1
        assert client.post("/v1/score", json=body).json()["scores"] != found["scores"]


def test_a_store_is_verified_continued_and_verified_again(run, left, name):
    found = run("verify", name, "--store", store_of(name), "--json")
    assert found.code == 0 and found.document["users"] == 8
    # Its offset in the file is known: nothing counts twice.
    again = run("ingest", name, "--store", store_of(name), "--from", "new.csv", "--json").document
    assert again["applied"] == 0
    Path("newer.csv").write_text(f"user,item,time\nu1,i3,{NOW}\nnobody yet,i2,{NOW}\n")
    newer = run("ingest", name, "--store", store_of(name), "--from", "newer.csv", "--json").document
    assert newer["applied"] == 2
    assert run("verify", name, "--store", store_of(name)).code == 0


@pytest.mark.torch
def test_evaluation_gives_the_same_metrics(run, left, name):
    pytest.importorskip("torch")
    found = run("evaluate", name, "data", "--json").document["metrics"]
    assert {key: value["value"] for key, value in found.items()} == pytest.approx(left[name]["metrics"], abs=1e-4)


@pytest.mark.torch
def test_a_model_of_this_release_starts_from_it_and_takes_its_place(run, left, name):
    pytest.importorskip("torch")
    trained = run("train", "data", "--from", name, "--out", "next", "--set", "train.max_examples=20", "--json")
    assert trained.code == 0, trained.stderr
    assert run("backfill", "next", "--store", store_of(name), "--json").document["users"] == 8
    assert run("switch", "next", "--store", store_of(name)).code == 0
    assert run("verify", "next", "--store", store_of(name)).code == 0


def test_a_layout_that_only_leaves_out_what_is_by_default_is_the_same(left):
    """0.1.0 had one scale of counts and did not write its name."""
    artifact = Artifact.open(Path("tally"))
    with closing(open_store(store_of("tally"))) as store:
        (stored,) = store.artifact_list().artifacts
        assert "scale" not in stored.identity.layout and '"scale":"fine"' in identity_with(artifact, "fp32").layout
        assert identity_of(artifact, store) == stored.identity
        assert add(store, artifact).identity == stored.identity
        other = identity_with(artifact, "fp32").layout.replace("fine", "coarse")
        with pytest.raises(StoreForeignError, match="holds memories of layout"):
            check_identity("it", stored.identity, type(stored.identity)(artifact.id, "fp32", other))
