"""Statistics of the candidates online: the artifact's own are of the end of its log, and newer ones win over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("rocksdict")

from support.artifacts import SETTINGS, tiny_artifact

from lifelong.artifact.export import load_model, write_artifact
from lifelong.artifact.folder import Artifact
from lifelong.data.dataset import Dataset
from lifelong.data.examples import Examples
from lifelong.data.item_statistics import END
from lifelong.data.scales import RATING, REVIEWS
from lifelong.errors import ArtifactError, ConfigError, RequestError
from lifelong.evaluation.evaluate import predict
from lifelong.memory.updater import Updater, UserEvent
from lifelong.memory.verify import verify
from lifelong.scoring.answer import ScoreRequest
from lifelong.scoring.explain import explain
from lifelong.scoring.online_items import OnlineItems
from lifelong.scoring.replay import replay
from lifelong.scoring.scorer import Scorer
from lifelong.scoring.tables import score_table
from lifelong.store.opening import open_store
from lifelong.store.ram import InMemoryStore
from lifelong.testing.datasets import tiny_dataset
from lifelong.training.backfill import backfill

pytestmark = pytest.mark.torch
CONTEXT = ["hour", REVIEWS, "user.age", RATING]
MOMENT = 1_740_000_000
"""Behind the log."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"), profiles=True, item_statistics=True)


def artifact_of(folder: Path, dataset: Dataset, model: str, context: list[str] = CONTEXT) -> Artifact:
    return tiny_artifact(folder, dataset, model=model, settings={**SETTINGS.get(model, {}), "context": context})


