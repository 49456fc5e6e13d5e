"""A memory that counts, kept and read by a service, against the model that was trained."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from support.artifacts import SETTINGS, tiny_artifact

from lifelong.artifact.folder import Artifact, ArtifactConfig
from lifelong.dataset.events import NO_TIME
from lifelong.errors import ArtifactError
from lifelong.offline.export.saving import load_model
from lifelong.offline.models.base import Event, History, MemoryModel, Target
from lifelong.online.memory import compiling
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.state import Counting, States
from lifelong.online.memory.writer import MemoryWriter, fold, make_rounds
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.remote import RemoteStore
from lifelong.tally.plan import CellPacking, keys_of
from lifelong.testing.datasets import tiny_dataset

pytestmark = pytest.mark.torch

SIZES = (400, 12, 4, 36)
"""Numbers of items, categories, types and gaps: far more items than cells."""
USERS = 5


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("compiled")
    dataset = tiny_dataset(folder / "data", num_items=440)
    return tiny_artifact(folder / "artifact", dataset, model="tally", settings=SETTINGS["tally"])


def numbers(rng: np.random.Generator, users: int) -> np.ndarray:
    """Numbers of events, unknown items and padding among them, followed by keys."""
    number_BF = np.stack([rng.integers(0, size, users) for size in SIZES], axis=1)
    return np.concatenate([number_BF, keys_of(number_BF[:, :2])], axis=1)


def asked(users: int, candidates: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    number = np.stack([rng.integers(0, size, (users, candidates)) for size in SIZES[:2]], axis=-1)
    context = np.stack([rng.integers(1, size, (users, 1)) for size in (36, 26, 9)], axis=-1)
    return np.concatenate([number, keys_of(number)], axis=-1), context, np.full(users, 2_000)


def write(runtime: Runtime, states: States, number_BF: np.ndarray, time_B: np.ndarray) -> States:
    """Memories after one event of each user."""
    plan = make_rounds(np.arange(len(states)), time_B, states.last_time_B, refuse=False)
    return fold(runtime, states.take(np.arange(len(states))), plan, number_BF)


def check_equal(found: States, wanted: States) -> None:
    assert np.array_equal(found.count_B, wanted.count_B)
    for name, value in wanted.fields.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(found.fields[name], value, atol=1e-5)
        else:
            assert np.array_equal(found.fields[name], value), name


def folded(model: MemoryModel, number_LBF: np.ndarray) -> Any:
    """The model's own memories after events."""
    memory = model.initial_memory(number_LBF.shape[1])
    for number_BF in torch.from_numpy(number_LBF):
        memory = model.write(memory, Event(number_BF, torch.zeros(len(number_BF))))
    return memory


def test_a_service_keeps_and_reads_the_memory_of_the_model(compiled: Artifact) -> None:
    runtime, model, rng = Runtime(compiled), load_model(compiled), np.random.default_rng(0)
    assert isinstance(model, MemoryModel)
    number_LBF, states = np.stack([numbers(rng, USERS) for _ in range(400)]), runtime.empty(USERS)
    for number_BF in number_LBF:
        states = write(runtime, states, number_BF, np.zeros(USERS, np.int64))
    with torch.inference_mode():
        memory = folded(model, number_LBF)
        number, context, time = asked(USERS, 30)
        whole = type(memory)(*(part.unsqueeze(1) for part in memory))
        parts = (torch.from_numpy(part) for part in (number, np.repeat(context, 30, axis=1)))
        wanted, _ = model.respond(whole, Target(*parts, torch.zeros(USERS, 30)))
    fields = {name.rsplit("_", 1)[0]: value.numpy() for name, value in memory._asdict().items() if name != "count_B"}
    check_equal(states, States(memory.count_B.numpy(), states.last_time_B, fields))
    cells, met = states.fields["cell"][0, : runtime.counting.plan.cells_F[0]], {*number_LBF[:, 0, 0].tolist()}
    assert (cells[:, 1] > 0).all() and len(met) > len(cells), "no value has lost its cell"
    np.testing.assert_allclose(runtime.score(states, number, context, time)[0], wanted, atol=1e-5, rtol=1e-5)


def test_of_no_candidates_nothing_is_found(compiled: Artifact) -> None:
    runtime = Runtime(compiled)
    assert runtime.counting is not None
    for users in (0, 3):
        width, number_BCF = sum(table.shape[1] for table in compiled.tables.values()), np.zeros((users, 0, 4), np.int64)
        target_BCE = np.zeros((users, 0, width), np.float32)
        found = runtime.counting.find(runtime.empty(users), slice(0, users), number_BCF, target_BCE)
        assert {name: part.shape[:2] for name, part in found.items()} == dict.fromkeys(found, (users, 0))


