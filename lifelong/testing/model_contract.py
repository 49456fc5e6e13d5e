"""What every registered model must do, as plain functions: import them to test your own.

    @pytest.mark.parametrize("check", checks_for(case), ids=lambda check: check.__name__)
    def test_contract(check): check(case)

A check takes a `ModelCase` and raises AssertionError. Models are checked in float64, so that tolerances can be tight.
A check that does not apply to a model is a named entry in `NOT_APPLICABLE`, with its reason.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.dataset.scales import NUMBER, SCALES
from lifelong.offline.data.batch import TENSORS, Batch
from lifelong.offline.data.cooccurrence import GROUPS, group_of
from lifelong.offline.evaluation.metrics import auc
from lifelong.offline.models import build
from lifelong.offline.models.base import Event, FittedModel, History, HistoryModel, MemoryModel, Model, Output
from lifelong.offline.nn.embeddings import FieldEmbedding
from lifelong.testing.case import Check as Check
from lifelong.testing.case import ModelCase as ModelCase
from lifelong.testing.case import checks_in
from lifelong.testing.fitted_contract import FITTED_CHECKS
from lifelong.testing.worlds import CLOCK_INPUTS, INPUTS, loyal_batch, random_batch

TIGHT = 1e-10
"""Of float64 sums in another order."""
LENGTHS = (70, 3, 0, 33, 1)
"""Histories of one batch: longer than the largest default period, short, empty."""
STATE_LIMIT = 4096
"""Numbers per user at most, with default settings."""

NOT_APPLICABLE: dict[tuple[str, str], str] = {
    **{
        ("hpmn-authors_mode", check): "the authors' graph has no context features"
        for check in ("check_context_is_used", "check_context_can_be_chosen")
    },
    ("mf", "check_earlier_events_are_used"): "it knows a user by her number alone and reads no history",
    ("mf", "check_earlier_events_of_the_target_are_used"): "it knows a user by her number alone and reads no history",
    **{
        (name, "check_earlier_events_are_used"): "its search finds nothing in a history that has nothing of the target"
        for name in ("sim", "sim-cluster", "ubr4ctr")
    },
    (
        "sim-cluster",
        "check_groups_are_trained_with_embeddings_of_their_own",
    ): "its centroids begin among all users' items",
    ("recanet", "check_earlier_events_are_used"): "it looks for events of the target's own item alone",
    ("recanet", "check_learns_a_tiny_world"): "the world's answer is in the categories, and it looks at items alone",
    ("mf", "check_learns_a_tiny_world"): "the world's answer is in the history, and its users are new in every batch",
}


def checks_for(case: ModelCase) -> list[Check]:
    """The checks that apply to a model."""
    if issubclass(case.entry, FittedModel):
        return [*DESCRIPTION_CHECKS, *FITTED_CHECKS]
    checks = [*DESCRIPTION_CHECKS, *MODEL_CHECKS]
    if issubclass(case.entry, MemoryModel):
        checks += MEMORY_CHECKS
    return [check for check in checks if (str(case), check.__name__) not in NOT_APPLICABLE]


# Description


def check_settings_are_described(case: ModelCase) -> None:
    """Config is a frozen dataclass with plain JSON values, and each field has a help text."""
    config = case.entry.Config
    assert is_dataclass(config), f"{config} is not a dataclass"
    assert hash(config()) == hash(config()), f"{config} is not frozen"
    for setting in fields(config):
        assert setting.metadata.get("help"), f"{setting.name} has no help text"
    json.dumps(asdict(config()))


def check_model_says_what_it_is(case: ModelCase) -> None:
    """Title, source, state and a docstring."""
    for text in (case.entry.title, case.entry.source, case.entry.state, case.entry.__doc__):
        assert text and text.strip()


DESCRIPTION_CHECKS = checks_in(globals())

# Every model that is trained by gradient


def check_one_user_equals_batch(case: ModelCase) -> None:
    """A user's logits do not depend on who else is in the batch, nor on how far it is padded."""
    # Padded further than any history, where a mask that goes by the shape gives itself away.
    model, batch = case.build(), random_batch(LENGTHS, targets=5, size=80)
    whole = model(batch).logit_BCT
    for user, length in enumerate(LENGTHS):
        alone = model(_trim(_take_users(batch, slice(user, user + 1)), length)).logit_BCT
        _assert_near(alone[0], whole[user], f"user {user} of length {length}")


