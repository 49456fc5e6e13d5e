"""A model with a side of items in a service: the offline scores, each event once, nothing left of a forgotten user."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("rocksdict")
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.artifact.export import load_model
from lifelong.artifact.folder import NUMBER, TIME, Artifact
from lifelong.data.dataset import Dataset
from lifelong.data.events import NO_TIME, gap_numbers
from lifelong.data.known_users import KnownUsers
from lifelong.data.vocabulary import UNKNOWN
from lifelong.errors import ArtifactError, DatasetError, StoreConflictError, StoreError, StoreForeignError
from lifelong.evaluation.evaluate import predict
from lifelong.memory import takeover
from lifelong.memory.event_table import EventTable
from lifelong.memory.forgetting import export, forget, forget_inactive
from lifelong.memory.item_memory import ITEMS, ItemMemories
from lifelong.memory.overlapped import Overlapped
from lifelong.memory.store import Commit, InMemoryStore, MemoryStore, open_store
from lifelong.memory.updater import Batch, Updater, UserEvent
from lifelong.memory.verify import verify
from lifelong.models import MODELS
from lifelong.models.sides import has_sides
from lifelong.serving.explain import explain
from lifelong.serving.replay import replay
from lifelong.serving.scorer import Scorer, ScoreRequest
from lifelong.testing.artifacts import tiny_artifact
from lifelong.testing.datasets import tiny_dataset
from lifelong.testing.kills import campaign, events_of, grounds
from lifelong.training.backfill import backfill

pytestmark = pytest.mark.torch
ABLE = [name for name, entry in MODELS.items() if has_sides(entry)]
PERIODS = {"width": 8, "periods": [1, 2, 4]}
SMALL: dict[str, dict[str, Any]] = {"hpmn": {**PERIODS, "hops": 2}, "hpmn_dynamic": PERIODS, "rum_item": {"slots": 4}}
RECENT = 9


def made(dataset: Dataset, out: Path, name: str = "hpmn", side: str = "both", **config: Any) -> Artifact:
    config = {**SMALL.get(name, {}), "embedding": 4, "item_recent": RECENT, "side": side, **config}
    return tiny_artifact(out, dataset, model=name, settings=config)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("items") / "data"
    return tiny_dataset(folder, num_users=25, profiles=True, item_histories=True)


@pytest.fixture(scope="module")
def both(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return made(dataset, tmp_path_factory.mktemp("both") / "artifact")


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    opened = InMemoryStore()
    yield opened
    opened.close()


def windows(store: MemoryStore) -> dict[str, bytes]:
    return dict(store.users(slot=ITEMS))


def in_ci(cell: tuple[str, str]) -> Any:
    """Every model and side; a few of them in every run of the tests, since a graph takes a second to write."""
    quick = {("item", "hpmn"), ("item", "dnn"), ("both", "hpmn"), ("both", "mimn"), ("both", "rum_item")}
    return pytest.param(*cell, marks=[] if cell in quick else pytest.mark.soak)


def somebody_in(artifact: Artifact, store: MemoryStore) -> str:
    """A user whom a window names."""
    states = ItemMemories(artifact).codec.decode(list(windows(store).values()))
    named = set(states.fields[NUMBER][..., 0].ravel().tolist())
    return next(user for user, _ in store.users() if int(artifact.known_users.numbers([user])[0, 0]) in named - {1})


@pytest.mark.parametrize(("side", "name"), [*map(in_ci, product(["item", "both"], ABLE))])
def test_a_replay_through_a_store_gives_the_offline_scores(
    dataset: Dataset, tmp_path: Path, side: str, name: str
) -> None:
    artifact, url = made(dataset, tmp_path / "a", name, side), f"rocksdb://{tmp_path / 'store'}"
    store, cut = open_store(url), dataset.manifest.cut_times[1]
    backfill(artifact, dataset, store, until=cut)
    # The store tells of users' moments before the cut alone.
    assert verify(artifact, dataset, store, until=cut).equal
    store.close()
    done = replay(artifact, dataset, lambda: open_store(url))
    offline_N = predict(load_model(artifact), dataset, dataset.examples("test"), threads=1)[:, 0]
    np.testing.assert_allclose(done.logit_N, offline_N, rtol=0, atol=1e-5)
    assert np.std(offline_N) > 1e-3
    store = open_store(url)
    report = verify(artifact, dataset, store)
    store.close()
    assert report.equal and report.items == len(dataset.catalogue) - 2 and not report.windows


def naive(artifact: Artifact, events: Sequence[UserEvent]) -> dict[str, tuple[int, int, list[tuple[list[int], int]]]]:
    """Item -> events in all, last time, and the last events, each as its numbers and its time."""
    found: dict[str, tuple[int, int, list[tuple[list[int], int]]]] = {}
    assert artifact.event_types is not None
    for event in events:
        count, last, kept = found.get(event.item, (0, NO_TIME, []))
        number = artifact.known_users.numbers([event.user])[0].tolist()
        number.append(int(artifact.event_types.numbers([event.event_type])[0]))
        number.append(int(gap_numbers(np.array([event.time]), np.array([last]))[0]))
        found[event.item] = count + 1, max(last, event.time), [*kept, (number, event.time)][-RECENT:]
    return found


def test_a_window_is_that_of_a_loop_over_the_events(both: Artifact, dataset: Dataset, store: MemoryStore) -> None:
    events = events_of(dataset)
    # Many of one item at once, and late ones.
    events += [UserEvent(f"u{place}", "i3", events[-1].time + 60 * (place % 7), "view") for place in range(40)]
    Updater(both, store).apply(events)
    of_items, expected = ItemMemories(both), naive(both, events)
    assert set(windows(store)) == set(expected)
    for item, record in windows(store).items():
        states = of_items.codec.decode([record])
        count, last, kept = expected[item]
        assert (int(states.count_B[0]), int(states.last_time_B[0])) == (count, last)
        places = [(count - len(kept) + step) % RECENT for step in range(len(kept))]
        assert states.fields[NUMBER][0, places].tolist() == [number for number, _ in kept]
        assert states.fields[TIME][0, places].tolist() == [time for _, time in kept]


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=6), again=st.integers(0, 40))
def test_however_events_are_cut_into_batches_and_sent_again_the_windows_are_the_same(
    both: Artifact, dataset: Dataset, cuts: list[int], again: int
) -> None:
    events, once, several = events_of(dataset)[:300], InMemoryStore(), InMemoryStore()
    Updater(both, once).apply(events)
    updater = Updater(both, several)
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 300], strict=True):
        start = max(0, first - again)
        updater.apply(events[start:last], source="file", offsets=range(start, last))
    assert windows(several) == windows(once)


def test_batches_that_are_made_while_another_is_written_give_the_same_windows(both: Artifact, dataset: Dataset) -> None:
    events, once, other = events_of(dataset), InMemoryStore(), InMemoryStore()
    Updater(both, once).apply(events)
    with Overlapped(Updater(both, other), "file") as writer:
        for start in range(0, len(events), 50):
            some = events[start : start + 50]
            writer.apply(EventTable.of(some), range(start, start + len(some)))
    assert windows(other) == windows(once)


@pytest.mark.parametrize("kind", ["file, rocksdb", "file while compacting, rocksdb", "service, rocksdb"])
def test_killed_processes_lose_no_event_of_an_item_and_apply_none_twice(
    both: Artifact, dataset: Dataset, tmp_path: Path, kind: str
) -> None:
    with grounds(tmp_path, both, events_of(dataset), dataset.folder) as make:
        assert len(campaign(make(kind, 3), kind, kills=2, seed=3, say=print)) == 2


def test_an_event_of_somebody_else_moves_the_score_of_its_item_alone(
    both: Artifact, dataset: Dataset, store: MemoryStore
) -> None:
    events = events_of(dataset)
    updater, scorer, later = Updater(both, store), Scorer(both, store), events[-1].time + 1000
    updater.apply(events)
    user, other = dataset.users.id_at(0), dataset.users.id_at(1)
    before = [score.score for score in scorer.score(user, ["i1", "i2"], time=later)]
    updater.apply([UserEvent(other, "i1", later - 500, "view")])
    after = [score.score for score in scorer.score(user, ["i1", "i2"], time=later)]
    assert before[0] != after[0] and before[1] == after[1]


def test_company_of_other_candidates_and_users_changes_no_score(
    both: Artifact, dataset: Dataset, store: MemoryStore
) -> None:
    events = events_of(dataset)
    Updater(both, store).apply(events)
    time, users = events[-1].time + 5, [dataset.users.id_at(place) for place in range(4)]
    items = [["i1", "i2", "i1"], ["i7"], ["i2", "nowhere", "i9"], []]
    together = Scorer(both, store).answer(
        [ScoreRequest(user, some, time) for user, some in zip(users, items, strict=True)]
    )
    # One after another, by a scorer that has folded nothing yet and one that has.
    scorer = Scorer(both, store)
    for user, some, answer in zip(users, items, together, strict=True):
        for item, score in zip(some, answer.scores, strict=True):
            assert scorer.score(user, [item], time=time)[0].score == pytest.approx(score.score, abs=1e-6)
            assert scorer.score(user, [item], time=time)[0].score == pytest.approx(score.score, abs=1e-6)


def test_a_profile_of_the_request_is_the_one_that_reads(both: Artifact, dataset: Dataset, store: MemoryStore) -> None:
    events = events_of(dataset)
    Updater(both, store).apply(events)
    scorer, time = Scorer(both, store), events[-1].time + 5
    known = dataset.users.id_at(0)
    found = {
        (user, age): scorer.score(user, ["i1"], time=time, profile=age and {"age": age})[0].score
        for user in (known, "nobody")
        for age in (None, "young", "old")
    }
    # Of a user of the training the artifact knows it.
    assert found[known, None] == found[known, "young"] != found[known, "old"]
    assert len({found["nobody", age] for age in (None, "young", "old")}) == 3


def test_nothing_of_the_ids_of_users_stands_in_an_artifact(both: Artifact, dataset: Dataset) -> None:
    names = [dataset.users.id_at(place).encode() for place in range(dataset.histories.num_users)]
    # Ids of the tiny dataset are short: as text in an array of their own they would stand with a separator.
    for path in (both.path / "users").iterdir():
        assert not [name for name in names if len(name) > 2 and name in path.read_bytes()]
    users = both.known_users
    trained = [dataset.users.id_at(int(place)) for place in np.flatnonzero(dataset.item_histories.trained_U)]
    wanted_U = dataset.item_histories.numbers(dataset.users.find(trained))
    assert users.numbers(trained)[:, 0].tolist() == wanted_U.tolist()
    assert users.numbers(trained)[:, 1:].tolist() == dataset.profile_UF[dataset.users.find(trained)].tolist()
    assert (users.numbers(["nobody", ""]) == UNKNOWN).all() and users.numbers([]).shape == (0, 3)


@pytest.mark.parametrize("damage", ["gone", "short", "no array"])
def test_damaged_users_of_an_artifact_are_named(both: Artifact, tmp_path: Path, damage: str) -> None:
    both.known_users.save(tmp_path)
    path = tmp_path / "number.npy"
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        np.save(path, both.known_users.number_U[:-1])
    else:
        path.write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"number\.npy"):
        KnownUsers.open(tmp_path, 2)


def test_a_window_that_differs_from_the_data_is_noticed(both: Artifact, dataset: Dataset, store: MemoryStore) -> None:
    backfill(both, dataset, store)
    assert verify(both, dataset, store).equal
    record, other = store.read_many(["i1", "i2"], slot=ITEMS)
    assert record is not None and other is not None
    store.commit(Commit(beside={(ITEMS, "i1"): other}))
    report = verify(both, dataset, store)
    assert not report.equal and report.windows == 1 and "item i1" in report.reasons


def test_a_backfill_leaves_windows_alone_that_hold_more(both: Artifact, dataset: Dataset, store: MemoryStore) -> None:
    backfill(both, dataset, store)
    Updater(both, store).apply([UserEvent("somebody", "i1", 2_000_000_000, "view")])
    newer = windows(store)
    backfill(both, dataset, store)
    assert windows(store) == newer


def test_a_backfill_without_item_histories_writes_nothing(both: Artifact, store: MemoryStore, tmp_path: Path) -> None:
    plain = tiny_dataset(tmp_path / "plain", num_users=25, profiles=True)
    with pytest.raises(DatasetError, match=r"no item histories.*item_histories=true"):
        backfill(both, plain, store)
    assert not list(store.users())


def test_a_forgotten_user_is_unknown_in_the_windows_and_others_stay(
    both: Artifact, dataset: Dataset, store: MemoryStore
) -> None:
    events = events_of(dataset)
    Updater(both, store).apply(events)
    user, of_items = somebody_in(both, store), ItemMemories(both)
    number, before = int(both.known_users.numbers([user])[0, 0]), windows(store)
    states = of_items.codec.decode(list(before.values()))
    hers_I = (states.fields[NUMBER][..., 0] == number).any(axis=1)
    hers = {item for item, was in zip(before, hers_I, strict=True) if was}
    assert number != UNKNOWN and 0 < len(hers) < len(before)
    assert forget(store, user)
    after = windows(store)
    assert {item for item in before if before[item] != after[item]} == hers
    for item in hers:
        old, new = (of_items.codec.decode([found[item]]) for found in (before, after))
        changed = old.fields[NUMBER][0, :, 0] == number
        assert (new.fields[NUMBER][0, changed, :3] == UNKNOWN).all()
        np.testing.assert_array_equal(new.fields[NUMBER][0, changed, 3:], old.fields[NUMBER][0, changed, 3:])
        np.testing.assert_array_equal(new.fields[NUMBER][0, ~changed], old.fields[NUMBER][0, ~changed])
        assert new.count_B == old.count_B


def test_what_is_kept_of_a_user_names_the_items_whose_windows_have_her(
    both: Artifact, dataset: Dataset, store: MemoryStore
) -> None:
    events = events_of(dataset)
    Updater(both, store).apply(events)
    user = somebody_in(both, store)
    wanted: dict[str, list[int]] = {}
    for item, (_, _, kept) in naive(both, events).items():
        number = int(both.known_users.numbers([user])[0, 0])
        times = sorted(time for numbers, time in kept if numbers[0] == number)
        wanted |= {item: times} if times else {}
    assert export(store, user)["items"] == wanted != {}
    assert export(store, "nobody")["items"] == {}
    forget(store, user)
    assert export(store, user)["items"] == {}


def test_what_was_folded_is_let_go_where_it_takes_too_much_room(
    both: Artifact, dataset: Dataset, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = events_of(dataset)
    Updater(both, store).apply(events)
    monkeypatch.setattr("lifelong.memory.item_memory._FOLDED", 5000)
    small, large = Scorer(both, store), Scorer(both, store)
    assert small.runtime.items is not None and large.runtime.items is not None
    large.runtime.items._most = 10**6
    items, time = [f"i{number}" for number in range(40)], events[-1].time + 5
    for start in (0, 10, 3, 20, 0):
        some = items[start : start + 15]
        found, wanted = (scorer.score("nobody", some, time=time) for scorer in (small, large))
        np.testing.assert_allclose([one.score for one in found], [one.score for one in wanted], atol=1e-6)
    assert len(small.runtime.items._folded) < len(large.runtime.items._folded)


def test_events_that_come_while_a_user_is_forgotten_are_kept(
    both: Artifact, dataset: Dataset, store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, commit = events_of(dataset), InMemoryStore.commit
    updater = Updater(both, store)
    updater.apply(events)
    user, came = somebody_in(both, store), list[str]()

    def overtaken(self: InMemoryStore, change: Commit) -> None:
        if change.beside and not change.states and not came:
            came.append(next(item for _, item in change.beside))
            updater.apply([UserEvent("somebody", came[0], events[-1].time + 1, "view")])
        commit(self, change)

    monkeypatch.setattr(InMemoryStore, "commit", overtaken)
    assert forget(store, user) and came
    states = ItemMemories(both).codec.decode(list(windows(store).values()))
    assert not (states.fields[NUMBER][..., 0] == both.known_users.numbers([user])[0, 0]).any()
    assert states.count_B.sum() == len(events) + 1


def test_a_user_who_is_forgotten_while_an_event_is_on_its_way_does_not_come_back(
    both: Artifact, dataset: Dataset, store: MemoryStore
) -> None:
    events = events_of(dataset)
    updater = Updater(both, store)
    updater.apply(events)
    user = somebody_in(both, store)
    item = next(iter(export(store, user)["items"]))
    batch = Batch.of(EventTable.of([UserEvent("somebody", item, events[-1].time + 1, "view")]), "http", 0, None)
    step = updater.make(batch)
    forget(store, user)
    assert updater.finish(batch, step).applied == 1
    assert export(store, user)["items"] == {}
    states = ItemMemories(both).codec.decode(store.read_many([item], slot=ITEMS))
    assert states.last_time_B.tolist() == [events[-1].time + 1]


def test_a_sweep_takes_inactive_users_out_of_the_windows(both: Artifact, dataset: Dataset, store: MemoryStore) -> None:
    events = events_of(dataset)
    Updater(both, store).apply(events)
    last = {event.user: event.time for event in events}
    before = sorted(last.values())[len(last) // 2]
    sweep = forget_inactive(store, before)
    gone = [user for user, time in last.items() if time < before]
    assert sweep.forgotten == len(gone) > 0
    number_N = ItemMemories(both).codec.decode(list(windows(store).values())).fields[NUMBER][..., 0]
    assert not np.isin(number_N, np.setdiff1d(both.known_users.numbers(gone)[:, 0], [UNKNOWN])).any()
    assert np.isin(number_N, both.known_users.numbers([user for user in last if user not in gone])[:, 0]).any()


def test_who_is_to_be_forgotten_is_not_half_forgotten_where_the_artifact_is_gone(
    both: Artifact, dataset: Dataset, tmp_path: Path, store: MemoryStore
) -> None:
    artifact = Artifact.open(copytree(both.path, tmp_path / "a"))
    Updater(artifact, store).apply(events_of(dataset))
    (tmp_path / "a").rename(tmp_path / "b")
    user = dataset.users.id_at(0)
    with pytest.raises(StoreForeignError, match="cannot be opened"):
        forget(store, user)
    assert store.read_many([user]) != [None]


@pytest.mark.parametrize("what", ["updater", "backfill"])
def test_a_store_that_writes_records_apart_is_refused(
    both: Artifact, dataset: Dataset, tmp_path: Path, what: str
) -> None:
    store = open_store(f"rocksdb://{tmp_path / 'store'}?shards=2")
    with pytest.raises(StoreError, match=r"HPMN, both sides keeps an item's events .*without shards"):
        Updater(both, store) if what == "updater" else backfill(both, dataset, store)
    assert not list(store.users())
    store.close()


def test_no_other_artifact_shares_a_store_with_events_of_items(
    both: Artifact, dataset: Dataset, store: MemoryStore, tmp_path: Path
) -> None:
    plain = tiny_artifact(tmp_path / "plain", dataset)
    Updater(both, store)
    with pytest.raises(StoreForeignError, match="keeps events of items"):
        takeover.add(store, plain)
    others = InMemoryStore()
    Updater(plain, others)
    with pytest.raises(StoreForeignError, match="keeps events of items"):
        takeover.add(others, both)
    assert len(store.roster().members) == len(others.roster().members) == 1


def test_an_explanation_tells_of_the_users_side(both: Artifact, dataset: Dataset, store: MemoryStore) -> None:
    events = events_of(dataset)
    Updater(both, store).apply(events)
    scorer, request = Scorer(both, store), ScoreRequest(dataset.users.id_at(0), ["i1"], events[-1].time + 5)
    told = explain(scorer, request)
    assert told.candidates[0].score == scorer.answer([request])[0].scores[0].score


def test_a_missing_table_of_the_side_is_named(both: Artifact, tmp_path: Path) -> None:
    artifact = Artifact.open(copytree(both.path, tmp_path / "a"))
    (tmp_path / "a" / "tables" / "items" / "user.npy").unlink()
    with pytest.raises(ArtifactError, match=r"items/user\.npy"):
        Artifact.open(tmp_path / "a")
    with pytest.raises(ArtifactError, match=r"user\.npy cannot be read"):
        ItemMemories(artifact)


def test_a_change_from_an_older_window_is_refused(both: Artifact, dataset: Dataset, store: MemoryStore) -> None:
    updater = Updater(both, store)
    updater.apply(events_of(dataset)[:50])
    item, record = next(iter(windows(store).items()))
    updater.apply([UserEvent("somebody", item, 2_000_000_000, "view")])
    with pytest.raises(StoreConflictError):
        store.commit(Commit(beside={(ITEMS, item): record}, beside_based_on={(ITEMS, item): record}))
