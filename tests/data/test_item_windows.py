"""The items' windows of batches, against a loop over all events."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from lifelong.config import TrainSettings
from lifelong.data.batch import Batch, ItemWindows
from lifelong.data.batches import TrainingBatches, evaluation_batches, training_batches
from lifelong.data.dataset import Dataset
from lifelong.data.events import NO_TIME, gap_numbers
from lifelong.data.examples import Examples
from lifelong.data.item_windows import ItemSpan
from lifelong.errors import DatasetError
from lifelong.testing.datasets import tiny_dataset

pytestmark = pytest.mark.torch
SPAN = ItemSpan(10, period=4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("items") / "data"
    return tiny_dataset(folder, num_users=25, profiles=True, item_histories=True)


def naive_events(dataset: Dataset, row: int, before: int) -> list[list[int]]:
    """Numbers of all events of an item with an earlier time: user, age, region, event type, gap.

    Of a user who is not in training neither her number nor her profile is known.
    """
    histories, first = dataset.histories, dataset.manifest.cut_times[0]
    found = []
    for user in range(histories.num_users):
        part = histories.of(user)
        trained = bool((histories.time_N[part] < first).any())
        for place in range(part.start, part.stop):
            if histories.row_N[place] == row and histories.time_N[place] < before:
                time, kind = int(histories.time_N[place]), int(histories.event_type_N[place])
                key = (time, int(histories.sequence_N[place]))
                who = [user + 2, *dataset.profile_UF[user].tolist()] if trained else [1, 1, 1]
                found.append((key, [*who, kind], time))
    found.sort(key=lambda event: event[0])
    times = np.array([NO_TIME, *(time for _, _, time in found)], np.int64)
    gaps = gap_numbers(times[1:], times[:-1])
    return [[*numbers, int(gap)] for (_, numbers, _), gap in zip(found, gaps, strict=True)]


def windows_of(batch: Batch) -> ItemWindows:
    assert batch.items is not None
    return batch.items


def seen(batch: Batch, place: int, target: int) -> list[list[int]]:
    """The events of a target's item that a batch shows it."""
    items = windows_of(batch)
    window, read = divmod(int(items.place_BC[place, target]), items.position_WK.shape[1])
    position = int(items.position_WK[window, read])
    assert position <= int(items.length_W[window])
    return items.number_WLF[window, :position].tolist()


def visible(dataset: Dataset, row: int, before: int) -> list[list[int]]:
    """The last events, from a multiple of the period on."""
    events = naive_events(dataset, row, before)
    start = 0
    while len(events) - start > SPAN.recent:
        start += SPAN.period
    return events[start:]


def targets(batch: Batch, examples: Examples) -> Iterator[tuple[int, int, int, int]]:
    """Place, target, row and time of the targets that are stored examples."""
    for place, target in (batch.mask_BC & (batch.example_BC >= 0)).nonzero().tolist():
        at = int(batch.example_BC[place, target])
        yield place, target, int(examples.row_N[at]), int(examples.time_N[at])


def test_each_target_sees_the_last_events_of_its_item_before_its_own_moment(dataset: Dataset) -> None:
    examples, cut, checked = dataset.examples("test"), 0, 0
    for batch in evaluation_batches(dataset, examples, items=SPAN, max_targets=40):
        for place, target, row, time in targets(batch, examples):
            expected = visible(dataset, row, time)
            assert seen(batch, place, target) == expected
            cut += len(expected) < len(naive_events(dataset, row, time))
            checked += 1
    assert checked == len(examples) and cut > 20


def test_events_younger_than_a_delay_are_hidden(dataset: Dataset) -> None:
    examples, delay = dataset.examples("test").take(slice(0, 40)), 5_000_000
    differs = 0
    for batch in evaluation_batches(dataset, examples, items=replace(SPAN, delay=delay)):
        for place, target, row, time in targets(batch, examples):
            # An event is hidden if target time - event time < delay.
            expected = visible(dataset, row, time - delay + 1)
            assert seen(batch, place, target) == expected
            differs += expected != visible(dataset, row, time)
    assert differs


