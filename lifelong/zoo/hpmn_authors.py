"""HPMN as its authors released it (`hpmn` with `authors_mode = true`): the target is the last event written.

Ren et al., SIGIR 2019, and the released TensorFlow graph. Differences from `hpmn.py`:

* (a) the target is the last event written, so the memory depends on it and cannot be stored per user
* (b) histories are front-padded with zero vectors that run through the GRUs
* (c) periods are therefore aligned to the end of the history, not to its start
* (d) the covariance term is an unsquared Frobenius norm, summed over the batch
* (e) batch normalisation before the head keeps its initial statistics: it only scales and shifts, epsilon 1e-3
* (g) the GRU is TensorFlow's: the reset gate acts before the matrix product, gate biases start at 1
* (h) the user's id is a field of every event and of the target
* (i) on XLong the query is the event before the target (`query_before`), sequences are padded to 1024
* (j) one attention MLP per hop, one map for all hops
* (k) number 0 is the padding

(f), selection on the test set, is not reproduced. As in the authors' code there are no event fields and no context.

State: the whole history, as the memory depends on the target. It grows with the history, so no service keeps it.

Shapes: N targets, T length of a sequence (history and target), S slots, D slot width, E width of an embedded event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import USER_NUMBER, Batch, InputSpec, Model, Output, Share, setting
from lifelong.offline.nn.attention import PairScore
from lifelong.offline.nn.periods import check_periods


@dataclass(frozen=True)
class HpmnAuthorsConfig:
    """Settings of `hpmn` with `authors_mode = true`; defaults are the authors' for Amazon."""

    authors_mode: bool = setting(True, "the form of the authors' released code")
    embedding: PositiveInt = setting(16, "width of each field's embedding")
    width: PositiveInt = setting(32, "width of a memory slot")
    periods: Annotated[tuple[int, ...], AfterValidator(check_periods)] = setting(
        (1, 2, 4), "slot j is written every periods[j] events, counted so that the target completes one"
    )
    hops: PositiveInt = setting(3, "passes of a read")
    covariance: NonNegativeFloat = setting(1e-5, "weight of the authors' covariance term, a sum over the batch")
    dropout: Share = setting(0.5, "share of the head's hidden units dropped in training")
    sequence: PositiveInt = setting(
        100, "events of a sequence, the target included; rounded up to a multiple of the largest period"
    )
    query_before: bool = setting(False, "query with the event before the target, as the authors do on XLong")


