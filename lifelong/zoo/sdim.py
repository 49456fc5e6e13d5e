"""SDIM: sums of the events in the hash buckets of the target.

Cao et al., "Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction", CIKM 2022.

    event  --item vector--> G groups of t hash bits --> adds its value to one of the 2^t buckets of each group     write
    target --item vector--> G groups of t hash bits --> mean over groups of (bucket / length of bucket)            read

Equations: signatures from m = G t random hyperplanes (5, 7), groups of t bits (8, 11), the sum of the values that share
the target's bucket, scaled to length 1 (9), and the mean of these over groups (12). An event at angle a to the target
is in its bucket with probability (1 - a / pi)^t, so the mean over groups is an attention by angle without computing
weights. The hyperplanes are drawn once, stored with the weights and never trained.

Differs from the paper: only the item fields are hashed, which events and targets share, so that both are in one space.
A linear projection of the whole event is summed, so the state does not grow with the number of fields. The paper's
short-term part, attention to the last events, is optional (`short`). The state holds the sums divided by the number of
all events. This keeps the numbers bounded; the factor cancels in the read.

State: the sums, G 2^t D numbers: 4,096 numbers, 16,384 bytes, by default, with the paper's m = 48 and t = 3; apart
from the common divisor, an event changes one bucket per group, so an update is O(1) and sums of parts of a history can
be added. With `short` the state has 64 more numbers for each of the last events.

Training reads only the buckets of the targets: events are sorted by bucket and summed cumulatively, and a bucket is the
difference of two running sums.

Shapes: B users, L padded history length, C targets per user, E width of a vector, G groups, K buckets of a group,
D width of a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pad

from lifelong.offline.models.base import Batch, CommonSettings, InputSpec, MemoryModel, Output, setting
from lifelong.offline.nn.masks import clear_padding
from lifelong.offline.nn.short_term import SHORT_WIDTH, ShortTerm
from lifelong.offline.nn.windows import recent_events
from lifelong.zoo.layers.hashing import bucket_ids, hyperplanes, signature


@dataclass(frozen=True)
class SdimConfig(CommonSettings):
    """Settings of `sdim`."""

    width: PositiveInt = setting(32, "width of a value, and of the interest")
    groups: PositiveInt = setting(16, "groups of hash bits")
    bits: Annotated[int, Field(gt=0, le=10)] = setting(
        3, "bits of a group, which has 2^bits buckets; more find fewer, nearer events"
    )
    short: NonNegativeInt = setting(0, "last events with an attention of their own, the short term; 0 for none")


class SdimMemory(NamedTuple):
    """Sum of the values in each bucket, divided by the number of all events; zeros before the first."""

    count_B: Tensor
    mean_BGKD: Tensor


class SdimShortMemory(NamedTuple):
    """`SdimMemory` with keys and values of the last events, the latest last; zeros where there is none.

    Means are called otherwise, since the graph of this read has an operator of that name.
    """

    count_B: Tensor
    bucket_BGKD: Tensor
    recent_BNX: Tensor


class Sdim(MemoryModel[Any]):
    """Attention by hashing, read from sums."""

    Config = SdimConfig
    title = "SDIM"
    source = "Cao et al., CIKM 2022"
    state = "bucket sums"
    plane_RE: Tensor

    def __init__(self, inputs: InputSpec, config: SdimConfig) -> None:
        interest = config.width + (SHORT_WIDTH if config.short else 0)
        super().__init__(inputs, embedding=config.embedding, interest=interest, dropout=config.dropout)
        self.config: SdimConfig = config
        self.buckets: int = 2**config.bits
        self.register_buffer("plane_RE", hyperplanes(config.groups * config.bits, self.target_width))
        self.value: nn.Linear = nn.Linear(self.event_width, config.width, bias=False)
        self.short_term: ShortTerm | None = (
            ShortTerm(self.target_width, self.event_width, size=config.short) if config.short else None
        )
        sums = (config.groups, self.buckets, config.width)
        if self.short_term is None:
            self.remember(SdimMemory, sums)
        else:
            self.remember(SdimShortMemory, sums, (self.short_term.size, 2 * self.short_term.width))

    def write_vector(self, memory: Any, event_BE: Tensor) -> Any:
        """Add the event's value to its bucket of each group, and divide by one event more."""
        count_B = memory.count_B + 1
        bucket_BGK = self._bucket(event_BE).unsqueeze(-1) == torch.arange(self.buckets, device=event_BE.device)
        value_BGKD = bucket_BGK.unsqueeze(-1) * self.value(event_BE)[:, None, None]
        before_BGKD = memory[1]
        step_BGKD = (value_BGKD - before_BGKD) / count_B[:, None, None, None].to(event_BE.dtype)
        mean_BGKD = before_BGKD + step_BGKD
        if self.short_term is None:
            return SdimMemory(count_B, mean_BGKD)
        entry_B1X = self.short_term.entries(event_BE).unsqueeze(1)
        return SdimShortMemory(count_B, mean_BGKD, torch.cat([memory.recent_BNX[:, 1:], entry_B1X], dim=1))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> Any:
        """Sums of what lies between one position and the next, running sums of these, in the order of the positions."""
        sorted_BC, order_BC = position_BC.sort(dim=1)
        event_BLE = clear_padding(event_BLE, length_B)
        sum_BCX = self._sums_between(event_BLE, sorted_BC).cumsum(dim=1)
        users, targets = position_BC.shape
        # Back from the order of positions to that of the targets, as rows of all users' sums in one table.
        rank_BC = order_BC.argsort(dim=1) + targets * torch.arange(users, device=position_BC.device).unsqueeze(-1)
        sum_NX = sum_BCX.flatten(0, 1).index_select(0, rank_BC.flatten())
        # An empty history has sums of 0, and 0 / 0 would be NaN.
        mean_NX = sum_NX / position_BC.flatten().clamp(min=1).unsqueeze(-1).to(sum_NX.dtype)
        mean_BCGKD = mean_NX.view(users, targets, self.config.groups, self.buckets, self.value.out_features)
        if self.short_term is None:
            return SdimMemory(position_BC, mean_BCGKD)
        recent_BCNX, _ = recent_events(self.short_term.entries(event_BLE), position_BC, self.short_term.size)
        return SdimShortMemory(position_BC, mean_BCGKD, recent_BCNX)

    def _sums_between(self, event_BLE: Tensor, sorted_BC: Tensor) -> Tensor:
        """Bucket sums of the events from each position's predecessor (at first 0) to itself: `[B, C, G * K * D]`."""
        (users, length, _), targets, device = event_BLE.shape, sorted_BC.shape[1], sorted_BC.device
        # Each event counts from the first position after it on. Events after the last position go to a part of their
        # own, which nothing reads, so that no event has to be filtered out.
        place_BL = torch.arange(length, device=device).repeat(users, 1)
        part_BL = torch.searchsorted(sorted_BC, place_BL, right=True)
        part_BL = part_BL + (targets + 1) * torch.arange(users, device=device).unsqueeze(-1)
        # One flat row for each (user, part, group, bucket), so that a single `index_add` makes all sums.
        row_BLG = part_BL.unsqueeze(-1) * self.config.groups + torch.arange(self.config.groups, device=device)
        row_BLG = row_BLG * self.buckets + self._bucket(event_BLE)
        value_BLGD = self.value(event_BLE).unsqueeze(2).expand(*row_BLG.shape, -1)
        rows = users * (targets + 1) * self.config.groups * self.buckets
        sum_ND = value_BLGD.new_zeros(rows, value_BLGD.shape[-1])
        sum_ND = sum_ND.index_add(0, row_BLG.flatten(), value_BLGD.flatten(0, 2))
        sum_BCX: Tensor = sum_ND.view(users, targets + 1, -1)[:, :-1]
        return sum_BCX

    def read_vector(self, memory: Any, target_BCE: Tensor) -> tuple[Tensor, None]:
        """Take the target's bucket of each group, and attend to the last events; source: equations 9 and 11."""
        mean_BCGKD, bucket_BCG = memory[1], self._bucket(target_BCE)
        wide = mean_BCGKD.expand(-1, bucket_BCG.shape[1], -1, -1, -1)
        bucket_place = bucket_BCG[..., None, None].expand(-1, -1, -1, 1, wide.shape[-1])
        interest_BCD = mean_direction(wide.gather(3, bucket_place).squeeze(3))
        if self.short_term is None:
            return interest_BCD, None
        # Right-aligned: the latest event is last, so that place n from the end is filled once there were n events.
        place_N = torch.arange(self.short_term.size, 0, -1, device=target_BCE.device)
        seen_BCN = place_N <= memory.count_B.unsqueeze(-1)
        return torch.cat([interest_BCD, self.short_term.attend(target_BCE, memory.recent_BNX, seen_BCN)], dim=-1), None

    def forward(self, batch: Batch) -> Output:
        """What `encode` and `respond` give, without making the buckets that no target reads."""
        event_BLE = self.embed(batch.history_BLF, self.history_fields, user=batch.user_B)
        event_BLE = clear_padding(event_BLE, batch.length_B)
        target_BCE = self.embed(batch.target_BCF, self.item_fields, user=batch.user_B)
        interest_BCD = mean_direction(self.own_sums(event_BLE, target_BCE, batch.position_BC))
        if self.short_term is not None:
            short_BCD = self.short_term(event_BLE, target_BCE, batch.position_BC)
            interest_BCD = torch.cat([interest_BCD, short_BCD], dim=-1)
        context_BCE = self.context_of(batch)
        return Output(self.head(interest_BCD, target_BCE, context_BCE))

    def own_sums(self, event_BLE: Tensor, target_BCE: Tensor, position_BC: Tensor) -> Tensor:
        """Sums over the events before each position that share a bucket with its target, per group: `[B, C, G, D]`.

        Events sorted by (bucket, place) have a bucket's events before a position side by side; a group at a time, so
        that running sums of one group alone are in memory.

        Args:
            event_BLE: finite in padding, too.
            target_BCE: the targets.
            position_BC: int64, at most each user's number of events.
        """
        value_BLD, size = self.value(event_BLE), event_BLE.shape[1] + 1
        joint_BLG = self._bucket(event_BLE) * size + torch.arange(size - 1, device=position_BC.device).unsqueeze(-1)
        # Sorted by bucket * size + place, the events of its bucket that a target sees are those from bucket * size to
        # bucket * size + position: two binary searches find them.
        start_BCG = self._bucket(target_BCE) * size
        end_BCG = start_BCG + position_BC.unsqueeze(-1)
        sums = []
        for joint_BL, *bounds in zip(joint_BLG.unbind(2), start_BCG.unbind(2), end_BCG.unbind(2), strict=True):
            sorted_BL, order_BL = joint_BL.sort(dim=1)
            value = value_BLD.gather(1, order_BL.unsqueeze(-1).expand_as(value_BLD))
            # In double precision a difference of two running sums is as good as a sum of its own.
            running_BLD = pad(value.double().cumsum(dim=1), (0, 0, 1, 0))
            first, last = (torch.searchsorted(sorted_BL, bound.contiguous()) for bound in bounds)
            sums.append(_rows(running_BLD, last) - _rows(running_BLD, first))
        return torch.stack(sums, dim=2).to(value_BLD.dtype)

    def _bucket(self, vector: Tensor) -> Tensor:
        """The bucket of a target, or of what an event has in common with one, in each group: int64 `[..., G]`."""
        return bucket_ids(signature(vector[..., : self.target_width], self.plane_RE), self.config.bits)


def _rows(running_BLD: Tensor, place_BC: Tensor) -> Tensor:
    return running_BLD.gather(1, place_BC.unsqueeze(-1).expand(-1, -1, running_BLD.shape[-1]))


def mean_direction(sum_BCGD: Tensor) -> Tensor:
    """Mean over groups of the sums, each scaled to length 1; an empty bucket stays 0. Source: equation 12.

    An empty bucket is divided by 1 and not by a tiny number: the reciprocal would be its gradient, and such gradients
    cancel in the running sums, except for their rounding errors.
    """
    length_BCG1 = torch.linalg.vector_norm(sum_BCGD, dim=-1, keepdim=True)
    direction_BCGD: Tensor = sum_BCGD / length_BCG1.masked_fill(length_BCG1 == 0, 1.0)
    return direction_BCGD.mean(dim=2)
