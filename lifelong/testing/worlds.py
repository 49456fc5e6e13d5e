"""Tiny worlds as batches, for tests of models alone: random inputs, and a world with a known answer.

The planted worlds that are prepared as logs are in `lifelong.offline.preparation.sources.worlds`.

Shapes: B users, L padded history length, C targets per user, F fields, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lifelong.dataset.events import InputSpec
from lifelong.dataset.scales import SCALES
from lifelong.offline.data.batch import Batch
from lifelong.offline.data.counts import count_input_names

INPUTS = InputSpec(
    item={"item": 30, "category": 6},
    event={"event_type": 4, "gap": 36},
    context={"gap": 36, "hour": 26, "weekday": 9},
    users=12,
)
"""A small log with every kind of field."""
CLOCK_INPUTS = replace(INPUTS, context={**INPUTS.context, **{field: scale.size for field, scale in SCALES.items()}})
"""The same, with the context fields on a scale, which a model reads if its settings say so."""


def random_batch(
    length_B: Sequence[int], *, targets: int, inputs: InputSpec = INPUTS, size: int | None = None, seed: int = 0
) -> Batch:
    """A batch of random numbers; each user's first target is at position 0, her last after all her events.

    Args:
        length_B: events of each user.
        targets: C, all of them real.
        inputs: the fields.
        size: padded length L, the longest history by default.
        seed: of everything drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = len(count_input_names(tuple(inputs.item), timed=inputs.timed))
    users, size = len(length_B), max(length_B) if size is None else size
    lengths = torch.tensor(length_B)
    history_BLF = _numbers({**inputs.item, **inputs.event}, (users, size), generator)
    real_BL = torch.arange(size) < lengths.unsqueeze(-1)
    position_BC = (torch.rand(users, targets, generator=generator) * (lengths.unsqueeze(-1) + 1)).long()
    # Both ends, where a mask that is wrong by one shows.
    position_BC[:, 0] = 0
    position_BC[:, -1] = lengths
    return Batch(
        history_BLF=history_BLF * real_BL.unsqueeze(-1),
        time_BL=torch.arange(size).expand(users, -1) * real_BL,
        length_B=lengths,
        # From 2 on: 0 is padding and 1 an unknown user.
        user_B=2 + torch.arange(users) % (inputs.users - 2),
        target_BCF=_numbers(inputs.item, (users, targets), generator),
        target_time_BC=position_BC.clone(),
        position_BC=position_BC,
        context_BCF=_numbers(inputs.context, (users, targets), generator),
        label_BCT=torch.randint(0, 2, (users, targets, len(inputs.tasks)), generator=generator).float(),
        mask_BC=torch.ones(users, targets, dtype=torch.bool),
        history_key_BLF=torch.zeros(users, size, 0, dtype=torch.int64),
        target_key_BCF=torch.zeros(users, targets, 0, dtype=torch.int64),
        example_BC=torch.arange(users * targets).view(users, targets),
        weight_BC=torch.ones(users, targets),
        count_BCK=3 * torch.rand(users, targets, counts, generator=generator),
    )


def loyal_batch(*, users: int, targets: int, seed: int, noise: bool = False) -> Batch:
    """Users who are loyal to one of four categories; a target is responded to iff it is of that category.

    Nine in ten events are of the user's own category. Half the targets are. A perfect model has AUC 1.

    Args:
        users: B.
        targets: C.
        seed: of everything drawn.
        noise: draw the labels by coin instead: nothing can be learnt, AUC 1/2.
    """
    batch = random_batch([24] * users, targets=targets, seed=seed)
    # Another seed than the batch's, whose draws would come again.
    generator = torch.Generator().manual_seed(seed + 1)
    loyal_B = torch.randint(2, 6, (users,), generator=generator)

    def categories(shape: tuple[int, ...], share: float) -> Tensor:
        own = torch.rand(shape, generator=generator) < share
        other = torch.randint(2, 6, shape, generator=generator)
        return torch.where(own, loyal_B.unsqueeze(-1), other)

    # The other draws are of all four categories: .87 and a quarter of the rest make nine in ten, 1/3 makes a half.
    batch.history_BLF[..., 1] = categories((users, 24), 0.87)
    batch.target_BCF[..., 1] = categories((users, targets), 1 / 3)
    batch.position_BC[:] = torch.randint(8, 25, (users, targets), generator=generator)
    if not noise:
        batch.label_BCT[:] = (batch.target_BCF[..., 1] == loyal_B.unsqueeze(-1)).float().unsqueeze(-1)
    return batch


def _numbers(sizes: dict[str, int], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random numbers, unknown (1) among them and padding (0) not: int64 `[*shape, F]`."""
    columns = [torch.randint(1, size, shape, generator=generator) for size in sizes.values()]
    return torch.stack(columns, dim=-1) if columns else torch.zeros(*shape, 0, dtype=torch.int64)