@pytest.fixture(scope="module")
def artifact(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact_of(tmp_path_factory.mktemp("artifact") / "artifact", dataset, "hpmn")


@pytest.fixture
def scorer(artifact: Artifact, dataset: Dataset) -> Scorer:
    store = InMemoryStore()
    backfill(artifact, dataset, store)
    return Scorer(artifact, store)


def score(scorer: Scorer, item: str, **fields: str | None) -> float:
    given = [{name.replace("_", "."): value for name, value in fields.items()}]
    return scorer.score_many([ScoreRequest("u5", [item], MOMENT, fields=given)])[0][0].score


@pytest.mark.parametrize("model", ["hpmn", "tally", "fm", "lr", "din", "gru4rec"])
def test_scores_behind_the_log_are_the_offline_scores_with_the_statistics_of_its_end(
    model: str, dataset: Dataset, tmp_path: Path
) -> None:
    artifact, store = artifact_of(tmp_path / "artifact", dataset, model), InMemoryStore()
    backfill(artifact, dataset, store)
    users, rows = np.repeat(np.arange(dataset.histories.num_users), 5), np.arange(200) % 60 + 2
    times = np.full(200, MOMENT)
    positions = np.diff(dataset.histories.offset_U)[users]
    later = Examples(
        users.astype(np.int32),
        rows.astype(np.int32),
        times,
        positions.astype(np.int32),
        np.ones((200, 1), np.float32),
    )
    requests = [
        ScoreRequest(
            dataset.users.id_at(int(user)),
            [str(dataset.catalogue.id_of(int(row))) for row in rows[users == user]],
            MOMENT,
            profile={"age": dataset.profile_vocabularies["user.age"].value_of(int(dataset.profile_UF[user, 0]))},
        )
        for user in range(dataset.histories.num_users)
    ]
    online = [each.score for scores in Scorer(artifact, store).score_many(requests) for each in scores]
    offline = predict(load_model(artifact), dataset, later)[:, 0]
    np.testing.assert_allclose(online, offline, atol=1e-4)


@pytest.mark.parametrize("model", ["hpmn", "tally", "din"])
def test_a_replay_brings_the_statistics_of_each_moment_and_gives_the_offline_scores(
    model: str, dataset: Dataset, tmp_path: Path
) -> None:
    artifact, url = artifact_of(tmp_path / "artifact", dataset, model), f"rocksdb://{tmp_path / 'store'}"
    store = open_store(url)
    backfill(artifact, dataset, store, until=dataset.manifest.cut_times[1])
    assert verify(artifact, dataset, store, until=dataset.manifest.cut_times[1]).equal
    store.close()
    done = replay(artifact, dataset, lambda: open_store(url))
    test = dataset.examples("test")
    offline = predict(load_model(artifact), dataset, test)[:, 0]
    np.testing.assert_allclose(done.logit_N, offline, atol=1e-4)
    # Those of the end of the log, which an artifact holds, would give others: the difference is not in rounding.
    statistics = dataset.item_statistics
    assert statistics is not None
    now, end = (statistics.numbers(test.row_N, time) for time in (test.time_N, np.full(len(test), END)))
    assert any((now[field] != end[field]).any() for field in (REVIEWS, RATING))


def test_newer_statistics_win_and_those_of_a_request_win_over_all(scorer: Scorer) -> None:
    own, few, many = score(scorer, "i1"), score(scorer, "i1", item_reviews="1"), score(scorer, "i1", item_reviews="900")
    assert len({own, few, many}) == 3
    scorer.online_items.put({"i1": {REVIEWS: "900"}, "i2": {"category": "c3"}})
    assert score(scorer, "i1") == many
    assert score(scorer, "i1", item_reviews="1") == few
    assert score(scorer, "i1", item_rating="1.5") != score(scorer, "i1", item_rating="4.5")
    assert score(scorer, "i1", item_rating=None) not in (many, score(scorer, "i1", item_rating="4.5"))
    again = OnlineItems(scorer.artifact, scorer.store)
    assert score(Scorer(scorer.artifact, scorer.store, online_items=again), "i1") == many


def test_an_item_that_nobody_met_has_no_event_and_the_mean_rating(artifact: Artifact, scorer: Scorer) -> None:
    statistics = artifact.item_statistics
    assert statistics is not None
    unmet = statistics.numbers(scorer.artifact.catalogue.rows(["never heard of"]))[0]
    assert unmet[0] == 2 and 2 < unmet[1] < 130
    assert score(scorer, "never heard of") == score(scorer, "never heard of", item_reviews="0")


@pytest.mark.parametrize("value", ["many", "nan", "inf", ""])
def test_a_value_that_is_no_number_is_refused(scorer: Scorer, value: str) -> None:
    with pytest.raises(RequestError, match=r"item\.reviews is "):
        score(scorer, "i1", item_reviews=value)
    with pytest.raises(RequestError, match=r"item\.reviews is "):
        scorer.online_items.put({"i1": {REVIEWS: value}})
    assert scorer.online_items.of("i1") is None


def test_a_model_that_does_not_read_statistics_neither_holds_nor_takes_them(dataset: Dataset, tmp_path: Path) -> None:
    plain = artifact_of(tmp_path / "artifact", dataset, "hpmn", ["hour"])
    assert plain.item_statistics is None and not (plain.path / "statistics.npy").exists()
    with pytest.raises(RequestError, match=r"'item.reviews' is not a field .* Expected: category"):
        score(Scorer(plain, InMemoryStore()), "i1", item_reviews="3")
    some = artifact_of(tmp_path / "some", dataset, "hpmn", [RATING])
    assert some.item_statistics is not None and some.item_statistics.number_VK.shape == (62, 1)


def test_events_know_nothing_of_statistics(artifact: Artifact) -> None:
    with pytest.raises(RequestError, match=r"'item\.reviews' is not a field"):
        Updater(artifact, InMemoryStore()).apply([UserEvent("u1", "i1", MOMENT, fields={REVIEWS: "3"})])


def test_events_of_an_item_with_statistics_put_online_are_folded_in(artifact: Artifact, scorer: Scorer) -> None:
    scorer.online_items.put({"i1": {REVIEWS: "900", "category": "c3"}})
    assert Updater(artifact, scorer.store).apply([UserEvent("u1", "i1", MOMENT)]).applied == 1


def test_data_without_statistics_is_refused_with_those_there_are(tmp_path: Path) -> None:
    plain = tiny_dataset(tmp_path / "data")
    with pytest.raises(ConfigError, match=r"there is no context field 'item.reviews' \(there are: gap"):
        artifact_of(tmp_path / "artifact", plain, "hpmn", [REVIEWS])


def test_a_damaged_artifact_is_named(artifact: Artifact, dataset: Dataset, tmp_path: Path) -> None:
    model = load_model(artifact)
    run = {"model": artifact.config.settings}
    copy = write_artifact(tmp_path / "copy", model, dataset, run=run, metrics={}, calibrator=None)
    assert copy.item_statistics is not None
    path = copy.path / "statistics.npy"
    np.save(path, np.load(path)[:5])
    with pytest.raises(ArtifactError, match=r"statistics.npy has shape \(5, 2\)"):
        _ = Artifact(copy.path, copy.manifest, copy.config).item_statistics
    path.unlink()
    with pytest.raises(ArtifactError, match=r"cannot read the statistics in .*statistics.npy"):
        _ = Artifact(copy.path, copy.manifest, copy.config).item_statistics


def test_the_service_takes_statistics_with_requests_and_items(artifact: Artifact, make_client: Any) -> None:
    client = make_client(artifact)

    def asked(**fields: str) -> float:
        given = {name.replace("_", "."): value for name, value in fields.items()}
        body = {"user": "u1", "items": [{"item": "i1", "fields": given}], "time": MOMENT}
        return float(client.post("/v1/score", body).json()["scores"][0]["score"])

    assert asked() != asked(item_reviews="900")
    put = client.put("/v1/items", {"items": [{"item": "i1", "fields": {REVIEWS: "900"}}]})
    assert put.json() == {"stored": 1}
    assert asked() == asked(item_reviews="900")
    refused = client.post("/v1/score", {"user": "u1", "items": [{"item": "i1", "fields": {REVIEWS: "many"}}]})
    assert refused.status_code == 422 and REVIEWS in refused.text
    bodies = client.get("/openapi.json").json()["components"]["schemas"]
    fields = ["category", REVIEWS, RATING]
    assert bodies["ItemBody"]["properties"]["fields"]["propertyNames"] == {"enum": fields}
    assert bodies["EventBody"]["properties"]["fields"]["anyOf"][0]["propertyNames"] == {"enum": ["category"]}


def test_a_table_of_requests_can_hold_statistics(scorer: Scorer, tmp_path: Path) -> None:
    source, out = tmp_path / "requests.csv", tmp_path / "scores.csv"
    source.write_text(f"user,item,time,{REVIEWS}\nu5,i1,{MOMENT},1\nu5,i1,{MOMENT},900\n")
    assert score_table(scorer, source, out) == 2
    found = [float(line.split(",")[2]) for line in out.read_text().splitlines()[1:]]
    assert found == pytest.approx([score(scorer, "i1", item_reviews=value) for value in ("1", "900")], abs=1e-5)


def test_what_the_counters_did_is_told_with_the_statistics_of_each_candidate(dataset: Dataset, tmp_path: Path) -> None:
    """A value that was never met has no effect, which is so only where both scores have the same context."""
    artifact, store = artifact_of(tmp_path / "artifact", dataset, "tally"), InMemoryStore()
    Updater(artifact, store).apply([UserEvent("u", f"i{at}", MOMENT + at, "view") for at in (1, 2)])
    explained = explain(Scorer(artifact, store), ScoreRequest("u", ["i5", "i7"], MOMENT + 99))
    for candidate in explained.candidates:
        assert candidate.counted is not None
        value = next(value for value in candidate.counted.values if value.field == "item")
        assert (value.state, value.effect) == ("new", pytest.approx(0, abs=1e-6))