def check_one_target_equals_many(case: ModelCase) -> None:
    """A target's logit does not depend on which other targets are asked about."""
    model, batch = case.build(), random_batch(LENGTHS, targets=5)
    whole = model(batch).logit_BCT
    for target in range(5):
        alone = model(_take_targets(batch, torch.tensor([target]))).logit_BCT
        _assert_near(alone[:, 0], whole[:, target], f"target {target}")


def check_permuted_targets_permute_logits(case: ModelCase) -> None:
    """The order of targets carries nothing."""
    model, batch = case.build(), random_batch(LENGTHS, targets=5)
    order = torch.tensor([3, 0, 4, 2, 1])
    _assert_near(model(_take_targets(batch, order)).logit_BCT, model(batch).logit_BCT[:, order], "permuted targets")


def check_padding_numbers_change_nothing(case: ModelCase) -> None:
    """Whatever numbers and times are in padded places, of histories and of targets."""
    model, batch = case.build(), random_batch(LENGTHS, targets=5, size=80)
    batch.mask_BC[:, 3] = False
    garbage, real_BL = random_batch([80] * len(LENGTHS), targets=5, seed=9), _real_events(batch)
    dirty = replace(
        batch,
        history_BLF=torch.where(real_BL.unsqueeze(-1), batch.history_BLF, garbage.history_BLF),
        # So long ago that a gap or an age from there would be seen in every logit.
        time_BL=torch.where(real_BL, batch.time_BL, -(2**40)),
        target_BCF=torch.where(batch.mask_BC.unsqueeze(-1), batch.target_BCF, garbage.target_BCF),
        position_BC=torch.where(batch.mask_BC, batch.position_BC, 0),
        label_BCT=torch.where(batch.mask_BC.unsqueeze(-1), batch.label_BCT, 1 - batch.label_BCT),
        count_BCK=torch.where(batch.mask_BC.unsqueeze(-1), batch.count_BCK, -1e6),
    )
    clean_run, dirty_run = _run(model, batch), _run(model, dirty)
    _assert_near(dirty_run.logit, clean_run.logit, "logits")
    _assert_same_gradients(dirty_run, clean_run)


def check_padding_vectors_change_nothing(case: ModelCase) -> None:
    """With NaN for the vector of padding: the same logits and the same gradients."""
    model, batch = case.build(), random_batch(LENGTHS, targets=5, size=80)
    clean_run = _run(model, batch)
    with torch.no_grad():
        for embed in (module for module in model.modules() if isinstance(module, FieldEmbedding)):
            for table in embed.tables.values():
                table.weight[0] = float("nan")
    dirty_run = _run(model, batch)
    _assert_near(dirty_run.logit, clean_run.logit, "logits")
    _assert_same_gradients(dirty_run, clean_run)


def check_later_events_change_nothing(case: ModelCase) -> None:
    """What happens at or after a target's position does not reach its logit."""
    model, batch = case.build(), random_batch(LENGTHS, targets=5)
    other = random_batch(LENGTHS, targets=5, seed=9)
    whole, place_L = model(batch).logit_BCT, torch.arange(max(LENGTHS))
    for target in range(5):
        before_BL = place_L < batch.position_BC[:, target, None]
        history_BLF = torch.where(before_BL.unsqueeze(-1), batch.history_BLF, other.history_BLF)
        changed = model(replace(batch, history_BLF=history_BLF)).logit_BCT
        _assert_near(changed[:, target], whole[:, target], f"target {target}")


def check_earlier_events_are_used(case: ModelCase) -> None:
    """The last event before a target changes its logit."""
    model, batch = case.build(), random_batch([12], targets=2)
    changed = batch.history_BLF.clone()
    # Always another number, and one from 1 to 3, which every field has.
    changed[:, 11] = changed[:, 11] % 3 + 1
    logit, other = model(batch).logit_BCT, model(replace(batch, history_BLF=changed)).logit_BCT
    assert not torch.equal(logit[:, -1], other[:, -1]), "the history is not read"


def check_earlier_events_of_the_target_are_used(case: ModelCase) -> None:
    """The last event changes a target's logit when it becomes one of the target's own item."""
    model, batch = case.build(), random_batch([12], targets=2)
    changed = batch.history_BLF.clone()
    changed[:, 11, : batch.target_BCF.shape[-1]] = batch.target_BCF[:, -1]
    logit, other = model(batch).logit_BCT, model(replace(batch, history_BLF=changed)).logit_BCT
    assert not torch.equal(logit[:, -1], other[:, -1]), "the history is not read"


