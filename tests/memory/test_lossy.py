"""Stores whose codec rounds: the rounded state is the state, and the store's own codec is the one that counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packed import random_cells

from lifelong.errors import StoreForeignError, UsageError
from lifelong.online.memory.codec import make_codec
from lifelong.online.memory.runtime import identity_of
from lifelong.online.memory.state import States
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import verify
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore

LOSSY = ("fp16", "int8")
STEP = {"fp16": 2.0**-11, "int8": 1 / 250}
"""What one rounding moves a number by at most, as a part of the largest of its vector."""


@pytest.fixture(params=LOSSY)
def codec(request):
    return request.param


def states_of(updater, users):
    return updater.runtime.decode(updater.store.read_many(users))


def test_it_makes_no_difference_which_events_came_together(artifact, dataset, log, store, codec):
    whole, single = Updater(artifact, store, codec=codec), Updater(artifact, InMemoryStore(), codec=codec)
    whole.apply(log)
    for event in log:
        single.apply([event])
    found, wanted = (states_of(updater, dataset.users.ids()) for updater in (whole, single))
    assert found.count_B.tolist() == wanted.count_B.tolist()
    # Sums in another order may fall on the other side of a step.
    np.testing.assert_allclose(found.fields["slot"], wanted.fields["slot"], atol=STEP[codec])


def test_what_was_written_comes_back_bit_for_bit_after_reopening(artifact, dataset, log, tmp_path, codec):
    pytest.importorskip("rocksdict")
    url, kept = f"rocksdb://{tmp_path / 'store'}", InMemoryStore()
    Updater(artifact, kept, codec=codec).apply(log)
    store = open_store(url)
    Updater(artifact, store, codec=codec).apply(log)
    store.close()
    store = open_store(url, read_only=True)
    assert store.artifact_list().identity.codec == codec
    assert dict(store.scan()) == dict(kept.scan())
    store.close()


def test_a_store_that_was_kept_up_event_by_event_equals_the_replay(artifact, dataset, log, store, codec):
    Updater(artifact, store, codec=codec).apply(log)
    report = verify(artifact, dataset, store)
    assert report.equal
    assert report.memory_difference <= STEP[codec]


@pytest.mark.torch
def test_a_backfill_rounds_at_every_event_as_the_updater_does(artifact, dataset, log, store, codec):
    pytest.importorskip("torch")
    from lifelong.online.memory.filling import backfill

    until = int(dataset.manifest.cut_times[0])
    backfill(artifact, dataset, store, until=until, codec=codec)
    report = verify(artifact, dataset, store, until=until)
    assert report.equal and report.exact > 0.9 * report.users
    assert report.memory_difference <= STEP[codec]
    Updater(artifact, store).apply([event for event in log if event.time >= until])
    assert verify(artifact, dataset, store).equal


def test_memories_that_were_rounded_once_are_not_those_of_the_replay_bit_for_bit(artifact, dataset, log, store, codec):
    Updater(artifact, store).apply(log)
    runtime = Updater(artifact, InMemoryStore(), codec=codec).runtime
    other = InMemoryStore()
    Updater(artifact, other, codec=codec)
    users = dataset.users.ids()
    fp32 = Updater(artifact, InMemoryStore()).runtime.decode(store.read_many(users))
    other.commit(Commit(records={0: dict(zip(users, runtime.encode(fp32), strict=True))}))
    report = verify(artifact, dataset, other)
    assert report.exact < report.users / 2 and report.memory_difference > 0


def test_a_memory_beyond_the_tolerance_is_found(artifact, dataset, log, store, codec):
    updater = Updater(artifact, store, codec=codec)
    updater.apply(log)
    tolerance = updater.runtime.codec.memory_tolerance
    states = states_of(updater, ["u3"])
    moved = np.where(states.fields["slot"] > 0, -1, 1) * np.float32(0.01 + 3 * tolerance)
    states.fields["slot"][:] += moved
    store.commit(Commit(records={0: {"u3": updater.runtime.encode(states)[0]}}))
    assert verify(artifact, dataset, store).memory == 1


# Which codec


def test_every_part_takes_the_codec_of_the_store(artifact, store, codec):
    Updater(artifact, store, codec=codec)
    assert store.artifact_list().identity.codec == codec
    assert Updater(artifact, store).runtime.codec.name == codec
    assert Scorer(artifact, store).runtime.codec.name == codec


def test_another_codec_than_the_stores_is_refused_with_both_names(artifact, store, codec):
    Updater(artifact, store, codec=codec)
    with pytest.raises(StoreForeignError, match=f"holds memories in codec {codec}. Expected: codec fp32"):
        Updater(artifact, store, codec="fp32")
    assert store.artifact_list().identity.codec == codec


def test_an_unknown_codec_is_refused_before_the_store_is_claimed(artifact, store):
    with pytest.raises(UsageError, match=r"no codec 'int3'\. Expected: one of: fp32, fp16, int8"):
        Updater(artifact, store, codec="int3")
    assert store.artifact_list().identity is None


def test_a_store_of_a_codec_that_this_release_has_not_is_refused(artifact, store):
    layout = identity_of(artifact, store).layout
    store.bind(StoreIdentity(artifact.id, "int3", layout))
    for opener in (Updater, Scorer):
        with pytest.raises(UsageError, match="no codec 'int3'"):
            opener(artifact, store)


# Every registered layout


@pytest.fixture(scope="module")
def layouts():
    """Of each served model, with its default settings."""
    pytest.importorskip("torch")
    from lifelong.offline.export.graphs import memory_layout
    from lifelong.offline.models import MODELS, SERVED, build
    from lifelong.testing.worlds import INPUTS

    names = [name for name, entry in MODELS.items() if issubclass(entry, SERVED)]
    return {name: memory_layout(build(name, INPUTS, {})) for name in names}


@pytest.mark.torch
@pytest.mark.parametrize("name", LOSSY)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-6, 4))
def test_every_models_memory_comes_back_within_one_rounding(layouts, name, seed, power):
    rng = np.random.default_rng(seed)
    for model, layout in layouts.items():
        codec = make_codec(name, layout)
        states = States.empty(layout, 2)
        for part in layout:
            values = states.fields[part.name]
            if part.cells is not None:
                values[:] = random_cells(part.cells, 2, seed)
            else:
                values[:] = (rng.uniform(-1, 1, values.shape) * 10.0**power).astype(part.dtype)
        found = codec.decode(codec.encode(states))
        for part in layout:
            value = states.fields[part.name]
            largest = np.abs(value).max(axis=-1, keepdims=True)
            bound = STEP[name] * largest + 2.0**-25 if part.name in codec.rounded else 0
            assert (np.abs(found.fields[part.name] - value) <= bound).all(), (model, part.name)
