"""A log in which eight of ten items are new after training: each is counted by itself, offline and online."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

import pyarrow as pa
from support.artifacts import tiny_artifact

from lifelong import prepare
from lifelong.artifact.folder import Artifact
from lifelong.cli.served_replay import replay
from lifelong.dataset.folder import Dataset
from lifelong.offline.data.batches import evaluation_batches
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.export.saving import load_model
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.filling import backfill
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import verify
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.explain import explain
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.scoring.user_view import cells_of
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore
from lifelong.tally.spec import NO_KEY

pytestmark = pytest.mark.torch
USERS, DAY = 20, 86_400


def events() -> list[tuple[str, str, str, int]]:
    """User, item, brand, time: each user has eight days of two common items, then meets four items of her own twice."""
    rows = []
    for user in range(USERS):
        common = [(f"common{(user + day) % 20}", "known", day) for day in range(8) for _ in range(2)]
        own = [(f"own{user}-{day % 4}", f"brand{user}-{day % 4}", day) for day in range(8, 16)]
        rows += [(f"u{user}", item, brand, 1_600_000_000 + DAY * day) for item, brand, day in common + own]
    return rows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    user, item, brand, time = zip(*events(), strict=True)
    table = pa.table({"user": user, "item": item, "brand": brand, "time": time})
    out = tmp_path_factory.mktemp("tail") / "data"
    return prepare(table, out=out, cuts=(0.6, 0.8), fields=["brand"], threads=1)


@pytest.fixture(scope="module")
def artifact(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_artifact(tmp_path_factory.mktemp("artifact") / "artifact", dataset, model="tally")


@pytest.fixture(scope="module")
def scorer(artifact: Artifact, dataset: Dataset) -> Scorer:
    store = InMemoryStore()
    backfill(artifact, dataset, store, event_log=True)
    assert verify(artifact, dataset, store).equal
    return Scorer(artifact, store)


def counts(scorer: Scorer, user: str, items: list[str], **request: Any) -> list[tuple[str, int]]:
    """State and count of each item for one user."""
    candidates = explain(scorer, ScoreRequest(user, items, 1_700_000_000, **request)).candidates
    return [(one.counted.values[0].state, one.counted.values[0].times) for one in candidates if one.counted]


def test_four_of_five_items_have_no_number_of_their_own(dataset: Dataset) -> None:
    numbers = dataset.catalogue.number_VF[2:, 0]
    assert (numbers < dataset.vocabularies["item"].first_known).mean() == 0.8
    found = dataset.manifest.record["splits"]["test"]
    assert found["examples_without_number"] / found["examples"] == 1.0


def test_repeats_of_new_items_are_told_apart_from_items_of_others(scorer: Scorer) -> None:
    everything = [f"own{user}-{at}" for user in range(USERS) for at in range(4)]
    for user in range(USERS):
        found = counts(scorer, f"u{user}", everything)
        mine = [place for place, item in enumerate(everything) if item.startswith(f"own{user}-")]
        assert [found[place] for place in mine] == [("counted", 2)] * 4
        assert {one for place, one in enumerate(found) if place not in mine} == {("new", 0)}


def test_new_values_of_other_fields_are_counted_too(scorer: Scorer) -> None:
    candidates = explain(scorer, ScoreRequest("u3", ["own3-1", "own4-1"], 1_700_000_000)).candidates
    brands = [one.counted.values[1] for one in candidates if one.counted]
    assert [(brand.field, brand.state, brand.times) for brand in brands] == [
        ("brand", "counted", 2),
        ("brand", "new", 0),
    ]


def test_an_item_that_no_data_had_counts_from_its_first_event(artifact: Artifact) -> None:
    scorer, event = (
        Scorer(artifact, InMemoryStore()),
        UserEvent("ann", "launched", 1_700_000_000, fields={"brand": "x"}),
    )
    Updater(artifact, scorer.store).apply([event])
    assert counts(scorer, "ann", ["launched", "another"]) == [("counted", 1), ("new", 0)]
    scorer.online_items.put({"launched": {"brand": "y"}})
    Updater(artifact, scorer.store).apply([UserEvent("ann", "launched", 1_700_000_500)])
    assert counts(scorer, "ann", ["launched"]) == [("counted", 2)]
    of_brand = explain(scorer, ScoreRequest("ann", ["new"], 1_700_001_000, fields=[{"brand": "y"}])).candidates[0]
    assert of_brand.counted is not None and of_brand.counted.values[1].times == 1


def test_the_cells_of_a_user_name_her_new_items(scorer: Scorer) -> None:
    named = {cell.value: cell.times for cell in cells_of(scorer, "u7").fields[0].cells}
    assert {item: times for item, times in named.items() if str(item).startswith("own")} == {
        f"own7-{at}": 2 for at in range(4)
    }


def test_a_cell_never_has_the_name_of_a_value_that_the_user_did_not_meet(scorer: Scorer) -> None:
    for user in range(USERS):
        items, brands = cells_of(scorer, f"u{user}").fields
        own, named = {cell.value for cell in brands.cells}, {cell.value for cell in items.cells}
        assert own <= {"known", *(f"brand{user}-{at}" for at in range(4)), None}
        assert not [item for item in named if str(item).startswith("own") and f"own{user}-" not in str(item)]


def test_scores_online_are_those_offline(artifact: Artifact, dataset: Dataset, tmp_path: Path) -> None:
    url = f"rocksdb://{tmp_path / 'store'}"
    store = open_store(url)
    backfill(artifact, dataset, store, until=dataset.manifest.cut_times[1])
    store.close()
    offline = predict(load_model(artifact), dataset, dataset.examples("test"))
    np.testing.assert_allclose(
        replay(artifact, dataset, lambda: open_store(url)).logit_N, offline[:, 0], atol=1e-5, rtol=1e-5
    )


def test_batches_carry_the_keys_that_a_service_makes_of_ids(dataset: Dataset) -> None:
    catalogue = dataset.catalogue
    (batch,) = evaluation_batches(dataset, dataset.examples("test"), max_events=10**6, max_targets=10**6)
    rows = np.asarray(dataset.examples("test").row_N)[batch.example_BC[batch.mask_BC].numpy()]
    wanted = catalogue.coded([catalogue.id_of(row) or "" for row in rows.tolist()])[:, 2:]
    assert np.array_equal(batch.target_key_BCF[batch.mask_BC].numpy(), wanted) and (wanted != NO_KEY).all()