def check_target_is_used(case: ModelCase) -> None:
    """Another item has another logit."""
    model, batch = case.build(), random_batch([12], targets=2)
    other = model(replace(batch, target_BCF=batch.target_BCF % 3 + 1)).logit_BCT
    assert not torch.equal(model(batch).logit_BCT, other), "the target is not read"


def check_context_is_used(case: ModelCase) -> None:
    """Another hour has another logit."""
    model, batch = case.build(), random_batch([12], targets=2)
    other = model(replace(batch, context_BCF=batch.context_BCF % 3 + 1)).logit_BCT
    assert not torch.equal(model(batch).logit_BCT, other), "the context is not read"


def check_context_can_be_chosen(case: ModelCase) -> None:
    """With `model.context` a model reads the fields that are named, those on a scale too, and no others."""
    model = replace(case, config={**case.config, "context": [*SCALES, "hour"]}).build(inputs=CLOCK_INPUTS)
    batch = random_batch([12], targets=2, inputs=CLOCK_INPUTS)
    logit = model(batch).logit_BCT
    for column, name in enumerate(CLOCK_INPUTS.context):
        context_BCF = batch.context_BCF.clone()
        context_BCF[..., column] = context_BCF[..., column] % 3 + 1
        other = model(replace(batch, context_BCF=context_BCF)).logit_BCT
        assert torch.equal(logit, other) == (name in ("gap", "weekday")), f"{name} of the context"


def check_item_fields_that_are_numbers_work(case: ModelCase) -> None:
    """A price, say: near prices have near logits, and it is one of the target's fields as any other."""
    inputs = replace(INPUTS, item={**INPUTS.item, "price": NUMBER.size}, numbers=("price",))
    model, batch = case.build(inputs=inputs), random_batch(LENGTHS, targets=5, inputs=inputs)
    logits = []
    for level in (40, 41, 130):
        target_BCF = batch.target_BCF.clone()
        target_BCF[..., -1] = level
        logits.append(model(replace(batch, target_BCF=target_BCF)).logit_BCT)
    first, near, far = logits
    assert bool(first.isfinite().all())
    assert 0 < float((first - near).detach().abs().mean()) < float((first - far).detach().abs().mean())


def check_empty_histories_work(case: ModelCase) -> None:
    """No event at all, as padding and as a batch of length 0: finite logits and gradients, the same."""
    model = case.build()
    padded = random_batch([0, 0], targets=3, size=4)
    runs = [_run(model, batch) for batch in (padded, _trim(padded, 0))]
    for run in runs:
        assert bool(run.logit.isfinite().all()), "a logit is not finite"
        assert all(bool(gradient.isfinite().all()) for gradient in run.gradients.values()), "a gradient is not finite"
    _assert_near(runs[0].logit, runs[1].logit, "logits")


def check_unknown_numbers_work(case: ModelCase) -> None:
    """Unknown (1) in every field of history, target and context: finite logits."""
    model, batch = case.build(), random_batch([12, 40], targets=3)
    unknown = replace(
        batch,
        history_BLF=batch.history_BLF.clamp(max=1),
        target_BCF=batch.target_BCF.clamp(max=1),
        context_BCF=batch.context_BCF.clamp(max=1),
        user_B=torch.ones_like(batch.user_B),
    )
    assert bool(model(unknown).logit_BCT.isfinite().all())


def check_long_histories_work(case: ModelCase) -> None:
    """A history far longer than any in training: finite logits of the usual size."""
    model = case.build()
    usual, largest = (
        float(model(random_batch([length], targets=5)).logit_BCT.detach().abs().max()) for length in (100, 3000)
    )
    assert largest < 10 * usual + 1, f"logit {largest} after 3,000 events, {usual} after 100"


def check_every_parameter_is_trained(case: ModelCase) -> None:
    """Each parameter gets a finite gradient that is not zero."""
    model = case.build(inputs=replace(INPUTS, event=_used_events(case), context=_used_context(case)))
    run = _run(model, random_batch([70, 70], targets=8, inputs=model.inputs))
    for name, parameter in model.named_parameters():
        assert name in run.gradients, f"{name} takes no part"
        gradient = run.gradients[name]
        assert gradient.shape == parameter.shape and bool(gradient.isfinite().all()), f"{name}: not finite"
        # A constant added to all scores of a softmax changes nothing: the gradient of such a bias is 0.
        assert bool(gradient.any()) or parameter.numel() == 1, f"{name}: gradient 0"


