"""A memory that counts, kept by compiled loops, against the same memory kept by graphs, as earlier releases did."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from support.artifacts import SETTINGS, tiny_artifact

from lifelong.artifact import graphs
from lifelong.artifact.export import load_model
from lifelong.artifact.folder import COUNTING, Artifact, FieldLayout
from lifelong.data.cell_plan import CellPacking
from lifelong.data.events import NO_TIME
from lifelong.errors import ArtifactError
from lifelong.memory import counting
from lifelong.memory.counting import Counting
from lifelong.memory.event import EventTable
from lifelong.memory.rounds import make_rounds
from lifelong.memory.runtime import Runtime
from lifelong.memory.state import States
from lifelong.memory.writer import MemoryWriter
from lifelong.models.base import CountingModel, History, MemoryModel
from lifelong.nn.tally import Seen
from lifelong.store.ram import InMemoryStore
from lifelong.store.remote import RemoteStore
from lifelong.testing.datasets import tiny_dataset

pytestmark = pytest.mark.torch

SIZES = (400, 12, 4, 36)
"""Numbers of items, categories, types and gaps: far more items than cells."""
USERS = 5


@pytest.fixture(scope="module")
def settings() -> dict[str, object]:
    return {**SETTINGS["tally"]}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, object]) -> Artifact:
    folder = tmp_path_factory.mktemp("compiled")
    dataset = tiny_dataset(folder / "data", num_items=440)
    return tiny_artifact(folder / "artifact", dataset, model="tally", settings=settings)


@pytest.fixture(scope="module")
def by_graphs(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, object]) -> Artifact:
    """With the weights of the other one."""
    folder = tmp_path_factory.mktemp("graphs")
    with pytest.MonkeyPatch.context() as patch:
        # No model is of this class: all fields are the graphs' then.
        patch.setattr(graphs, "CountingModel", type("NoModel", (), {}))
        dataset = tiny_dataset(folder / "data", num_items=440)
        return tiny_artifact(folder / "artifact", dataset, model="tally", settings=settings)


@pytest.fixture(scope="module")
def as_before(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, object]) -> Artifact:
    """With the same weights, and a read graph that makes the numbers itself, as the first that counted did."""
    folder, draw = tmp_path_factory.mktemp("before"), graphs._Draw

    def read_graph(model: CountingModel) -> torch.nn.Module:
        learned = type(model.learned(model.initial_memory(1)))

        def read(*parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
            *first, clock, times, age, faded, seconds, target = parts
            key = model.split.keys(target)
            numbers = model.counts.numbers(Seen(first[0], clock, times, age, faded), key, seconds)
            return graphs._there(*model.read_numbers(numbers, first[0], learned(*first), target))

        return graphs._Graph(read, model=model)

    def seen(self: graphs._Draw, users: int, candidates: int) -> tuple[torch.Tensor, ...]:
        *first, _, _, kind, _, target = draw.seen(self, users, candidates)
        clock = self._memory(users, (1,))[self._names.index("clock_BJX")]
        return *first, clock, kind % 5, kind % 7, kind % 3 == 0, kind * 60.0, target

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "_read_seen_graph", read_graph)
        patch.setattr(graphs, "_Draw", type("Draw", (draw,), {"seen": seen}))
        patch.setattr(graphs, "_SEEN", ("clock", "times", "age", "faded", "seconds"))
        patch.setattr(graphs, "TIMES", ())
        dataset = tiny_dataset(folder / "data", num_items=440)
        return tiny_artifact(folder / "artifact", dataset, model="tally", settings=settings)


def numbers(rng: np.random.Generator, users: int) -> np.ndarray:
    """Numbers of events, unknown items and padding among them."""
    return np.stack([rng.integers(0, size, users) for size in SIZES], axis=1)


def asked(users: int, candidates: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    number = np.stack([rng.integers(0, size, (users, candidates)) for size in SIZES[:2]], axis=-1)
    context = np.stack([rng.integers(1, size, (users, 1)) for size in (36, 26, 9)], axis=-1)
    return number, context, np.full(users, 2_000)


def check_equal(found: States, wanted: States) -> None:
    assert np.array_equal(found.count_B, wanted.count_B)
    for name, value in wanted.fields.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(found.fields[name], value, atol=1e-5)
        else:
            assert np.array_equal(found.fields[name], value), name


@pytest.mark.parametrize("codec", ["fp32", "int8"])
def test_loops_and_graphs_keep_and_read_the_same_memory(compiled: Artifact, by_graphs: Artifact, codec: str) -> None:
    new, old = Runtime(compiled, codec=codec), Runtime(by_graphs, codec=codec)
    assert new.counting is not None and old.counting is None
    rng, kept, wanted = np.random.default_rng(0), new.empty(USERS), old.empty(USERS)
    for step in range(150):
        number_BF, time_B = numbers(rng, USERS), np.full(USERS, 60 * step)
        kept, wanted = new.write(kept, number_BF, time_B), old.write(wanted, number_BF, time_B)
        if codec == "int8":
            # A last bit may fall on the other side of a rounded step, and go on from there.
            kept.fields["slot"][:] = wanted.fields["slot"]
    check_equal(kept, wanted)
    assert kept.fields["faded"].any(), "no value has lost its cell"
    questions = asked(USERS, 30)
    np.testing.assert_allclose(new.score(kept, *questions)[0], old.score(wanted, *questions)[0], atol=1e-5, rtol=1e-5)


def test_a_graph_of_before_gives_the_same_scores(compiled: Artifact, as_before: Artifact) -> None:
    new, old, rng = Runtime(compiled), Runtime(as_before), np.random.default_rng(0)
    assert {"number", "kind"} <= new._sessions["read"].taken and {"times", "age"} <= old._sessions["read"].taken
    states, questions = new.empty(USERS), asked(USERS, 30)
    for step in range(150):
        states = new.write(states, numbers(rng, USERS), np.full(USERS, 60 * step))
    np.testing.assert_allclose(new.score(states, *questions)[0], old.score(states, *questions)[0], atol=1e-5, rtol=1e-5)


def test_of_no_candidates_nothing_is_found(compiled: Artifact) -> None:
    runtime = Runtime(compiled)
    assert runtime.counting is not None
    for users in (0, 3):
        found = runtime.counting.find(runtime.empty(users), slice(0, users), np.zeros((users, 0, 2), np.int64))
        assert {name: part.shape[:2] for name, part in found.items()} == dict.fromkeys(found, (users, 0))


def test_scores_change_where_what_is_found_does(compiled: Artifact) -> None:
    """The comparison above is not one of constants."""
    runtime, rng = Runtime(compiled), np.random.default_rng(0)
    states, questions = runtime.empty(1), asked(1, 200)
    for step in range(250):
        states = runtime.write(states, numbers(rng, 1), np.full(1, 60 * step))
    before = runtime.score(states, *questions)[0]
    for name in ("cell", "faded", "clock", "sums"):
        other = states.take(np.zeros(1, np.int64))
        other.fields[name][:] = 0
        assert np.abs(runtime.score(other, *questions)[0] - before).max() > 1e-4, name


def test_a_batch_of_many_events_a_user_gives_what_single_events_give(compiled: Artifact) -> None:
    writer, rng = MemoryWriter(compiled, "fp32", InMemoryStore()), np.random.default_rng(2)
    user_N = rng.integers(0, USERS, 300)
    user_N[::2] = 3
    time_N = np.arange(300) * 100
    table = EventTable(
        [f"u{user}" for user in user_N], [f"i{item}" for item in rng.integers(0, 60, 300)], time_N, ["view"] * 300
    )
    start = writer.runtime.empty(USERS)
    plan = make_rounds(user_N, time_N, start.last_time_B, refuse=False)
    number_NF = writer.numbers(table, plan)
    together = writer.fold(start, plan, number_NF)
    one_by_one = writer.runtime.empty(USERS)
    for user, number_F, time in zip(user_N, number_NF, time_N, strict=True):
        place = np.array([user])
        one_by_one.put(place, writer.runtime.write(one_by_one.take(place), number_F[None], np.array([time])))
    check_equal(together, one_by_one)
    assert np.array_equal(together.last_time_B, one_by_one.last_time_B)
    assert (start.last_time_B == NO_TIME).all()


@pytest.mark.parametrize("codec", ["fp32", "int8"])
def test_sums_of_a_service_are_those_of_training_bit_for_bit(compiled: Artifact, codec: str) -> None:
    """Codecs that round keep sums whole: a rounded one would lose what later events add."""
    runtime, rng, model = Runtime(compiled, codec=codec), np.random.default_rng(5), load_model(compiled)
    number_LBF = np.stack([numbers(rng, USERS) for _ in range(120)])
    states = runtime.empty(USERS)
    for number_BF in number_LBF:
        states = runtime.decode(runtime.encode(runtime.write(states, number_BF, np.zeros(USERS, np.int64))))
    assert isinstance(model, MemoryModel)
    length_B = torch.full((USERS,), 120)
    history = History(torch.from_numpy(number_LBF.swapaxes(0, 1).copy()), torch.zeros(USERS, 120), length_B)
    wanted = model.encode(history, length_B.unsqueeze(1)).sums_BKD[:, 0].numpy()
    assert np.abs(wanted).max() > 1
    assert np.array_equal(states.fields["sums"], wanted)


def test_a_memory_of_counts_alone_has_no_write_graph(tmp_path: Path) -> None:
    settings = SETTINGS["tally"] | {"periods": [], "factors": []}
    dataset = tiny_dataset(tmp_path / "data", num_items=440)
    artifact = tiny_artifact(tmp_path / "artifact", dataset, model="tally", settings=settings)
    assert not artifact.graph("write").exists()
    runtime, rng = Runtime(artifact), np.random.default_rng(0)
    states = runtime.empty(2)
    for step in range(20):
        states = runtime.write(states, numbers(rng, 2), np.full(2, step))
    assert states.count_B.tolist() == [20, 20] and states.fields["cell"].any()
    assert runtime.score(states, *asked(2, 3))[0].shape == (2, 3, 1)


LAYOUT = (
    FieldLayout(name="clock", shape=(17, 2), dtype="int32"),
    FieldLayout(name="cell", shape=(12, 2), dtype="int16", cells=CellPacking((8, 4), (64, 512))),
    FieldLayout(name="faded", shape=(3,), dtype="int16"),
)


@pytest.mark.parametrize(
    "change",
    [
        {"cells_F": [8, 5]},
        {"cells_F": [13, -1]},
        {"words": 4},
        {"words": 0},
        {"patience": 1e300},
        {"cells_F": "x"},
        {"scale": "coarse"},
        {"scale": "coarser"},
        {"times": [2, 1]},
        {"times": [0]},
        {"times": [1, 2**40]},
        {"times": "x"},
        None,
    ],
    ids=str,
)
def test_sizes_beyond_the_memory_are_refused_before_a_loop_reads_there(change):
    right = {"cells_F": [8, 4], "words": 3, "patience": 400, "times": [1, 5]}
    assert Counting.of({COUNTING: json.dumps(right)}, ["item", "category"], LAYOUT) is not None
    text = "[" if change is None else json.dumps({**right, **change})
    with pytest.raises(ArtifactError, match="counts in"):
        Counting.of({COUNTING: text}, ["item", "category"], LAYOUT)
    with pytest.raises(ArtifactError):
        Counting.of({COUNTING: json.dumps(right)}, ["item"], LAYOUT)
    with pytest.raises(ArtifactError):
        Counting.of({COUNTING: json.dumps(right)}, ["item", "category"], LAYOUT[:2])


def test_candidates_may_have_contexts_of_their_own_where_the_graph_takes_one(compiled: Artifact) -> None:
    runtime = Runtime(compiled)
    assert runtime._one_context
    states, (number, context, time) = runtime.empty(3), asked(3, 4)
    own = np.repeat(context, 4, axis=1)
    whole = runtime.score(states, number, context, time)[0]
    np.testing.assert_allclose(runtime.score(states, number, own, time)[0], whole, atol=1e-6)
    own[:, 2] = own[:, 2] % 8 + 1
    other = runtime.score(states, number, own, time)[0]
    assert np.abs(other[:, 2] - whole[:, 2]).max() > 1e-4
    np.testing.assert_allclose(np.delete(other, 2, axis=1), np.delete(whole, 2, axis=1), atol=1e-6)
    for user in range(3):
        one = np.array([user])
        alone = runtime.score(states.take(one), number[one, 2:3], own[one, 2:3], time[one])[0]
        np.testing.assert_allclose(other[user, 2], alone[0, 0], atol=1e-6)


def test_what_is_opened_to_write_need_not_wait_for_loops_that_write(
    compiled: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, begun = threading.Event(), threading.Event()

    def compile_slowly() -> None:
        begun.set()
        assert held.wait(60)

    counting.begin_to_compile_writes.cache_clear()
    monkeypatch.setattr(counting, "compile_writes", compile_slowly)
    MemoryWriter(compiled, "fp32", InMemoryStore())
    thread = counting.begin_to_compile_writes()
    assert begun.wait(60) and thread.is_alive()
    held.set()
    thread.join()
    counting.begin_to_compile_writes.cache_clear()


_NOTHING_NEW = """
import sys
from lifelong.artifact.folder import Artifact
from lifelong.memory import cell_kernel
from lifelong.memory.counting import compile_all
from lifelong.memory.updater import Updater, UserEvent
from lifelong.scoring.scorer import Scorer
from lifelong.store.ram import InMemoryStore