def test_the_query_is_who_asks_and_the_gap_the_time_since_the_items_last_event(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    for batch in evaluation_batches(dataset, examples, items=SPAN):
        items = windows_of(batch)
        users = [int(user) - 2 for user in batch.user_B]
        trained = dataset.item_histories.trained_U[users]
        expected = [[user + 2 if known else 1] for user, known in zip(users, trained.tolist(), strict=True)]
        assert items.query_BF[:, :1].tolist() == expected
        assert items.query_BF[:, 1:].tolist() == dataset.profile_UF[users].tolist()
        for place, target, row, time in targets(batch, examples):
            before = dataset.item_histories.positions(np.array([row]), np.array([time]))[0]
            last = NO_TIME
            if before:
                last = int(dataset.item_histories.time_N[dataset.item_histories.offset_V[row] + before - 1])
            gap = gap_numbers(np.array([time]), np.array([last]))
            assert items.gap_BC[place, target] == gap[0]


def test_negatives_of_training_see_their_own_items(dataset: Dataset) -> None:
    settings = TrainSettings(hide_items=0, hide_fields=0, batch_targets=64)
    numbers, checked = np.asarray(dataset.catalogue.number_VF), 0
    for _, batch in training_batches(TrainingBatches(dataset, settings, items=SPAN), epoch=0):
        drawn_BC = batch.mask_BC & (batch.example_BC < 0)
        for place, target in drawn_BC.nonzero().tolist()[:20]:
            rows = np.flatnonzero((numbers == batch.target_BCF[place, target].numpy()).all(axis=1))
            if len(rows) == 1:
                time = int(batch.target_time_BC[place, target])
                assert seen(batch, place, target) == visible(dataset, int(rows[0]), time)
                checked += 1
    assert checked > 100


def test_a_share_of_the_users_is_unknown_in_training_and_padding_stays(dataset: Dataset) -> None:
    shown = []
    for share in (0.0, 0.5):
        settings = TrainSettings(hide_items=share, hide_fields=0)
        batch = next(training_batches(TrainingBatches(dataset, settings, items=SPAN), epoch=0))[1]
        items = windows_of(batch)
        real_WL = items.number_WLF[..., 1] > 0
        assert not items.number_WLF[~real_WL].any()
        shown.append([float((number == 1).float().mean()) for number in (items.number_WLF[..., 0][real_WL],)])
        # What is known of them besides the number is hidden by no share of items.
        assert int(items.number_WLF[..., 3][real_WL].min()) > 1
    assert shown[0][0] < 0.2 and 0.4 < shown[1][0] < 0.7


def test_batches_with_items_are_otherwise_those_without(dataset: Dataset) -> None:
    settings = TrainSettings()
    plain, more = (
        next(training_batches(TrainingBatches(dataset, settings, items=items), epoch=0))[1] for items in (None, SPAN)
    )
    assert plain.items is None
    assert (plain.history_BLF == more.history_BLF).all() and (plain.target_BCF == more.target_BCF).all()


def test_a_part_of_the_users_takes_the_windows_that_it_needs(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    batch = next(evaluation_batches(dataset, examples, items=SPAN))
    assert len(batch.length_B) > 3
    for users in (slice(0, 2), slice(2, len(batch.length_B))):
        mask_BC = batch.mask_BC[users, : int(batch.mask_BC[users].sum(dim=1).max())]
        items = windows_of(batch).of(users, mask_BC)
        part = replace(batch, items=items)
        for place, target in mask_BC.nonzero().tolist():
            assert seen(part, place, target) == seen(batch, users.start + place, target)
        assert len(items.length_W) < len(windows_of(batch).length_W)
        assert items.number_WLF.shape[1] == int(items.length_W.max())


def test_a_user_without_a_target_needs_no_window(dataset: Dataset) -> None:
    batch = next(evaluation_batches(dataset, dataset.examples("test"), items=SPAN))
    nobody_BC = batch.mask_BC[:1] & False
    assert len(windows_of(batch).of(slice(0, 1), nobody_BC).length_W) == 1


@given(end=st.integers(0, 200), period=st.integers(1, 8), more=st.integers(0, 30))
def test_a_window_starts_at_a_multiple_of_the_period_and_is_neither_too_long_nor_too_short(
    dataset: Dataset, end: int, period: int, more: int
) -> None:
    span = ItemSpan(2 * period + more, period)
    start = int(span.starts(np.array([end]))[0])
    assert start % period == 0 and start >= 0
    assert end - start <= span.recent
    assert start == 0 or end - start > span.recent - period


def test_items_are_not_read_from_a_dataset_that_has_none(tmp_path: Path) -> None:
    plain = tiny_dataset(tmp_path / "plain", num_users=5)
    with pytest.raises(DatasetError, match="no item histories"):
        TrainingBatches(plain, TrainSettings(), items=SPAN)
