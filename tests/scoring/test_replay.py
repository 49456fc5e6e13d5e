"""A replayed period gives the offline scores, whoever's first event falls into it."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("rocksdict")

from support.artifacts import tiny_artifact

from lifelong.artifact.folder import Artifact
from lifelong.cli.served_replay import Replay, replay
from lifelong.dataset.folder import Dataset
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.export.saving import load_model
from lifelong.online.memory.filling import backfill
from lifelong.online.memory.runtime import Runtime
from lifelong.online.store.opening import open_store
from lifelong.testing.datasets import tiny_dataset

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def artifact(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_artifact(tmp_path_factory.mktemp("model") / "artifact", dataset)


def replayed(artifact: Artifact, dataset: Dataset, url: str) -> Replay:
    store = open_store(url)
    backfill(artifact, dataset, store, until=dataset.manifest.cut_times[1])
    store.close()
    return replay(artifact, dataset, lambda: open_store(url))


def test_a_user_has_her_first_event_in_the_test_period(dataset: Dataset) -> None:
    """Else the tests below could not see her events given to another user."""
    first_U = dataset.histories.time_N[dataset.histories.offset_U[:-1]]
    assert (first_U >= dataset.manifest.cut_times[1]).any()


def test_online_scores_are_the_offline_scores(artifact: Artifact, dataset: Dataset, tmp_path: Path) -> None:
    done = replayed(artifact, dataset, f"rocksdb://{tmp_path / 'store'}")
    offline = predict(load_model(artifact), dataset, dataset.examples("test"))[:, 0]
    np.testing.assert_allclose(done.logit_N, offline, atol=1e-5)
    assert done.reopened == 1
    assert done.events == (dataset.histories.time_N >= dataset.manifest.cut_times[1]).sum()


def test_afterwards_every_memory_holds_every_event_of_its_user(
    artifact: Artifact, dataset: Dataset, tmp_path: Path
) -> None:
    url = f"rocksdb://{tmp_path / 'store'}"
    replayed(artifact, dataset, url)
    store = open_store(url)
    states = Runtime(artifact).decode(store.read_many(dataset.users.ids()))
    store.close()
    assert states.count_B.tolist() == np.diff(dataset.histories.offset_U).tolist()


def test_events_of_a_user_from_a_time_on_are_scored_and_not_written(
    artifact: Artifact, dataset: Dataset, tmp_path: Path
) -> None:
    """As `until` says; the scores are the offline ones up to and at that time, and for all other users."""
    url, examples = f"rocksdb://{tmp_path / 'store'}", dataset.examples("test")
    user = int(examples.user_N[-1])
    end = int(dataset.histories.time_N[dataset.histories.of(user)][-1])
    store = open_store(url)
    backfill(artifact, dataset, store, until=dataset.manifest.cut_times[1])
    store.close()
    done = replay(artifact, dataset, lambda: open_store(url), until={user: end})
    offline = predict(load_model(artifact), dataset, examples)[:, 0]
    np.testing.assert_allclose(done.logit_N, offline, atol=1e-5)
    store = open_store(url)
    count_B = Runtime(artifact).decode(store.read_many(dataset.users.ids())).count_B
    store.close()
    before = (dataset.histories.time_N[dataset.histories.of(user)] < end).sum()
    length_U = np.diff(dataset.histories.offset_U)
    assert count_B[user] == before < length_U[user]
    assert (np.delete(count_B, user) == np.delete(length_U, user)).all()