def check_seed_decides_everything(case: ModelCase) -> None:
    """The same seed gives the same weights, and in training mode the same dropout."""
    batch, logits = random_batch(LENGTHS, targets=5), []
    for _ in range(2):
        model = case.build(seed=3).train()
        torch.manual_seed(5)
        logits.append(model(batch).logit_BCT)
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], case.build(seed=4).train()(batch).logit_BCT), "the seed changes nothing"


def check_groups_are_trained_with_embeddings_of_their_own(case: ModelCase) -> None:
    """With `begin_with(whole, apart)` each group's users are trained as with their vectors, and served with `whole`.

    A model with a `forward` of its own passes the users' numbers to its embeddings: `self.embed(..., user=...)`.
    """
    if not case.build().vector_spread:
        return
    batch, generator = random_batch((40, 40, 30, 20), targets=5), torch.Generator().manual_seed(0)
    # Quarters, so that differences are exact in half precision.
    drawn = [
        {
            field: (torch.randn(size, case.build().vector_width, generator=generator) * 4).round().numpy() / 4
            for field, size in INPUTS.item.items()
        }
        for _ in range(GROUPS + 1)
    ]
    whole, *apart = drawn

    def logits(*vectors: Any, train: bool) -> Tensor:
        model = case.build()
        model.begin_with(*vectors)
        # The same units are dropped.
        torch.manual_seed(0)
        logit_BCT: Tensor = model.train(train)(batch).logit_BCT.detach()
        return logit_BCT

    _assert_near(logits(whole, apart, train=False), logits(whole, train=False), "a served target")
    trained, other = logits(whole, apart, train=True), logits(whole, train=True)
    for group in range(GROUPS):
        own, mine_B = logits(apart[group], train=True), group_of(batch.user_B) == group
        _assert_near(trained[mine_B], own[mine_B], f"a target of group {group}", tolerance=1e-3)
        assert not torch.allclose(trained[mine_B], other[mine_B], atol=1e-2), f"group {group} is trained as all are"


def check_evaluation_is_repeatable(case: ModelCase) -> None:
    """In evaluation mode nothing is drawn, and the batch is not touched."""
    model, batch = case.build(), random_batch(LENGTHS, targets=5)
    before = {name: getattr(batch, name).clone() for name in TENSORS}
    assert torch.equal(model(batch).logit_BCT, model(batch).logit_BCT)
    for name, value in before.items():
        assert torch.equal(value, getattr(batch, name)), f"{name} was changed"


def check_weights_round_trip(case: ModelCase) -> None:
    """A fresh model with the saved weights gives the same logits."""
    model, other, batch = case.build(seed=1), case.build(seed=2), random_batch(LENGTHS, targets=5)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(batch).logit_BCT, model(batch).logit_BCT)


def check_single_precision_is_enough(case: ModelCase) -> None:
    """float32 logits are within 1e-4 of float64."""
    model, batch = case.build(), random_batch([300, 40], targets=5)
    double = model(batch).logit_BCT
    single = model.float()(batch).logit_BCT
    assert single.dtype == torch.float32
    assert float((single - double).detach().abs().max()) < 1e-4


def check_one_logit_per_task(case: ModelCase) -> None:
    """Two tasks: two logits, which differ."""
    inputs = replace(INPUTS, tasks=("click", "buy"))
    logit = case.build(inputs=inputs)(random_batch([5, 9], targets=3, inputs=inputs)).logit_BCT
    assert logit.shape == (2, 3, 2) and not torch.equal(logit[..., 0], logit[..., 1])


def check_auxiliary_losses_are_scalars(case: ModelCase) -> None:
    """Each auxiliary loss is one finite number, also where no target is real."""
    batch = random_batch(LENGTHS, targets=5)
    for mask in (batch.mask_BC, torch.zeros_like(batch.mask_BC)):
        for name, loss in case.build()(replace(batch, mask_BC=mask)).aux_losses.items():
            assert loss.shape == () and bool(loss.isfinite()), f"{name}: {loss}"


