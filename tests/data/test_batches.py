"""Passes, batches and what they hold."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.config import TrainSettings
from lifelong.dataset.events import NO_TIME, context_numbers, gap_numbers
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset, NegativeRule
from lifelong.errors import ConfigError
from lifelong.offline.data.batch import TENSORS, Batch
from lifelong.offline.data.batches import TrainingBatches, _overlap, evaluation_batches, prefetched, training_batches
from lifelong.offline.data.passes import pack, plan_passes
from lifelong.testing.datasets import tiny_dataset

PLAIN = TrainSettings(hide_items=0, hide_fields=0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("tiny"), num_users=12)


def all_batches(batches: TrainingBatches, epoch: int = 0) -> list[Batch]:
    return [batch for _, batch in training_batches(batches, epoch=epoch)]


def targets_at(positions: list[int], user: int = 0) -> Examples:
    size = len(positions)
    return Examples(
        np.full(size, user, np.int32),
        np.full(size, 2, np.int32),
        np.arange(size, dtype=np.int64),
        np.array(positions, np.int32),
        np.ones((size, 1), np.float32),
    )


def served(examples: Examples, **how: int) -> list[tuple[int, list[int]]]:
    """(start of the window, true positions of its targets) of each pass."""
    passes = plan_passes(examples, **{"max_targets": 100, **how})
    return [
        (int(start), examples.position_N[passes.order_N[low:high]].tolist())
        for start, low, high in zip(passes.start_P, passes.first_P[:-1], passes.first_P[1:], strict=True)
    ]


# Passes


@pytest.mark.parametrize(
    ("positions", "how", "wanted"),
    [
        # A history that fits is one window.
        ([0, 3, 8], {"max_history": 8, "phase": 4}, [(0, [0, 3, 8])]),
        # Windows of 8 events, phase 4: starts 0, 4, 8; a target behind a cut has 5 to 8 events.
        ([0, 4, 8, 9, 12, 13, 16], {"max_history": 8, "phase": 4}, [(0, [0, 4, 8]), (4, [9, 12]), (8, [13, 16])]),
        # The length of a window is rounded down to the phase.
        ([8, 9], {"max_history": 11, "phase": 4}, [(0, [8]), (4, [9])]),
        # Windows of 16 events that start every 16 - 12 = 4 events: an overlap gives targets behind a cut more events.
        ([16, 17, 21], {"max_history": 16, "phase": 4, "overlap": 10}, [(0, [16]), (4, [17]), (8, [21])]),
        # Targets may come in any order.
        ([5, 1, 3], {"max_targets": 2}, [(0, [1, 3]), (0, [5])]),
    ],
)
def test_windows_start_at_multiples_of_the_phase_and_overlap(
    positions: list[int], how: dict[str, int], wanted: list[tuple[int, list[int]]]
) -> None:
    assert served(targets_at(positions), **how) == wanted


def test_pass_holds_at_most_so_many_targets_and_ends_at_its_last() -> None:
    passes = plan_passes(targets_at([1, 2, 3, 4, 5]), max_targets=2)
    assert passes.first_P.tolist() == [0, 2, 4, 5]
    assert passes.length_P.tolist() == [2, 4, 5]


def test_no_targets_make_no_passes() -> None:
    assert len(plan_passes(targets_at([]), max_targets=5)) == 0


def test_cut_is_counted() -> None:
    cut = plan_passes(targets_at([0, 4, 8, 9, 12, 13]), max_targets=1, max_history=8, phase=4).cut()
    assert (cut.windows, cut.cut_windows, cut.events_cut) == (3, 2, 4 + 8)
    assert (cut.targets, cut.targets_behind_cut) == (6, 3)


@pytest.mark.parametrize("max_history", [32, 33, 100, 1000])
@pytest.mark.parametrize("phase", [1, 4, 16])
def test_every_target_is_served_once_with_enough_events(max_history: int, phase: int) -> None:
    positions = list(range(0, 700, 3))
    windows = served(targets_at(positions), max_history=max_history, phase=phase, max_targets=7)
    assert sorted(position for _, group in windows for position in group) == positions
    for start, group in windows:
        assert start % phase == 0
        for position in group:
            assert position - start <= max_history
            assert start == 0 or position - start > phase


def test_window_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_history to at least 64"):
        plan_passes(targets_at([1]), max_targets=1, max_history=40, phase=32)


# Packing


@pytest.mark.parametrize(
    ("length", "targets", "limits", "wanted"),
    [
        ([4, 4, 4, 4, 9], [1, 1, 5, 1, 1], (12, 10), [[0, 1], [2, 3], [4]]),
        # A pass beyond a limit stands alone.
        ([1, 99, 1], [1, 1, 1], (10, 10), [[0], [1], [2]]),
    ],
)
def test_batches_keep_to_both_limits(
    length: list[int], targets: list[int], limits: tuple[int, int], wanted: list[list[int]]
) -> None:
    packed = pack(np.arange(len(length)), np.array(length), np.array(targets), limits)
    assert [part.tolist() for part in packed] == wanted


# Training batches


@pytest.mark.parametrize("max_history", [None, 16])
def test_an_epoch_labels_every_training_target_once_with_its_negatives(
    dataset: Dataset, max_history: int | None
) -> None:
    settings = replace_settings(max_history=max_history, max_targets=5, batch_targets=40)
    seen: Counter[int] = Counter()
    negatives = 0
    for batch in all_batches(TrainingBatches(dataset, settings, phase=4)):
        seen.update(batch.example_BC[batch.example_BC >= 0].tolist())
        negatives += int((batch.mask_BC & (batch.example_BC < 0)).sum())
    size = len(dataset.examples("train"))
    assert seen == Counter(range(size))
    assert negatives == size


def replace_settings(**changes: object) -> TrainSettings:
    return PLAIN.model_copy(update=changes)


def test_negatives_stand_beside_their_positive(dataset: Dataset) -> None:
    for batch in all_batches(TrainingBatches(dataset, PLAIN)):
        positive, negative = slice(0, None, 2), slice(1, None, 2)
        mask = batch.mask_BC[:, positive]
        assert torch.equal(mask, batch.mask_BC[:, negative])
        assert torch.equal(batch.label_BCT[:, positive, 0], mask.float())
        assert not batch.label_BCT[:, negative].any()
        for name in ("position_BC", "target_time_BC", "context_BCF"):
            assert torch.equal(getattr(batch, name)[:, positive], getattr(batch, name)[:, negative])
        assert (batch.example_BC[:, negative] == -1).all()


@pytest.mark.parametrize("more", [1, 3])
def test_more_negatives_weigh_together_what_the_datasets_weigh(dataset: Dataset, more: int) -> None:
    batches = TrainingBatches(dataset, replace_settings(negatives=more))
    size = len(dataset.examples("train"))
    assert batches.examples_per_epoch == size * (1 + more)
    weight = {True: 0.0, False: 0.0}
    for batch in all_batches(batches):
        for drawn in weight:
            weight[drawn] += float(batch.weight_BC[batch.mask_BC & ((batch.example_BC < 0) == drawn)].sum())
    assert weight[True] == pytest.approx(weight[False])
    assert sum(weight.values()) == pytest.approx(batches.examples_per_epoch)


def test_negatives_cannot_be_asked_for_where_labels_are_logged(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = dataset.manifest.model_copy(update={"negatives": NegativeRule(rule="none")})
    monkeypatch.setattr(dataset, "manifest", manifest)
    with pytest.raises(ConfigError, match="no negatives are drawn in training"):
        TrainingBatches(dataset, replace_settings(negatives=3))


def test_windows_hold_the_events_of_the_history(dataset: Dataset) -> None:
    histories, examples = dataset.histories, dataset.examples("train")
    assert histories.event_type_N is not None
    checked_cut = 0
    for batch in all_batches(TrainingBatches(dataset, replace_settings(max_history=16), phase=4)):
        for user, place in batch.mask_BC.nonzero().tolist():
            example = int(batch.example_BC[user, place])
            if example < 0:
                continue
            assert int(batch.user_B[user]) == 2 + examples.user_N[example]
            local, length = int(batch.position_BC[user, place]), int(batch.length_B[user])
            end = histories.of(int(examples.user_N[example])).start + int(examples.position_N[example])
            events = slice(end - local, end)
            first = events.start == histories.of(int(examples.user_N[example])).start
            checked_cut += not first
            times = histories.time_N[events]
            before = np.concatenate(
                [[NO_TIME if first else histories.time_N[events.start - 1]][: len(times)], times[:-1]]
            )
            expected = np.column_stack(
                [
                    dataset.catalogue.number_VF[histories.row_N[events]],
                    histories.event_type_N[events],
                    gap_numbers(times, before.astype(np.int64)),
                ]
            )
            assert batch.history_BLF[user, :local].tolist() == expected.tolist()
            assert batch.time_BL[user, :local].tolist() == times.tolist()
            assert local <= length
    assert checked_cut > 50


def test_targets_hold_item_time_and_context(dataset: Dataset) -> None:
    examples, histories = dataset.examples("validation"), dataset.histories
    for batch in evaluation_batches(dataset, examples):
        for user, place in batch.mask_BC.nonzero().tolist():
            example = int(batch.example_BC[user, place])
            position, start = int(examples.position_N[example]), histories.of(int(examples.user_N[example])).start
            last = histories.time_N[start + position - 1] if position else NO_TIME
            expected = context_numbers(
                dataset.schema.context_fields, examples.time_N[example : example + 1], np.array([last])
            )[0]
            assert batch.context_BCF[user, place].tolist() == expected.tolist()
            assert batch.target_BCF[user, place].tolist() == (
                dataset.catalogue.number_VF[examples.row_N[example]].tolist()
            )
            assert int(batch.target_time_BC[user, place]) == examples.time_N[example]
            assert batch.label_BCT[user, place].tolist() == examples.label_NT[example].tolist()


def test_padding_is_zero_everywhere(dataset: Dataset) -> None:
    for batch in all_batches(TrainingBatches(dataset, TrainSettings())):
        padded_BL = torch.arange(batch.history_BLF.shape[1]) >= batch.length_B[:, None]
        assert not batch.history_BLF[padded_BL].any()
        assert not batch.time_BL[padded_BL].any()
        for name in ("target_BCF", "target_time_BC", "position_BC", "context_BCF", "label_BCT"):
            assert not getattr(batch, name)[~batch.mask_BC].any(), name
        assert (batch.example_BC[~batch.mask_BC] == -1).all()


def test_same_seed_gives_same_batches_and_another_epoch_other_negatives(dataset: Dataset) -> None:
    first, again = (all_batches(TrainingBatches(dataset, TrainSettings())) for _ in range(2))
    assert all(equal(one, two) for one, two in zip(first, again, strict=True))
    other = all_batches(TrainingBatches(dataset, TrainSettings()), epoch=1)
    assert not all(equal(one, two) for one, two in zip(first, other, strict=True))


def test_resumed_epoch_goes_on_with_the_same_batches(dataset: Dataset) -> None:
    batches = TrainingBatches(dataset, TrainSettings(batch_targets=40, max_targets=10))
    whole = list(training_batches(batches, epoch=2))
    rest = list(training_batches(batches, epoch=2, first=3))
    assert [number for number, _ in rest] == list(range(3, len(whole)))
    assert all(equal(one, two) for (_, one), (_, two) in zip(whole[3:], rest, strict=True))


def test_users_do_not_always_share_a_batch(dataset: Dataset) -> None:
    batches = TrainingBatches(dataset, TrainSettings(batch_events=128))
    groups = [{tuple(sorted(part.tolist())) for part in batches.epoch(epoch)} for epoch in range(2)]
    assert groups[0] != groups[1]


def test_logged_labels_get_no_negatives(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = dataset.manifest.model_copy(update={"negatives": NegativeRule(rule="none")})
    monkeypatch.setattr(dataset, "manifest", manifest)
    batches = TrainingBatches(dataset, PLAIN)
    made = all_batches(batches)
    assert batches.examples_per_epoch == len(dataset.examples("train"))
    assert all(torch.equal(batch.mask_BC, batch.example_BC >= 0) for batch in made)


def test_share_of_items_and_fields_is_hidden(dataset: Dataset) -> None:
    shown = all_batches(TrainingBatches(dataset, PLAIN))
    hidden = all_batches(TrainingBatches(dataset, PLAIN.model_copy(update={"hide_items": 0.3, "hide_fields": 0.2})))
    fallback = torch.from_numpy(dataset.vocabularies["item"].fallback).long()
    items, known, fields_changed, total = 0, 0, 0, 0
    for before, after in zip(shown, hidden, strict=True):
        real = before.history_BLF[..., 0] > 0
        one, two = before.history_BLF[real], after.history_BLF[real]
        changed = one[:, 0] != two[:, 0]
        assert torch.equal(two[changed, 0], fallback[one[changed, 0]])
        assert (two[one[:, 1] != two[:, 1], 1] == 1).all()
        assert torch.equal(one[:, 2:], two[:, 2:])
        items, known = items + int(changed.sum()), known + int((fallback[one[:, 0]] != one[:, 0]).sum())
        fields_changed, total = fields_changed + int((one[:, 1] != two[:, 1]).sum()), total + len(one)
    assert items / known == pytest.approx(0.3, abs=0.08)
    assert fields_changed / total == pytest.approx(0.2, abs=0.07)


# Evaluation batches


def test_evaluation_covers_every_example_once_from_the_first_event(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    seen: Counter[int] = Counter()
    for batch in evaluation_batches(dataset, examples, max_events=100, max_targets=8):
        seen.update(batch.example_BC[batch.mask_BC].tolist())
        position = torch.from_numpy(examples.position_N.astype(np.int64))[batch.example_BC[batch.mask_BC]]
        assert torch.equal(batch.position_BC[batch.mask_BC], position)
    assert seen == Counter(range(len(examples)))


def test_earlier_positions_hide_later_events(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    hidden = replace(examples, position_N=np.maximum(examples.position_N - 3, 0))
    longest = max(int(batch.length_B.max()) for batch in evaluation_batches(dataset, hidden))
    assert longest == hidden.position_N.max()


def test_target_of_a_user_without_earlier_events_has_an_empty_history(dataset: Dataset) -> None:
    example = dataset.examples("train").take(slice(0, 1))
    batch = next(evaluation_batches(dataset, replace(example, position_N=np.zeros(1, np.int32))))
    assert batch.length_B.tolist() == [0]
    assert not batch.history_BLF.any()
    assert batch.context_BCF[0, 0, 0] == 1


# Prefetching


def test_prefetch_keeps_the_order() -> None:
    assert list(prefetched(iter(range(20)))) == list(range(20))


def test_error_of_the_thread_is_raised_where_items_are_used() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    items = prefetched(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_thread_ends_when_the_batches_are_left_early() -> None:
    before = threading.active_count()
    items = prefetched(iter(range(1000)))
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def equal(one: Batch, two: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in TENSORS)


def test_batch_moves_as_a_whole(dataset: Dataset, tmp_path: Path) -> None:
    batch = all_batches(TrainingBatches(dataset, PLAIN))[0]
    assert equal(batch, batch.to("cpu"))


@pytest.mark.parametrize(
    ("max_history", "overlap", "phase", "least"),
    [
        (None, None, 1, 0),
        (2048, None, 1, 1000),
        (2048, None, 32, 992),
        (100, None, 1, 50),
        (100, 7, 1, 7),
    ],
)
def test_unless_said_otherwise_a_target_behind_a_cut_sees_what_models_read(
    max_history: int | None, overlap: int | None, phase: int, least: int
) -> None:
    assert _overlap(replace_settings(max_history=max_history, overlap=overlap), phase) == least
    if max_history is not None:
        positions = list(range(5000))
        windows = served(targets_at(positions), max_history=max_history, phase=phase, overlap=least)
        assert all(position - start >= min(position, least) for start, seen in windows for position in seen)
