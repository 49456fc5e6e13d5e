"""What tests of models share: inputs, and comparisons with naive transcriptions, in value and gradient."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lifelong.offline.data.batch import Batch
from lifelong.offline.models.base import HistoryModel, MemoryModel, Model, Query, Window
from lifelong.testing.worlds import random_batch

LENGTHS = (7, 0, 1, 5)


def naive_gru(layer: nn.GRU, x: Tensor, h: Tensor) -> Tensor:
    """z, r, h~, h' of the specification, for one user."""
    w_r, w_z, w_m = layer.weight_ih_l0.chunk(3)
    u_r, u_z, u_m = layer.weight_hh_l0.chunk(3)
    b_r, b_z, b_m = layer.bias_ih_l0.chunk(3)
    c_r, c_z, c_m = layer.bias_hh_l0.chunk(3)
    z = torch.sigmoid(-(w_z @ x + b_z + u_z @ h + c_z))
    r = torch.sigmoid(w_r @ x + b_r + u_r @ h + c_r)
    candidate = torch.tanh(w_m @ x + b_m + r * (u_m @ h + c_m))
    return (1 - z) * h + z * candidate


def rows_of(model: Model, batch: Batch, user: int, place: int) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    """A target's embeddings, field by field; those of its context; and those of each event before it, oldest first."""
    table, inputs = {field: part.weight for field, part in model.embed.tables.items()}, model.inputs
    events = [
        [table[f][batch.history_BLF[user, t, k]] for k, f in enumerate(model.history_fields) if f in table]
        for t in range(int(batch.position_BC[user, place]))
    ]
    target = [table[f][batch.target_BCF[user, place, k]] for k, f in enumerate(inputs.item)]
    return target, [table[f][batch.context_BCF[user, place, k]] for k, f in enumerate(inputs.context)], events


def inputs_of(model: HistoryModel, lengths: Sequence[int] = LENGTHS, *, targets: int = 3, seed: int = 0, size: int = 9):
    """A window and a query of random numbers, whose vectors take gradients; targets at all kinds of positions."""
    batch = random_batch(list(lengths), targets=targets, size=size, inputs=model.inputs, seed=seed)
    time_BL, moment_BC = 50 * batch.time_BL**2, 50 * batch.position_BC**2 + 3
    real_BL1 = (torch.arange(size) < batch.length_B[:, None])[..., None]
    event_BLE = model.embed(batch.history_BLF, model.history_fields).detach().masked_fill(~real_BL1, 0.0)
    target_BCE = model.embed(batch.target_BCF, model.item_fields).detach()
    window = Window(event_BLE.requires_grad_(), batch.history_BLF, time_BL, batch.length_B)
    return window, Query(target_BCE.requires_grad_(), batch.target_BCF, moment_BC, batch.position_BC)


def last_events(model: HistoryModel, query: Query, user: int, target: int) -> range:
    """Places of the events that a target may use."""
    position = int(query.position_BC[user, target])
    return range(max(0, position - model.recent), position)


def assert_naive_agrees(
    model: HistoryModel, naive: Callable[[Window, Query, int, int], Tensor], window: Window, query: Query
) -> None:
    """Interest and all gradients of `find` are those of `naive`, which gives the interest in one target of one user."""
    users, targets = query.position_BC.shape
    leaves = {"events": window.vector_BLE, "targets": query.vector_BCE, **dict(model.named_parameters())}
    found = model.find(window, query).interest_BCD
    rows = [torch.stack([naive(window, query, user, target) for target in range(targets)]) for user in range(users)]
    wanted = torch.stack(rows)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
    assert_gradients_agree(leaves, [found], [wanted], atol=1e-10)


def assert_memory_agrees(
    model: MemoryModel,
    naive: Callable[[list[Tensor], Tensor], dict[str, Tensor]],
    *,
    lengths: Sequence[int] = LENGTHS,
    atol: float = 1e-12,
) -> None:
    """Fields of a memory and what is read of it are those of `naive`, which has a user's events and a target.

    Args:
        model: in double precision.
        naive: gives fields by the beginning of their names, and `interest`; what it leaves out is not compared.
        lengths: of four histories.
        atol: of values and gradients.
    """
    generator, length_B, size = torch.Generator().manual_seed(0), torch.tensor(lengths), max(lengths) + 2
    event_BLE = torch.randn(4, size, model.event_width, generator=generator, dtype=torch.float64).requires_grad_()
    target_BCE = torch.randn(4, 2, model.target_width, generator=generator, dtype=torch.float64).requires_grad_()
    padding_BL1 = (torch.arange(size) >= length_B[:, None])[..., None]
    position_BC = torch.stack([length_B, length_B // 2], dim=1)
    memory = model.encode_vector(event_BLE.masked_fill(padding_BL1, math.nan), length_B, position_BC)
    fields = {name.partition("_")[0]: value for name, value in memory._asdict().items()}
    fields["interest"] = model.read_vector(memory, target_BCE)[0]
    rows = [
        naive(list(event_BLE[user, : position_BC[user, place]]), target_BCE[user, place])
        for user in range(4)
        for place in range(2)
    ]
    wanted = [torch.stack([row[name] for row in rows]) for name in rows[0]]
    found = [fields[name].flatten(0, 1) for name in rows[0]]
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=atol)
    body = {name: value for name, value in model.named_parameters() if not name.startswith(("embed.", "head."))}
    assert_gradients_agree({"events": event_BLE, "targets": target_BCE, **body}, found, wanted, atol=atol)


def assert_logits_agree(
    model: Model, batch: Batch, naive: Callable[[int, int], tuple[Tensor, Tensor]], *, decay: float = 0.0
) -> None:
    """Logits of real targets and the loss of decay are those of `naive`.

    Args:
        model: in double precision.
        batch: of any targets.
        naive: gives the logit of a user's target, by its place, and the squares of what it uses.
        decay: weight of the mean of the squares; 0 where there is no such loss.
    """
    output, scored = model(batch), [naive(*cell) for cell in batch.mask_BC.nonzero().tolist()]
    found = [output.logit_BCT[..., 0][batch.mask_BC], *output.aux_losses.values()]
    wanted = [torch.stack([logit for logit, _ in scored])]
    wanted += [decay * torch.stack([squares for _, squares in scored]).mean()] * bool(decay)
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)
    assert_gradients_agree(dict(model.named_parameters()), found, wanted, atol=1e-12)


def assert_gradients_agree(
    leaves: Mapping[str, Tensor], found: Sequence[Tensor], wanted: Sequence[Tensor], *, atol: float
) -> None:
    """Both have the same gradients of a random sum of their numbers."""
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(value.shape, generator=generator, dtype=value.dtype) for value in found]
    gradients = [
        torch.autograd.grad(
            sum((weight * value).sum() for weight, value in zip(weights, values, strict=True)),
            list(leaves.values()),
            allow_unused=True,
            materialize_grads=True,
        )
        for values in (found, wanted)
    ]
    for name, left, right in zip(leaves, *gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
