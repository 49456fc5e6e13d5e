"""Long runs of events of one user."""

import numpy as np
import pytest

from lifelong.errors import ArtifactError
from lifelong.online.memory.codec import CODECS
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.updater import Updater, UserEvent
from lifelong.online.store.ram import InMemoryStore


def numbers(runtime, length, seed=0):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, len(runtime._tables[field]), length) for field in runtime._event]
    return np.stack(rows, axis=1), 1_700_000_000 + np.arange(length)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("length", [0, 1, 37])
def test_a_run_is_what_single_writes_give_bit_for_bit(artifact, codec, length):
    runtime = Runtime(artifact, codec=codec)
    number_LF, time_L = numbers(runtime, length)
    states = runtime.write(runtime.empty(1), *(part[:1] for part in numbers(runtime, 1, seed=1)))
    wanted = states
    for place in range(length):
        wanted = runtime.write(wanted, number_LF[place : place + 1], time_L[place : place + 1])
    found = runtime.write_run(states, number_LF, time_L)
    assert runtime.encode(found) == runtime.encode(wanted)


def test_a_late_event_in_a_run_leaves_the_last_time(artifact):
    runtime = Runtime(artifact)
    number_LF, time_L = numbers(runtime, 3)
    assert runtime.write_run(runtime.empty(1), number_LF, time_L[::-1]).last_time_B.tolist() == [int(time_L[-1])]


def test_a_user_who_dominates_a_batch_and_the_others_get_what_single_events_give(artifact):
    rng = np.random.default_rng(3)
    users = [f"u{rng.integers(0, 9)}" if chance < 0.2 else "busy" for chance in rng.random(400)]
    events = [
        UserEvent(user, f"i{item}", 1_700_000_000 + place, "view")
        for place, (user, item) in enumerate(zip(users, rng.integers(0, 60, 400).tolist(), strict=True))
    ]
    together, single = Updater(artifact, InMemoryStore()), Updater(artifact, InMemoryStore())
    together.apply(events)
    for event in events:
        single.apply([event])
    names = sorted(set(users))
    found, wanted = (updater.runtime.decode(updater.store.read_many(names)) for updater in (together, single))
    assert (found.count_B.tolist(), found.last_time_B.tolist()) == (
        wanted.count_B.tolist(),
        wanted.last_time_B.tolist(),
    )
    np.testing.assert_allclose(found.fields["slot"], wanted.fields["slot"], atol=1e-5)
    for name in names:
        assert together.store.events(name) == single.store.events(name)


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """HPMN with a graph for runs of events, as this release writes it; strides of 4."""
    pytest.importorskip("torch", reason="torch is of the train extra")
    from support.artifacts import tiny_artifact

    from lifelong.testing.datasets import tiny_dataset

    folder = tmp_path_factory.mktemp("stacked")
    return tiny_artifact(folder / "artifact", tiny_dataset(folder / "data"))


@pytest.mark.torch
@pytest.mark.parametrize("length", [4, 60])
def test_a_long_run_is_what_single_writes_give(stacked, length):
    runtime = Runtime(stacked)
    assert runtime.stride == 4
    number_LF, time_L = numbers(runtime, length)
    states = runtime.write_run(runtime.empty(1), *numbers(runtime, 8, seed=1))
    found, wanted = (write(states, number_LF, time_L) for write in (runtime.write_long_run, runtime.write_run))
    assert (found.count_B, found.last_time_B) == (wanted.count_B, wanted.last_time_B)
    np.testing.assert_allclose(found.fields["slot"], wanted.fields["slot"], atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("first", range(5))
def test_users_with_long_runs_and_the_others_get_what_single_events_give(stacked, first):
    rng = np.random.default_rng(first)
    users = [f"u{rng.integers(0, 9)}" if chance < 0.2 else "ab"[int(chance < 0.5)] for chance in rng.random(600)]
    events = [
        UserEvent(user, f"i{item}", 1_700_000_000 + place, "view")
        for place, (user, item) in enumerate(zip(users, rng.integers(0, 60, 600).tolist(), strict=True))
    ]
    together, single = Updater(stacked, InMemoryStore()), Updater(stacked, InMemoryStore())
    # Users begin at counts that no stride divides.
    for some in (events[:first], events[first:]):
        together.apply(some)
    for event in events:
        single.apply([event])
    names = sorted(set(users))
    found, wanted = (updater.runtime.decode(updater.store.read_many(names)) for updater in (together, single))
    assert found.count_B.tolist() == wanted.count_B.tolist()
    assert found.last_time_B.tolist() == wanted.last_time_B.tolist()
    np.testing.assert_allclose(found.fields["slot"], wanted.fields["slot"], atol=1e-5)
    for name in names:
        assert together.store.events(name) == single.store.events(name)


@pytest.mark.torch
@pytest.mark.parametrize("codec", ["fp16", "int8"])
def test_a_codec_that_rounds_rounds_after_each_event_of_a_run(stacked, codec):
    assert Runtime(stacked, codec=codec).stride is None


@pytest.mark.torch
def test_a_run_graph_that_differs_from_single_writes_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is of the train extra")
    from lifelong.offline.export.graphs import write_run_graph
    from lifelong.offline.models import build
    from lifelong.testing.datasets import tiny_dataset

    model = build("hpmn", tiny_dataset(tmp_path / "data").inputs, {"embedding": 3, "width": 6, "periods": [1, 2, 4]})

    class Wrong(type(model)):
        stack = property(lambda self: [(layer, 1) for layer in self.memory.layers])

    model.__class__ = Wrong
    with torch.no_grad(), pytest.raises(ArtifactError, match="a run of events gives another memory"):
        write_run_graph(model.eval(), tmp_path / "run.onnx")
