"""Models that see only the last events before each target."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lifelong.errors import UsageError
from lifelong.offline.data.batches import evaluation_batches
from lifelong.offline.data.recent import recent_parts
from lifelong.offline.evaluation import evaluate, metrics
from lifelong.offline.export.saving import write_artifact
from lifelong.offline.models import build
from lifelong.offline.training.runs import Run
from lifelong.offline.training.sweep import SweepTask, choose, parse_steps, sweep

SMALL = {
    "hpmn": {"embedding": 3, "width": 4, "periods": [1, 2, 4]},
    "gru4rec": {"embedding": 3, "width": 4},
    "din": {"embedding": 3},
    "counts": {},
    "gbdt": {"rounds": 5, "leaf_examples": 5},
}


DATASET = {"num_users": 12, "num_items": 30, "mean_events": 30}


def made(dataset, name, **settings):
    torch.manual_seed(0)
    if name == "gbdt":
        pytest.importorskip("lightgbm")
    model = build(name, dataset.inputs, {**SMALL[name], **settings})
    if hasattr(model, "fit"):
        model.fit(dataset)
    return model


def test_a_window_holds_the_last_events_before_its_targets_alone(dataset):
    examples, recent, seen = dataset.examples("test"), 4, 0
    for batch in evaluation_batches(dataset, examples, recent=recent):
        for user, place in zip(*np.nonzero(batch.mask_BC.numpy()), strict=True):
            example = int(batch.example_BC[user, place])
            position = int(examples.position_N[example])
            start = dataset.histories.of(int(examples.user_N[example])).start
            row_L = dataset.histories.row_N[start + max(0, position - recent) : start + position]
            length = int(batch.length_B[user])
            assert length == int(batch.position_BC[user, place]) == min(position, recent)
            np.testing.assert_array_equal(
                batch.history_BLF[user, :length, :2].numpy(), dataset.catalogue.number_VF[row_L]
            )
            seen += 1
    assert seen == len(examples)


@pytest.mark.parametrize("name", list(SMALL))
def test_more_recent_events_than_there_are_change_nothing(dataset, name):
    model, examples = made(dataset, name), dataset.examples("test")
    whole = evaluate.predict(model, dataset, examples)
    np.testing.assert_allclose(evaluate.predict(model, dataset, examples, recent=10_000), whole, atol=1e-5)


@pytest.mark.parametrize("name", list(SMALL))
def test_older_events_than_the_recent_ones_are_not_seen(dataset, name):
    model, examples, recent = made(dataset, name), dataset.examples("test"), 5
    changed = replace(dataset.histories, row_N=np.array(dataset.histories.row_N))
    user_N, position_N = np.asarray(examples.user_N), np.asarray(examples.position_N)
    # For each user, everything that no target of hers may see becomes another item.
    for user in np.unique(user_N):
        first = dataset.histories.of(user).start
        changed.row_N[first : first + max(0, int(position_N[user_N == user].min()) - recent)] = 5
    other = next(recent_parts(dataset, examples, 10**6))[1]
    other.__dict__["histories"] = changed
    before, after = (evaluate.predict(model, data, examples, recent=recent) for data in (dataset, other))
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert not np.allclose(evaluate.predict(model, dataset, examples), before, atol=1e-4)


def test_a_history_model_on_recent_events_is_the_one_that_keeps_so_many(dataset):
    few, many, examples = made(dataset, "din", recent=6), made(dataset, "din"), dataset.examples("test")
    np.testing.assert_allclose(
        evaluate.predict(many, dataset, examples, recent=6), evaluate.predict(few, dataset, examples), atol=1e-5
    )


def test_a_memory_starts_empty_at_the_first_recent_event(dataset):
    model, examples = made(dataset, "hpmn"), dataset.examples("test")
    recent = 5
    place = int(np.argmax(examples.position_N))
    batch = next(iter(evaluation_batches(dataset, examples.take(np.array([place])))))
    position = int(examples.position_N[place])
    from lifelong.offline.models.base import Event, Target

    memory = model.initial_memory(1)
    for step in range(position - recent, position):
        memory = model.write(memory, Event(batch.history_BLF[:, step], batch.time_BL[:, step]))
    target = Target(batch.target_BCF, batch.context_BCF, batch.target_time_BC)
    model.eval()
    with torch.no_grad():
        memory = type(memory)(*(part.unsqueeze(1) for part in memory))
        expected = model.respond(memory, target)[0][0, 0].numpy()
    found = evaluate.predict(model, dataset, examples.take(np.array([place])), recent=recent)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_parts_of_a_bounded_size_give_the_same_as_one(dataset):
    model, examples = made(dataset, "counts"), dataset.examples("test")
    whole, parts = np.zeros(len(examples)), np.zeros(len(examples))
    for into, size in ((whole, 10**6), (parts, 30)):
        for chosen, part, seen in recent_parts(dataset, examples, 7, max_events=size):
            into[chosen] = model.predict(part, seen)[:, 0]
    assert len(list(recent_parts(dataset, examples, 7, max_events=30))) > 1
    np.testing.assert_allclose(parts, whole, atol=1e-9)


# choosing and measuring


@pytest.mark.parametrize("text", ["", "20,few", "0", "-3"])
def test_steps_that_are_no_numbers_of_events_are_refused(text):
    with pytest.raises(UsageError, match="--sweep"):
        parse_steps(text)


def test_steps_are_sorted_and_end_with_all():
    assert parse_steps("100, 20,100") == (20, 100, None)


def test_a_sweep_is_of_long_histories_and_the_same_examples_each_time(dataset):
    examples = dataset.examples("test")
    chosen = choose(examples, (10, 20, None), limit=30)
    assert chosen.at_least == 20
    assert len(chosen.place_N) == 30
    assert np.asarray(examples.position_N)[chosen.place_N].min() >= 20
    np.testing.assert_array_equal(choose(examples, (10, 20, None), limit=30).place_N, chosen.place_N)


def test_where_no_history_is_long_the_longer_half_is_taken(dataset):
    examples = dataset.examples("test")
    assert choose(examples, (1000, None), limit=10_000).at_least == int(np.median(examples.position_N))


def test_points_are_paired_with_all_events_and_scores_are_kept(dataset, tmp_path, monkeypatch):
    examples, model = dataset.examples("test"), made(dataset, "counts")
    run = Run(tmp_path / "counts-seed0", "counts", resamples=5)
    write_artifact(run.folder / "artifact", model, dataset, run={}, metrics={}, calibrator=None)
    run.do(dataset, progress=False)
    chosen = choose(examples, (5, None), limit=40)
    task = SweepTask(run, chosen, (5, None))
    assert not task.finished
    points = sweep(dataset, {"counts": task}, resamples=20)
    assert task.finished
    few = evaluate.predict(model, dataset, examples.take(chosen.place_N), recent=5)[:, 0]
    label = examples.label_NT[chosen.place_N, 0]
    assert [point.events for point in points] == [5, None]
    assert points[0].metrics["auc"].value == pytest.approx(metrics.auc(label, few))
    gap = points[0].metrics["auc"].value - points[1].metrics["auc"].value
    assert points[0].difference.value == pytest.approx(gap)
    assert points[1].difference is None
    monkeypatch.setattr(evaluate, "predict", None)
    assert sweep(dataset, {"counts": task}, resamples=20) == points
