"""What a model is told of the moment of a request: the same online as offline, and nothing of what comes later."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("rocksdict")
import torch

from lifelong.artifact.export import load_model
from lifelong.data.dataset import Dataset
from lifelong.data.scales import SCALES
from lifelong.evaluation.evaluate import predict
from lifelong.memory.store import InMemoryStore, open_store
from lifelong.memory.verify import verify
from lifelong.serving.replay import replay
from lifelong.serving.scorer import Scorer
from lifelong.testing.artifacts import SETTINGS, tiny_artifact
from lifelong.testing.datasets import tiny_dataset
from lifelong.training.backfill import backfill

pytestmark = pytest.mark.torch
CONTEXT = ["time_of_day", "since_event", "weekday", "time_of_week"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("model", ["hpmn", "tally", "fm", "din", "dnn"])
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
    from dataclasses import replace

    from lifelong.data.batches import evaluation_batches

    examples = dataset.examples("test")
    one = examples.take(np.array([len(examples) // 2]))
    user, moment = int(one.user_N[0]), int(one.time_N[0])
    (clean,) = (batch.context_BCF.clone() for batch in evaluation_batches(dataset, one))
    planted = tiny_dataset(tmp_path / "planted")
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