def forms():
    return {name: len(loop.signatures) for name, loop in vars(cell_kernel).items() if hasattr(loop, "signatures")}

compile_all()
before, artifact, store = forms(), Artifact.open(sys.argv[1]), InMemoryStore()
updater = Updater(artifact, store)
for second in range(1, 400, 100):
    updater.apply([UserEvent(f"u{k % 3}", f"i{k}", 1_700_000_000 + second + k) for k in range(100)])
Scorer(artifact, store).score("u1", ["i1", "i2"])
print({name: number for name, number in forms().items() if number != before[name]})
"""


def test_after_all_loops_were_compiled_events_and_scores_compile_nothing_more(compiled: Artifact) -> None:
    """An image that holds them is read-only: what is missing there would be compiled at each start."""
    done = subprocess.run(
        [sys.executable, "-c", _NOTHING_NEW, str(compiled.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "{}\n"


def test_a_process_in_whose_place_another_one_writes_compiles_no_loops_that_write(
    compiled: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, store = list[str](), RemoteStore.__new__(RemoteStore)
    monkeypatch.setattr(RemoteStore, "artifact_list", lambda self: InMemoryStore().artifact_list())
    monkeypatch.setattr("lifelong.memory.writer.begin_to_compile_writes", lambda: begun.append("begun"))
    MemoryWriter(compiled, "fp32", store)
    assert not begun
    MemoryWriter(compiled, "fp32", InMemoryStore())
    assert begun == ["begun"]
