"""How long ago a history model finds the target's own values, against a loop over the events."""

from dataclasses import replace

import pytest
import torch

from lifelong.dataset.scales import SINCE
from lifelong.errors import ConfigError
from lifelong.offline.data.batch import Batch
from lifelong.offline.models import build
from lifelong.offline.models.base import HistoryModel
from lifelong.testing.worlds import CLOCK_INPUTS, random_batch

CONTEXT = ["since.item", "hour", "since.category"]
LENGTHS = (40, 3, 0)


def model_of(name: str = "din", **settings: object) -> HistoryModel:
    torch.manual_seed(0)
    model = build(name, CLOCK_INPUTS, {"recent": 12, "context": CONTEXT, **settings})
    assert isinstance(model, HistoryModel)
    return model.double().eval()


def timed_batch(targets: int = 5) -> Batch:
    """Events seven seconds apart, two at each moment; a target a second behind the last event that it sees."""
    batch = random_batch(LENGTHS, targets=targets, inputs=CLOCK_INPUTS)
    time_BL = 1_600_000_000 + torch.arange(max(LENGTHS)) // 2 * 7
    return replace(
        batch,
        time_BL=time_BL.expand(len(LENGTHS), -1).contiguous(),
        target_time_BC=1_600_000_000 + batch.position_BC // 2 * 7 + 8,
    )


def naive(batch: Batch, user: int, target: int, column: int, recent: int) -> int | None:
    """Seconds since the last of the visible events that has the target's value."""
    number, end = int(batch.target_BCF[user, target, column]), int(batch.position_BC[user, target])
    for place in range(end - 1, max(0, end - recent) - 1, -1):
        if number > 1 and int(batch.history_BLF[user, place, column]) == number:
            return int(batch.target_time_BC[user, target] - batch.time_BL[user, place])
    return None


def test_it_is_the_last_visible_event_with_the_targets_value() -> None:
    model, batch = model_of(), timed_batch(targets=30)
    seconds_BCF, known_BCF = model.since(*model.window_of(batch))
    found = 0
    for user in range(len(LENGTHS)):
        for target in range(30):
            for column in range(2):
                wanted = naive(batch, user, target, column, recent=12)
                assert bool(known_BCF[user, target, column]) == (wanted is not None)
                if wanted is not None:
                    assert int(seconds_BCF[user, target, column]) == wanted
                    found += 1
    assert 10 < found < 100


def test_what_comes_later_changes_nothing() -> None:
    """A leak is planted: the event at each target's position, and all behind it, have the target's values."""
    model, batch = model_of(), timed_batch()
    clean = model(batch).logit_BCT
    for target in range(5):
        history_BLF = batch.history_BLF.clone()
        for user, position in enumerate(batch.position_BC[:, target].tolist()):
            history_BLF[user, position:, :2] = batch.target_BCF[user, target]
        leaked = model(replace(batch, history_BLF=history_BLF)).logit_BCT
        assert torch.equal(leaked[:, target], clean[:, target])


def test_a_longer_time_since_changes_the_logit_and_a_missing_value_is_no_time() -> None:
    model, batch = model_of(), timed_batch()
    later = replace(batch, target_time_BC=batch.target_time_BC + 5000)
    known_BC = model.since(*model.window_of(batch))[1].any(dim=-1)
    changed_BC = (model(batch).logit_BCT != model(later).logit_BCT).any(dim=-1)
    assert torch.equal(changed_BC, known_BC)
    assert known_BC.any() and not known_BC.all()


def test_vectors_of_values_are_those_of_the_levels_where_a_level_is_hit() -> None:
    vectors = model_of().since_list[0]
    gap = torch.tensor([0, 1, 3, 1023])
    level = torch.from_numpy(SINCE.numbers(gap.numpy(), gap.numpy() >= 0))
    known = torch.tensor([True, True, True, False])
    found = vectors.of_values(gap, known)
    assert torch.allclose(found[:3], vectors(level[:3]), atol=1e-6)
    assert torch.allclose(found[3], vectors(torch.tensor(1)), atol=1e-6)


@pytest.mark.parametrize("name", ["hpmn", "tally", "dnn"])
def test_a_model_that_keeps_no_events_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match=r"keeps no events to look up 'since.item' in \(these do: caser, .*, twin\)"):
        build(name, CLOCK_INPUTS, {"context": ["since.item"]})


def test_a_field_that_items_lack_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no context field 'since.brand' .*since_event, since.item, since.category"):
        build("din", CLOCK_INPUTS, {"context": ["since.brand"]})


@pytest.mark.parametrize("length", [0, 4])
def test_a_user_without_events_has_finite_logits_and_gradients(length: int) -> None:
    model, batch = model_of(), random_batch([0, 0], targets=3, inputs=CLOCK_INPUTS, size=length)
    logit_BCT = model(batch).logit_BCT
    logit_BCT.sum().backward()
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    assert logit_BCT.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)
