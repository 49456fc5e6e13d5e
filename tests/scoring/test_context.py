"""What a model knows of the moment of a request: equal online and offline, and nothing of what comes later."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("rocksdict")
import torch
from support.artifacts import SETTINGS, tiny_artifact

from lifelong.artifact.folder import Artifact
from lifelong.cli.options import profile_of
from lifelong.cli.served_replay import replay
from lifelong.dataset.folder import Dataset
from lifelong.dataset.scales import SCALES
from lifelong.errors import RequestError
from lifelong.offline.data.batches import evaluation_batches
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.export.saving import load_model
from lifelong.online.memory.filling import backfill
from lifelong.online.memory.verify import verify
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.scoring.tables import score_table
from lifelong.online.serving.settings import ServiceSettings
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore
from lifelong.testing.datasets import tiny_dataset

pytestmark = pytest.mark.torch
CONTEXT = ["time_of_day", "user.age", "since_event", "weekday", "time_of_week", "user.region"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"), profiles=True)


@pytest.mark.parametrize("model", ["hpmn", "tally", "fm", "din"])
def test_online_scores_with_chosen_context_are_the_offline_scores(model: str, dataset: Dataset, tmp_path: Path) -> None:
    artifact = tiny_artifact(
        tmp_path / "artifact", dataset, model=model, settings={**SETTINGS.get(model, {}), "context": CONTEXT}
    )
    url = f"rocksdb://{tmp_path / 'store'}"
    store = open_store(url)
    backfill(artifact, dataset, store, until=dataset.manifest.cut_times[1])
    assert verify(artifact, dataset, store, until=dataset.manifest.cut_times[1]).equal
    store.close()
    done = replay(artifact, dataset, lambda: open_store(url))
    offline = predict(load_model(artifact), dataset, dataset.examples("test"))[:, 0]
    np.testing.assert_allclose(done.logit_N, offline, atol=1e-4)
    assert {path.stem for path in (artifact.path / "tables").iterdir()} >= set(CONTEXT)
    assert not (artifact.path / "tables" / "hour.npy").exists()


def test_the_moment_of_a_request_changes_its_scores_as_its_fields_say(dataset: Dataset, tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path / "artifact", dataset, settings={**SETTINGS["hpmn"], "context": ["time_of_day"]})
    store = InMemoryStore()
    backfill(artifact, dataset, store)
    scorer, moment = Scorer(artifact, store), 1_900_000_000
    first, next_day, evening = (
        scorer.score("u5", ["i1"], time=moment + later)[0].score for later in (0, 86_400, 30_000)
    )
    assert first == next_day != evening


def test_what_happens_at_a_targets_moment_and_after_it_is_not_in_its_context(dataset: Dataset, tmp_path: Path) -> None:
    """A leak is planted: events at and behind the target say what the target is."""
    examples = dataset.examples("test")
    one = examples.take(np.array([len(examples) // 2]))
    user, moment = int(one.user_N[0]), int(one.time_N[0])
    (clean,) = (batch.context_BCF.clone() for batch in evaluation_batches(dataset, one))
    planted = tiny_dataset(tmp_path / "planted", profiles=True)
    histories = planted.histories
    time_N = np.array(histories.time_N)
    of_user = histories.of(user)
    leaked = np.flatnonzero(time_N[of_user] >= moment) + of_user.start
    assert len(leaked)
    time_N[leaked] = moment + np.arange(len(leaked))
    planted.__dict__["histories"] = replace(histories, time_N=time_N)
    (dirty,) = (batch.context_BCF for batch in evaluation_batches(planted, one))
    assert torch.equal(clean, dirty)
    last = int(time_N[leaked[0] - 1])
    since = dataset.schema.context_fields.index("since_event")
    assert dirty[0, 0, since] == SCALES["since_event"].numbers(np.array([moment - last]), np.ones(1, bool))[0]


@pytest.fixture(scope="module")
def profiled(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    settings = {**SETTINGS["hpmn"], "context": ["user.age", "gap"]}
    return tiny_artifact(tmp_path_factory.mktemp("profiled") / "artifact", dataset, settings=settings)


def test_a_profile_comes_with_the_request_and_what_is_left_out_is_unknown(profiled: Artifact, dataset: Dataset) -> None:
    store = InMemoryStore()
    backfill(profiled, dataset, store)
    scorer = Scorer(profiled, store)
    profiles = [{"age": "young"}, {"age": "old"}, None, {"age": None}, {"age": "ageless"}, {"region": "north"}]
    requests = [ScoreRequest("u5", ["i1", "i2"], 1_900_000_000, profile=profile) for profile in profiles]
    young, old, *unknown = ([score.score for score in scores] for scores in scorer.score_many(requests))
    assert young != old
    assert unknown == [pytest.approx(unknown[0], abs=1e-6)] * 4
    assert not {tuple(young), tuple(old)} & {tuple(unknown[0])}
    alone = scorer.score("u5", ["i1", "i2"], time=1_900_000_000, profile={"age": "old"})
    assert [score.score for score in alone] == pytest.approx(old, abs=1e-6)


def test_a_field_that_no_profile_has_is_refused(profiled: Artifact, dataset: Dataset, tmp_path: Path) -> None:
    store = InMemoryStore()
    with pytest.raises(RequestError, match=r"'shoe_size' is not a field of a profile\. Expected: age, region"):
        Scorer(profiled, store).score("u5", ["i1"], profile={"shoe_size": "43"})
    plain = tiny_artifact(tmp_path / "artifact", tiny_dataset(tmp_path / "data"))
    with pytest.raises(RequestError, match="no profile: this model was trained without"):
        Scorer(plain, InMemoryStore()).score("u5", ["i1"], profile={"age": "old"})


def test_an_artifact_knows_the_values_of_profiles_and_nobodys_own(profiled: Artifact) -> None:
    assert profiled.profile_vocabularies["user.age"].index.ids() == ["young", "old"]
    assert not list(profiled.path.rglob("profile.npy"))


def test_the_service_takes_a_profile(profiled: Artifact, make_client) -> None:
    client = make_client(profiled)

    def score(**more: object) -> float:
        body = {"user": "u1", "items": ["i1"], "time": 1_900_000_000, **more}
        return client.post("/v1/score", body).json()["scores"][0]["score"]

    assert score() == score(profile={}) == score(profile={"age": None}) != score(profile={"age": "old"})
    refused = client.post("/v1/score", {"user": "u1", "items": ["i1"], "profile": {"height": "2"}})
    assert refused.status_code == 422 and "height" in refused.text
    document = client.get("/openapi.json").json()
    taken = document["components"]["schemas"]["ScoreRequestBody"]["properties"]["profile"]["anyOf"][0]
    assert taken["propertyNames"] == {"enum": ["age", "region"]}
    explained = client.post("/v1/explain", {"user": "u1", "items": ["i1"], "profile": {"age": "old"}})
    assert explained.status_code == 200


def test_a_profile_is_neither_stored_nor_logged(
    profiled: Artifact, make_client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    caplog.set_level(logging.INFO)
    client = make_client(profiled, settings=ServiceSettings(impressions_log=tmp_path, log_users=True))
    client.post("/v1/events", {"events": [{"user": "u1", "item": "i1", "time": 1_700_000_000}]})
    request = {"user": "u1", "items": ["i1", "i2"], "profile": {"age": "as-old-as-the-hills", "region": "north"}}
    for path, body in (("/v1/score", request), ("/v1/score", {"requests": [request]}), ("/v1/explain", request)):
        assert client.post(path, body).status_code == 200
    client.app.state.impressions.flush()
    tables = [parquet.read_table(path) for path in tmp_path.glob("*.parquet")]
    assert sum(map(len, tables)) == 4
    logged = [(record.getMessage(), getattr(record, "data", None)) for record in caplog.records]
    exported = client.get("/v1/admin/users/u1").text
    kept = repr([vars(client.app.state.service.store), [table.to_pylist() for table in tables], logged, exported])
    assert "u1" in kept and "i2" in kept
    assert not any(word in kept for word in ("as-old-as-the-hills", "north", "'region", "'age"))


def test_a_table_of_requests_can_hold_profiles(profiled: Artifact, tmp_path: Path) -> None:
    source, out = tmp_path / "requests.csv", tmp_path / "scores.csv"
    source.write_text("user,item,time,user.age\nu1,i1,1900000000,old\nu1,i1,1900000000,young\nu1,i1,1900000000,\n")
    scorer = Scorer(profiled, InMemoryStore())
    assert score_table(scorer, source, out) == 3
    found = [float(line.split(",")[2]) for line in out.read_text().splitlines()[1:]]
    wanted = [
        scorer.score("u1", ["i1"], time=1_900_000_000, profile={"age": age})[0].score for age in ("old", "young", None)
    ]
    assert found == pytest.approx(wanted, abs=1e-5) and len(set(found)) == 3
    assert profile_of(["age=old", "region="]) == {"age": "old", "region": None}
    assert profile_of([]) is None


def test_every_target_has_the_profile_of_its_own_user(dataset: Dataset) -> None:
    for split in ("train", "validation", "test"):
        for batch in evaluation_batches(dataset, dataset.examples(split)):
            at = dataset.schema.context_fields.index("user.age")
            expected = dataset.profile_UF[batch.user_B.numpy() - 2, 0]
            found = np.where(batch.mask_BC, batch.context_BCF[..., at], 0)
            assert np.array_equal(found, np.where(batch.mask_BC, expected[:, None], 0))