def check_attention_is_a_distribution(case: ModelCase) -> None:
    """Where a model has attention, unless it is free: weights of at least 0 that sum to 1, or all 0 without events."""
    model = case.build()
    attention = model(random_batch(LENGTHS, targets=5)).attention_BCS
    if attention is not None and not (isinstance(model, HistoryModel) and model.free_weights):
        total = attention.sum(dim=-1)
        assert bool((attention >= 0).all())
        assert bool(((total - 1).abs().lt(TIGHT) | total.eq(0)).all())


def check_attention_is_of_events_that_the_target_sees(case: ModelCase) -> None:
    """Where a model attends to events: nothing but those before the target has a weight, and no weight is lost."""
    model, batch = case.build(), random_batch(LENGTHS, targets=5)
    if not isinstance(model, HistoryModel):
        return
    found, size = model.find(*model.window_of(batch)), max(LENGTHS)
    attention_BCL = found.attention_over(size)
    if found.attention_BCS is not None and attention_BCL is not None:
        seen_BCL = torch.arange(size) < batch.position_BC.unsqueeze(-1)
        assert attention_BCL.shape == seen_BCL.shape
        assert not bool(attention_BCL[~seen_BCL].any()), "an event that the target does not see has a weight"
        _assert_near(attention_BCL.sum(dim=-1), found.attention_BCS.sum(dim=-1), "sum of the weights")


def check_learns_a_tiny_world(case: ModelCase) -> None:
    """AUC above .9 on new users of a world where users are loyal to a category."""
    auc = _train_on_world(case, noise=False, steps=300)
    assert auc > 0.9, f"AUC {auc:.3f}"


def check_learns_nothing_from_noise(case: ModelCase) -> None:
    """AUC near one half on new users where labels are coin flips: a model that sees labels knows them soon."""
    auc = _train_on_world(case, noise=True, steps=60)
    assert abs(auc - 0.5) < 0.06, f"AUC {auc:.3f}"


MODEL_CHECKS = checks_in(globals(), DESCRIPTION_CHECKS)

# Models with a memory