class TensorFlowGru(nn.Module):
    """TensorFlow's `GRUCell`: the reset gate acts before the matrix product. Gate columns are [reset, update].

    reset, update = sigmoid([x, h] W_g + b_g);  h' = update * h + (1 - update) * tanh([x, reset * h] W_c + b_c)
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.gates: nn.Linear = nn.Linear(size + width, 2 * width)
        self.candidate: nn.Linear = nn.Linear(size + width, width)
        for part in (self.gates, self.candidate):
            nn.init.xavier_uniform_(part.weight)
        nn.init.ones_(self.gates.bias)
        nn.init.zeros_(self.candidate.bias)

    def forward(self, input_NTE: Tensor) -> Tensor:
        """State after each step, from zeros: `[N, T, D]`."""
        width = self.candidate.out_features
        gate_x, gate_h = self.gates.weight[:, : self.size], self.gates.weight[:, self.size :]
        candidate_x, candidate_h = self.candidate.weight[:, : self.size], self.candidate.weight[:, self.size :]
        # Inputs are projected once and unbound once: indexing inside the loop makes the backward pass quadratic.
        gate_inputs = (input_NTE @ gate_x.T + self.gates.bias).unbind(1)
        candidate_inputs = (input_NTE @ candidate_x.T + self.candidate.bias).unbind(1)
        hidden_ND, states = input_NTE.new_zeros(len(input_NTE), width), []
        for gate_input, candidate_input in zip(gate_inputs, candidate_inputs, strict=True):
            reset, update = torch.sigmoid(gate_input + hidden_ND @ gate_h.T).chunk(2, dim=-1)
            new = torch.tanh(candidate_input + (reset * hidden_ND) @ candidate_h.T)
            hidden_ND = update * hidden_ND + (1 - update) * new
            states.append(hidden_ND)
        return torch.stack(states, dim=1)


class FrozenNorm(nn.Module):
    """Batch normalisation that never leaves its initial statistics (mean 0, variance 1): scale and shift."""

    scale: nn.Parameter
    shift: nn.Parameter

    def __init__(self, width: int, *, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, value: Tensor) -> Tensor:
        """Scaled and shifted."""
        normal: Tensor = value * (self.scale / float(1 + self.epsilon) ** 0.5) + self.shift
        return normal


class HpmnAuthors(Model):
    """The authors' HPMN: one sequence per target, the target last."""

    Config = HpmnAuthorsConfig
    title = "HPMN (authors' code)"
    source = "Ren et al., SIGIR 2019, released code"
    state = "history"
    common_head = False
    aux_sums: ClassVar[tuple[str, ...]] = ("covariance",)
    reads_context = False
    not_served = "its memory depends on the target, which the authors write as the last event"

    def __init__(self, inputs: InputSpec, config: HpmnAuthorsConfig) -> None:
        # The user's number is one more field of every event and target; event and context fields are not used.
        own = replace(inputs, item={**inputs.item, USER_NUMBER: inputs.users}, event={}, context={}, chosen=None)
        super().__init__(own, embedding=config.embedding, interest=config.width, dropout=config.dropout)
        self.config: HpmnAuthorsConfig = config
        self.inputs = inputs
        self.periods: tuple[int, ...] = check_periods(tuple(config.periods))
        self.sequence: int = -(-config.sequence // self.periods[-1]) * self.periods[-1]
        layer_inputs = [self.event_width] + [config.width] * (len(self.periods) - 1)
        self.layers: nn.ModuleList = nn.ModuleList(TensorFlowGru(size, config.width) for size in layer_inputs)
        self.query: nn.Linear = nn.Linear(self.target_width, config.width)
        self.scores: nn.ModuleList = nn.ModuleList(PairScore(config.width) for _ in range(config.hops))
        self.pass_on: nn.Linear = nn.Linear(config.width, config.width, bias=False)
        self.norm: FrozenNorm = FrozenNorm(config.width + self.target_width)

    def forward(self, batch: Batch) -> Output:
        """One sequence for each real target; logits of padded targets are 0."""
        number_NTF = sequences(batch, self.sequence)
        logit_NT, attention_NS, memory_NSD = self.forward_sequences(number_NTF)
        logit_BCT = logit_NT.new_zeros(*batch.mask_BC.shape, logit_NT.shape[-1])
        attention_BCS = attention_NS.new_zeros(*batch.mask_BC.shape, len(self.periods))
        logit_BCT = logit_BCT.masked_scatter(batch.mask_BC.unsqueeze(-1), logit_NT)
        attention_BCS = attention_BCS.masked_scatter(batch.mask_BC.unsqueeze(-1), attention_NS)
        return Output(logit_BCT, self.auxiliary(memory_NSD), attention_BCS)

    def forward_sequences(self, number_NTF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `[N, tasks]`, first-hop attention `[N, S]` and memory `[N, S, D]` of whole sequences.

        Args:
            number_NTF: int64, item fields and user, front-padded with 0, the target last; T is a multiple of the
                largest period.
        """
        # The last number of the target is the user's.
        event_NTE = self.embed(number_NTF, self.item_fields, user=number_NTF[:, -1, -1])
        # Padding is a zero vector, whatever the table holds at 0.
        event_NTE = event_NTE.masked_fill((number_NTF[..., :1] == 0), 0.0)
        memory_NSD = self.final_slots(event_NTE)
        target_NE = event_NTE[:, -1]
        query_ND = self.query(event_NTE[:, -2] if self.config.query_before else target_NE)
        attentions = []
        for score in self.scores:
            attentions.append(torch.softmax(score(query_ND, memory_NSD), dim=-1))
            found_ND = (attentions[-1].unsqueeze(-1) * memory_NSD).sum(dim=-2)
            query_ND = self.pass_on(query_ND) + found_ND
        normal = self.norm(torch.cat([query_ND, target_NE], dim=-1))
        logit_NT: Tensor = self.head(normal, normal[..., :0], normal[..., :0])
        return logit_NT, attentions[0], memory_NSD

    def final_slots(self, event_NTE: Tensor) -> Tensor:
        """Every layer's last state: `[N, S, D]`."""
        hidden, slots = event_NTE, []
        for layer, below, period in zip(self.layers, (1, *self.periods[:-1]), self.periods, strict=True):
            stride = period // below
            hidden = layer(hidden[:, stride - 1 :: stride])
            slots.append(hidden[:, -1])
        return torch.stack(slots, dim=1)

    def auxiliary(self, memory_NSD: Tensor) -> Mapping[str, Tensor]:
        """The authors' covariance term, times its weight."""
        return {"covariance": self.config.covariance * memory_loss(memory_NSD)} if self.config.covariance else {}


def memory_loss(memory_NSD: Tensor) -> Tensor:
    """Frobenius norm of the off-diagonal part of the slots' covariance, summed over the batch; gradient 0 at 0."""
    centred = memory_NSD - memory_NSD.mean(dim=-1, keepdim=True)
    covariance_NSS = centred @ centred.transpose(-1, -2) / memory_NSD.shape[-1]
    diagonal_NSS = torch.diag_embed(covariance_NSS.diagonal(dim1=-2, dim2=-1))
    square_N = (covariance_NSS - diagonal_NSS).square().sum(dim=(-1, -2))
    # The root's gradient at 0 is infinite; the inner `where` keeps it out of the backward pass.
    positive_N = square_N > 0
    return torch.where(positive_N, torch.where(positive_N, square_N, 1.0).sqrt(), 0.0).sum()


def sequences(batch: Batch, length: int) -> Tensor:
    """For each real target the user's last `length - 1` events and the target: int64 `[N, length, F + 1]`.

    Front-padded with 0; the last column is the user's number.
    """
    user_N, target_N = batch.mask_BC.nonzero(as_tuple=True)
    steps_T = torch.arange(1 - length, 0, device=user_N.device)
    place_NT = batch.position_BC[user_N, target_N].unsqueeze(-1) + steps_T
    fields = batch.target_BCF.shape[-1]
    real_NT1 = (place_NT >= 0).unsqueeze(-1)
    if batch.history_BLF.shape[1]:
        event_NTF = batch.history_BLF[user_N.unsqueeze(-1), place_NT.clamp(min=0), :fields]
    else:
        event_NTF = place_NT.new_zeros(*place_NT.shape, fields)
    event_NTF = torch.cat([event_NTF, batch.user_B[user_N].view(-1, 1, 1).expand(-1, length - 1, 1)], dim=-1)
    last_NTF = torch.cat([batch.target_BCF[user_N, target_N], batch.user_B[user_N].unsqueeze(-1)], dim=-1)
    return torch.cat([event_NTF.masked_fill(~real_NT1, 0), last_NTF.unsqueeze(1)], dim=1)