def test_scores_change_where_what_is_found_does(compiled: Artifact) -> None:
    """The comparison above is not one of constants."""
    runtime, rng = Runtime(compiled), np.random.default_rng(0)
    states, questions = runtime.empty(1), asked(1, 200)
    for step in range(250):
        states = write(runtime, states, numbers(rng, 1), np.full(1, 60 * step))
    before = runtime.score(states, *questions)[0]
    for name in ("cell", "clock", "repeats", "sums"):
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
    together = fold(writer.runtime, start, plan, number_NF)
    one_by_one = writer.runtime.empty(USERS)
    for user, number_F, time in zip(user_N, number_NF, time_N, strict=True):
        place = np.array([user])
        one_by_one.put(place, write(writer.runtime, one_by_one.take(place), number_F[None], np.array([time])))
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
        states = runtime.decode(runtime.encode(write(runtime, states, number_BF, np.zeros(USERS, np.int64))))
    assert isinstance(model, MemoryModel)
    length_B = torch.full((USERS,), 120)
    history = History(torch.from_numpy(number_LBF.swapaxes(0, 1).copy()), torch.zeros(USERS, 120), length_B)
    wanted = model.encode(history, length_B.unsqueeze(1)).sums_BXD[:, 0].numpy()
    assert np.abs(wanted).max() > 1
    assert np.array_equal(states.fields["sums"], wanted)


def test_a_memory_without_slots_has_no_write_graph(tmp_path: Path) -> None:
    settings = SETTINGS["tally"] | {"periods": []}
    dataset = tiny_dataset(tmp_path / "data", num_items=440)
    artifact = tiny_artifact(tmp_path / "artifact", dataset, model="tally", settings=settings)
    assert not artifact.graph("write").exists()
    runtime, rng = Runtime(artifact), np.random.default_rng(0)
    states = runtime.empty(2)
    for step in range(20):
        states = write(runtime, states, numbers(rng, 2), np.full(2, step))
    assert states.count_B.tolist() == [20, 20] and states.fields["cell"].any()
    assert runtime.score(states, *asked(2, 3))[0].shape == (2, 3, 1)


def changed(config: ArtifactConfig, part: str, **values: object) -> ArtifactConfig:
    """The same with another field of its memory."""
    memory = [one.model_copy(update=values) if one.name == part else one for one in config.memory or ()]
    return config.model_copy(update={"memory": tuple(memory)})


@pytest.mark.parametrize(
    "change",
    [
        lambda config: changed(config, "cell", shape=(9, 2)),
        lambda config: changed(config, "repeats", shape=(10_000,)),
        lambda config: changed(config, "clock", dtype="float32"),
        lambda config: changed(config, "cell", cells=CellPacking((8, 4), (64, 512))),
        lambda config: config.model_copy(update={"memory": (config.memory or ())[1:]}),
        lambda config: config.model_copy(update={"settings": {**config.settings, "state": 4_096}}),
        lambda config: config.model_copy(update={"settings": {**config.settings, "state": "x"}}),
        lambda config: config.model_copy(update={"settings": {}}),
    ],
)
def test_sizes_beyond_the_memory_are_refused_before_a_loop_reads_there(
    compiled: Artifact, change: Callable[[ArtifactConfig], ArtifactConfig]
) -> None:
    assert Counting.of(compiled, compiled.tables) is not None
    other = Artifact(compiled.path, compiled.manifest, change(compiled.config))
    with pytest.raises(ArtifactError, match=r"memory|cells"):
        Counting.of(other, compiled.tables)


def test_what_is_opened_to_write_need_not_wait_for_loops_that_write(
    compiled: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, begun = threading.Event(), threading.Event()

    def compile_slowly() -> None:
        begun.set()
        assert held.wait(60)

    compiling.begin_to_compile_writes.cache_clear()
    monkeypatch.setattr(compiling, "compile_writes", compile_slowly)
    MemoryWriter(compiled, "fp32", InMemoryStore())
    thread = compiling.begin_to_compile_writes()
    assert begun.wait(60) and thread.is_alive()
    held.set()
    thread.join()
    compiling.begin_to_compile_writes.cache_clear()


_NOTHING_NEW = """
import sys
from lifelong.artifact.folder import Artifact
from lifelong.tally import kernel
from lifelong.online.memory.compiling import compile_writes
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.ram import InMemoryStore

def forms():
    return {name: len(loop.signatures) for name, loop in vars(kernel).items() if hasattr(loop, "signatures")}

compile_writes()
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
    monkeypatch.setattr("lifelong.online.memory.writer.begin_to_compile_writes", lambda: begun.append("begun"))
    MemoryWriter(compiled, "fp32", store)
    assert not begun
    MemoryWriter(compiled, "fp32", InMemoryStore())
    assert begun == ["begun"]