def check_encode_equals_folded_writes(case: ModelCase) -> None:
    """The law: memory at every position, by one pass and by one write after another; values and gradients."""
    model, batch = case.build_memory(), random_batch([70, 70, 70], targets=2)
    every_BC = torch.arange(71).expand(3, -1)
    generator = torch.Generator().manual_seed(0)
    encoded = model.encode(History(batch.history_BLF, batch.time_BL, batch.length_B), every_BC)
    folded = _fold(model, batch)
    # A random weight for each number: in a plain sum, errors of opposite signs would cancel.
    weights = [torch.rand(value.shape, generator=generator) for value in _floats(encoded)]
    leaves = list(model.parameters())
    gradients = []
    for memory in (encoded, folded):
        loss = sum((weight * value).sum() for weight, value in zip(weights, _floats(memory), strict=True))
        assert isinstance(loss, Tensor)
        gradients.append(torch.autograd.grad(loss, leaves, allow_unused=True))
    assert torch.equal(encoded.count_B, folded.count_B)
    for left, right in zip(_floats(encoded), _floats(folded), strict=True):
        _assert_near(left, right, "memory")
    for left, right in zip(*gradients, strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            # Both ways add up 70 steps, but not in the same order.
            _assert_near(left, right, "gradient", tolerance=1e-8)


def check_write_embeds_the_event(case: ModelCase) -> None:
    """`write` with numbers and `encode` with numbers agree."""
    model, batch = case.build_memory(), random_batch([9, 9], targets=2)
    memory = model.initial_memory(2)
    for step in range(9):
        memory = model.write(memory, Event(batch.history_BLF[:, step], batch.time_BL[:, step]))
    history = History(batch.history_BLF, batch.time_BL, batch.length_B)
    encoded = model.encode(history, batch.length_B.unsqueeze(-1))
    for left, right in zip(_floats(memory), _floats(encoded), strict=True):
        _assert_near(left, right[:, 0], "memory")


def check_memory_is_a_tuple_of_user_rows(case: ModelCase) -> None:
    """A NamedTuple: int64 count first, then floats or small whole numbers, a row per user; a new memory counts 0."""
    model = case.build_memory()
    memory = model.initial_memory(3)
    assert next(iter(memory._asdict())) == "count_B"
    assert memory.count_B.dtype == torch.int64 and memory.count_B.tolist() == [0, 0, 0]
    kinds = [value.is_floating_point() or value.dtype in (torch.int16, torch.int32) for value in _floats(memory)]
    assert all(kinds) and all(len(value) == 3 for value in _floats(memory))


def check_memory_is_bounded(case: ModelCase) -> None:
    """The memory has one small size whatever the history, and its numbers do not grow, except for whole seconds."""
    model = case.build_memory()
    sizes, largest = [], []
    for length in (0, 10, 3000):
        batch = random_batch([length], targets=1)
        history = History(batch.history_BLF, batch.time_BL, batch.length_B)
        memory = model.encode(history, batch.length_B.unsqueeze(-1))
        sizes.append(sum(value[0, 0].numel() for value in _floats(memory)))
        grows = [value.detach() for value in _floats(memory) if value.dtype != torch.int32]
        largest.append(max(float(value.abs().max()) for value in grows))
    assert sizes == [sizes[0]] * 3 and sizes[0] <= STATE_LIMIT, f"numbers per user: {sizes}"
    assert largest[2] < 10 * largest[1] + 1, f"largest number after 0, 10, 3000 events: {largest}"


def check_reading_changes_nothing(case: ModelCase) -> None:
    """A read gives the same twice and leaves the memory as it was."""
    model, batch, memory = _memory_after(case)
    before = [value.clone() for value in memory]
    target = model.targets(batch)
    first, second = model.respond(memory, target)[0], model.respond(memory, target)[0]
    assert torch.equal(first, second)
    assert all(torch.equal(left, right) for left, right in zip(before, memory, strict=True))


def check_writing_leaves_the_old_memory(case: ModelCase) -> None:
    """A write returns a new memory and does not touch the old one."""
    model = case.build_memory()
    batch = random_batch([4, 4], targets=1)
    memory = model.initial_memory(2)
    before = [value.clone() for value in memory]
    model.write(memory, Event(batch.history_BLF[:, 0], batch.time_BL[:, 0]))
    assert all(torch.equal(left, right) for left, right in zip(before, memory, strict=True))


def check_one_memory_serves_many_targets(case: ModelCase) -> None:
    """A memory `[B, 1, ...]` read with C targets = C copies of it, each read with its own."""
    model, batch, memory = _memory_after(case)
    target = model.targets(batch)
    copies = type(memory)(*(value.expand(-1, 5, *value.shape[2:]) for value in memory))
    shared, copied = model.read(memory, target), model.read(copies, target)
    _assert_near(shared[0], copied[0], "interest")
    if shared[1] is not None and copied[1] is not None:
        _assert_near(shared[1], copied[1], "attention")


def check_users_do_not_mix(case: ModelCase) -> None:
    """Users with different counts in one write: each as if she were alone."""
    model, batch = case.build_memory(), random_batch([40, 40], targets=1)
    history = History(batch.history_BLF, batch.time_BL, batch.length_B)
    encoded = model.encode(history, torch.tensor([[3], [31]]))
    memory = type(encoded)(*(value[:, 0] for value in encoded))
    # The fourth and the 32nd event: slots with a period of 8 are due for one of the users alone.
    event = Event(batch.history_BLF[[0, 1], [3, 31]], batch.time_BL[[0, 1], [3, 31]])
    both = model.write(memory, event)
    for user in range(2):
        rows = slice(user, user + 1)
        alone = model.write(
            type(memory)(*(value[rows] for value in memory)), Event(event.number_BF[rows], event.time_B[rows])
        )
        assert int(both.count_B[user]) == [4, 32][user]
        for left, right in zip(_floats(alone), _floats(both), strict=True):
            _assert_near(left[0], right[user], f"user {user}")


def check_forward_reads_the_memory(case: ModelCase) -> None:
    """`forward` = `encode`, then `respond`."""
    model, batch = case.build_memory(), random_batch(LENGTHS, targets=5)
    memory = model.encode(History(batch.history_BLF, batch.time_BL, batch.length_B), batch.position_BC)
    target = model.targets(batch)
    logit_BCT, _ = model.respond(memory, target)
    _assert_near(model(batch).logit_BCT, logit_BCT, "logits")


MEMORY_CHECKS = checks_in(globals(), DESCRIPTION_CHECKS, MODEL_CHECKS)


@dataclass(frozen=True)
class _Run:
    logit: Tensor
    gradients: dict[str, Tensor]


def _run(model: Model, batch: Batch) -> _Run:
    """Logits of real targets, and the gradients of the whole loss."""
    model.zero_grad()
    output = model(batch)
    logit = output.logit_BCT[batch.mask_BC]
    torch.autograd.backward(_whole_loss(output, batch.label_BCT.to(logit.dtype), batch.mask_BC))
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return _Run(logit.detach(), gradients)


def _whole_loss(output: Output, label_BCT: Tensor, mask_BC: Tensor) -> Tensor:
    """What a step learns from: of real targets the cross entropy of each logit that learns, and auxiliary losses."""
    each = [binary_cross_entropy_with_logits(logit[mask_BC], label_BCT[mask_BC]) for logit in output.learned_BCT]
    return sum(output.aux_losses.values(), torch.stack(each).sum())


def _train_on_world(case: ModelCase, *, noise: bool, steps: int) -> float:
    """AUC on new users after some small steps; as soon as it is above .9, no more of them."""
    torch.manual_seed(0)
    model = build(case.name, INPUTS, {**case.config, "dropout": 0.0})
    assert isinstance(model, Model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    fresh, measured = loyal_batch(users=400, targets=4, seed=10_001, noise=noise), 0.0
    for step in range(1, steps + 1):
        # A batch uses its seed and the next one, so seeds go in steps of two; those of the new users are far away.
        batch = loyal_batch(users=32, targets=4, seed=2 * step, noise=noise)
        output = model.train()(batch)
        optimizer.zero_grad()
        torch.autograd.backward(_whole_loss(output, batch.label_BCT, batch.mask_BC))
        optimizer.step()
        # Now and then alone: most models know the world long before the last step.
        if step % 30 == 0:
            with torch.no_grad():
                logit = model.eval()(fresh).logit_BCT
            measured = auc(fresh.label_BCT.flatten().numpy(), logit.flatten().numpy())
            if measured > 0.9:
                break
    return measured


def _fold(model: MemoryModel, batch: Batch) -> Any:
    """Memory after 0, 1, 2, ... events, written one by one, as `encode` gives it."""
    memory = model.initial_memory(len(batch.length_B))
    steps = [memory]
    for step in range(batch.history_BLF.shape[1]):
        memory = model.write(memory, Event(batch.history_BLF[:, step], batch.time_BL[:, step]))
        steps.append(memory)
    return type(memory)(*(torch.stack(parts, dim=1) for parts in zip(*steps, strict=True)))


def _memory_after(case: ModelCase) -> tuple[MemoryModel, Batch, Any]:
    """A model, a batch, and the memory `[B, 1, ...]` after all events."""
    model, batch = case.build_memory(), random_batch(LENGTHS, targets=5)
    history = History(batch.history_BLF, batch.time_BL, batch.length_B)
    return model, batch, model.encode(history, batch.length_B.unsqueeze(-1))


def _floats(memory: Any) -> list[Tensor]:
    return list(memory)[1:]


def _used_events(case: ModelCase) -> dict[str, int]:
    """Event fields, none for a model that does not look at them."""
    return {} if case.config.get("authors_mode") else INPUTS.event


def _used_context(case: ModelCase) -> dict[str, int]:
    return {} if (str(case), "check_context_is_used") in NOT_APPLICABLE else INPUTS.context


def _real_events(batch: Batch) -> Tensor:
    return torch.arange(batch.history_BLF.shape[1]) < batch.length_B.unsqueeze(-1)


def _take_users(batch: Batch, part: slice) -> Batch:
    return Batch(**{name: getattr(batch, name)[part] for name in TENSORS})


def _take_targets(batch: Batch, chosen: Tensor) -> Batch:
    names = [name for name in TENSORS if name.split("_")[-1].startswith("BC")]
    return replace(batch, **{name: getattr(batch, name)[:, chosen] for name in names})


def _trim(batch: Batch, length: int) -> Batch:
    return replace(batch, history_BLF=batch.history_BLF[:, :length], time_BL=batch.time_BL[:, :length])


def _assert_near(left: Tensor, right: Tensor, what: str, *, tolerance: float = TIGHT) -> None:
    difference = float((left - right).detach().abs().max()) if left.numel() else 0.0
    assert difference <= tolerance, f"{what}: differ by {difference:.3g}, at most {tolerance:.0e} is allowed"


def _assert_same_gradients(left: _Run, right: _Run) -> None:
    assert left.gradients.keys() == right.gradients.keys()
    for name, gradient in left.gradients.items():
        _assert_near(gradient, right.gradients[name], f"gradient of {name}", tolerance=1e-9)
