"""The memory as features: equal online and offline, and only of what was known before the target."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pq = pytest.importorskip("pyarrow.parquet")
from support.artifacts import tiny_artifact  # noqa: E402
from support.client import Client  # noqa: E402
from support.events import events_of  # noqa: E402

from lifelong.dataset.negatives import labelled_training_examples  # noqa: E402
from lifelong.errors import UsageError  # noqa: E402
from lifelong.online.memory.event import UserEvent  # noqa: E402
from lifelong.online.memory.updater import Updater  # noqa: E402
from lifelong.online.scoring import features as featuring  # noqa: E402
from lifelong.online.scoring.features import export_features, features  # noqa: E402
from lifelong.online.scoring.scorer import Scorer  # noqa: E402
from lifelong.online.serving.settings import ServiceSettings  # noqa: E402
from lifelong.online.store.ram import InMemoryStore  # noqa: E402

pytestmark = pytest.mark.torch
START, DAY = 1_700_000_000, 86_400


@pytest.fixture(scope="module")
def tally(dataset, tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp("tally") / "artifact", dataset, model="tally")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("model", ["hpmn", "tally"])
def test_an_exported_row_is_what_a_service_says_at_that_moment(
    model, split, artifact, tally, dataset, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(featuring, "_USERS", 7)
    monkeypatch.setattr(featuring, "_ROWS", 50)
    used = tally if model == "tally" else artifact
    number = export_features(used, dataset, tmp_path / "rows.parquet", split=split)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    examples = dataset.examples("test") if split == "test" else labelled_training_examples(dataset, seed=0)
    assert number == len(rows) == len(examples)
    assert sorted(row["example"] for row in rows) == list(range(number))
    before = {row["example"]: row for row in rows}
    for at in np.random.default_rng(0).choice(number, 25, replace=False).tolist():
        row, store = before[at], InMemoryStore()
        user, position = int(examples.user_N[at]), int(examples.position_N[at])
        name = dataset.users.id_at(user)
        events = [event for event in events_of(dataset) if event.user == name][:position]
        assert all(event.time < row["time"] for event in events)
        Updater(used, store).apply(events)
        (online,) = features(Scorer(used, store), name, [row["item"]], time=row["time"])
        assert (row["user"], row["label"]) == (name, examples.label_NT[at, 0])
        assert set(online) == set(row) - {"example", "user", "time", "label"}
        for column, value in online.items():
            found = row[column]
            found = None if isinstance(found, float) and np.isnan(found) else found
            assert found == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), column


def test_counts_ages_and_read_out_are_those_of_the_memory(tally, store) -> None:
    items = ["i1", "i2", "i1", "i11", "i3"]
    Updater(tally, store).apply([UserEvent("u", item, START + DAY * day, "view") for day, item in enumerate(items)])
    scorer = Scorer(tally, store)
    one, never = features(scorer, "u", ["i1", "i5"], time=START + 5 * DAY)
    assert (one["events"], one["seconds_since_last"]) == (5, DAY)
    assert (one["item_times"], one["item_events_ago"]) == (2, 3)
    # i1 and i11 share the category c1.
    assert (one["category_times"], one["category_events_ago"]) == (3, 2)
    assert (never["item_times"], never["item_events_ago"]) == (0, None)
    assert one["score"] == pytest.approx(scorer.score("u", ["i1"], time=START + 5 * DAY)[0].score, abs=1e-5)
    assert one["readout_0"] != never["readout_0"]
    (nobody,) = features(scorer, "nobody", ["i1"], time=START)
    assert (nobody["events"], nobody["seconds_since_last"], nobody["item_times"]) == (0, None, 0)


def test_the_service_gives_the_features(make_client, tally) -> None:
    client: Client = make_client(tally)
    client.post("/v1/events", {"events": [{"user": "u/1", "item": "i1", "time": START}]})
    reply = client.get(f"/v1/users/u/1/features?items=i1&items=i2&time={START + 60}")
    assert reply.status_code == 200
    found = reply.json()
    first, second = (dict(zip(found["names"], row, strict=True)) for row in found["values"])
    assert (found["user"], found["items"]) == ("u/1", ["i1", "i2"])
    assert (first["events"], first["item_times"], second["item_times"]) == (1, 1, 0)
    scorer = client.app.state.service.scorer
    assert [{"item": "i1", **first}, {"item": "i2", **second}] == features(scorer, "u/1", ["i1", "i2"], time=START + 60)
    assert client.get("/v1/users/u/1/features").status_code == 422


def test_the_service_bounds_how_many_features_a_reply_has(make_client, tally) -> None:
    names = make_client(tally).get("/v1/users/u/features?items=i1").json()["names"]
    client: Client = make_client(tally, settings=ServiceSettings(max_values=2 * len(names)))
    assert client.get("/v1/users/u/features?items=i1&items=i2").status_code == 200
    refused = client.get("/v1/users/u/features?items=i1&items=i2&items=i3")
    assert refused.status_code == 413
    assert refused.json()["error"]["found"] == f"{3 * len(names)} features in one request"


def test_other_endings_and_splits_are_refused(artifact, dataset, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"rows.csv.*\.parquet"):
        export_features(artifact, dataset, tmp_path / "rows.csv")
    with pytest.raises(UsageError, match="split = 'tset'"):
        export_features(artifact, dataset, tmp_path / "rows.parquet", split="tset")
    assert not list(tmp_path.iterdir())
