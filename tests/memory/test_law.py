"""encode(events[:n]) = folding write over the same events = what comes back from the store after reopening it."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("rocksdict")
import torch
from support.artifacts import tiny_artifact

from lifelong.errors import ArtifactError, MismatchError
from lifelong.offline.data.batches import evaluation_batches
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.export.saving import load_model
from lifelong.offline.models import MODELS, SERVED
from lifelong.online.memory import filling
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.filling import backfill
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import verify
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore
from lifelong.testing.datasets import tiny_dataset

pytestmark = pytest.mark.torch
SERVED_MODELS = [name for name, entry in MODELS.items() if issubclass(entry, SERVED)]

BY_BATCH = {"gated_delta", "mimn"}
"""Their write graphs multiply a matrix for each user: the order in which ONNX Runtime adds depends on how many."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=SERVED_MODELS)
def trained(request, dataset, tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp(request.param) / "artifact", dataset, model=request.param)


@pytest.mark.parametrize(("shards", "codec"), [(1, "fp32"), (2, "fp32"), (2, "fp16"), (1, "int8")])
def test_memories_folded_event_by_event_come_back_as_a_fill_writes_them(
    trained, dataset, log, tmp_path, monkeypatch, shards, codec
):
    url = f"rocksdb://{tmp_path / 'store'}?shards={shards}"
    for some in np.array_split(np.arange(len(log)), 5):
        store = open_store(url)
        Updater(trained, store, codec=codec).apply([log[place] for place in some])
        store.close()
    store = open_store(url, read_only=True)
    for events in (1, 100, 1_000_000):
        monkeypatch.setattr(filling, "_EVENTS", events)
        filled = InMemoryStore()
        report = filling.backfill(trained, dataset, filled, codec=codec)
        records = dict(filled.scan())
        assert report.users == len(records) == dataset.histories.num_users
        if trained.config.model not in BY_BATCH:
            assert dict(store.scan()) == records
            continue
        users, runtime = list(records), Runtime(trained, codec=codec)
        found, wanted = (runtime.decode(some.read_many(users)) for some in (store, filled))
        assert found.count_B.tolist() == wanted.count_B.tolist()
        assert found.last_time_B.tolist() == wanted.last_time_B.tolist()
        for name, value in wanted.fields.items():
            beyond = np.abs(found.fields[name] - value) > runtime.codec.allowed(name, value)
            assert not beyond.any()
    store.close()


def test_scores_from_stored_memories_equal_those_of_the_batch_path(trained, dataset, tmp_path):
    examples = dataset.examples("test")
    offline = predict(load_model(trained), dataset, examples)
    runtime, online = Runtime(trained), np.full_like(offline, np.nan)
    for batch in evaluation_batches(dataset, examples):
        for row, user in enumerate((batch.user_B - 2).tolist()):
            for column in np.flatnonzero(batch.mask_BC[row].numpy()):
                place = int(batch.example_BC[row, column])
                store = InMemoryStore()
                backfill(trained, dataset, store, until=int(examples.time_N[place]))
                state = runtime.decode(store.read_many([dataset.users.id_at(user)]))
                coded = (batch.target_BCF[row, column], batch.target_key_BCF[row, column])
                number = np.concatenate([part.numpy() for part in coded])[None, None]
                context = batch.context_BCF[row, column].numpy()[None, None]
                online[place] = runtime.score(state, number, context, examples.time_N[place : place + 1])[0][0, 0]
                break
    seen = np.isfinite(online[:, 0])
    assert seen.sum() > 5
    np.testing.assert_allclose(online[seen], offline[seen], atol=1e-4)


def test_a_backfill_equals_the_replay_and_so_does_a_second_one(trained, dataset, store):
    until = int(dataset.manifest.cut_times[-1])
    first = backfill(trained, dataset, store, until=until, event_log=True)
    kept, log = dict(store.scan()), store.events("u5")
    second = backfill(trained, dataset, store, until=until, event_log=True)
    assert (dict(store.scan()), store.events("u5")) == (kept, log)
    assert (first.users, first.events, first.newer) == (second.users, second.events, second.newer)
    assert verify(trained, dataset, store, until=until).equal


def test_a_backfill_and_the_events_behind_it_equal_a_backfill_of_all(trained, dataset, log, store):
    until = int(dataset.manifest.cut_times[0])
    backfill(trained, dataset, store, until=until, event_log=True)
    Updater(trained, store).apply([event for event in log if event.time >= until])
    assert verify(trained, dataset, store).equal
    alone = InMemoryStore()
    Updater(trained, alone).apply(log)
    assert [store.events(user) for user, _ in store.scan()] == [alone.events(user) for user, _ in alone.scan()]


def test_a_user_with_later_events_in_the_store_is_left_alone(dataset, artifact, log, store):
    Updater(artifact, store).apply([*log, UserEvent("u5", "i1", 1_740_000_000)])
    before = store.read_many(["u5"])
    report = backfill(artifact, dataset, store)
    assert report.newer == 1
    assert store.read_many(["u5"]) == before


def test_a_time_before_all_events_writes_nobody(dataset, artifact, store):
    report = backfill(artifact, dataset, store, until=0)
    assert (report.users, report.empty) == (0, dataset.histories.num_users)
    assert list(store.scan()) == []


def test_a_model_that_cannot_be_served_is_refused_before_anything_is_written(dataset, store, tmp_path):
    counts = tiny_artifact(tmp_path / "artifact", dataset, model="counts")
    with pytest.raises(ArtifactError, match="counts in the raw history"):
        backfill(counts, dataset, store)
    assert store.artifact_list().identity is None


def test_a_dataset_with_other_vocabularies_is_refused(artifact, store, tmp_path):
    other = tiny_dataset(tmp_path / "data", num_items=80)
    with pytest.raises(MismatchError, match="item"):
        backfill(artifact, other, store)
