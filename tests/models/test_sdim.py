"""SDIM against a naive transcription: loops over users, targets, events and groups, in float64."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.sdim import Sdim, SdimConfig, mean_direction


def make(*, groups: int = 3, bits: int = 2, seed: int = 0) -> Sdim:
    torch.manual_seed(seed)
    return Sdim(INPUTS, SdimConfig(embedding=3, width=4, groups=groups, bits=bits, dropout=0.0)).double().eval()


def sides(model: Sdim, vector: Tensor, group: int) -> list[bool]:
    planes = model.plane_RE[group * model.config.bits : (group + 1) * model.config.bits].double()
    return [float(plane @ vector.detach()) >= 0 for plane in planes]


def naive_interest(model: Sdim, events: list[Tensor], target: Tensor) -> Tensor:
    """Per group the sum of the values of all events with the target's signature, at length 1; their mean."""
    total = torch.zeros(4, dtype=torch.float64)
    for group in range(model.config.groups):
        found = torch.zeros(4, dtype=torch.float64)
        for event in events:
            if sides(model, event[: model.target_width], group) == sides(model, target, group):
                found = found + model.value.weight @ event
        if found.any():
            total = total + found / found.square().sum().sqrt()
    return total / model.config.groups


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    groups=st.integers(1, 4),
    bits=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_memory_and_own_buckets_and_naive_loop_agree_in_value_and_gradient(
    lengths: list[int], groups: int, bits: int, seed: int
) -> None:
    model = make(groups=groups, bits=bits, seed=seed)
    batch = random_batch(lengths, targets=3, size=max(lengths) + 2, seed=seed)
    event_BLE = model.embed(batch.history_BLF, model.history_fields).detach().requires_grad_()
    target_BCE = model.embed(batch.target_BCF, model.item_fields).detach()
    weight_BCD = torch.rand(len(lengths), 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def by_memory() -> Tensor:
        memory = model.encode_vector(event_BLE, batch.length_B, batch.position_BC)
        return model.read_vector(memory, target_BCE)[0]

    def by_own_buckets() -> Tensor:
        return mean_direction(model.own_sums(event_BLE, target_BCE, batch.position_BC))

    def by_loop() -> Tensor:
        def interest(user: int, place: int) -> Tensor:
            events = list(event_BLE[user, : batch.position_BC[user, place]])
            return naive_interest(model, events, target_BCE[user, place])

        return torch.stack([torch.stack([interest(user, at) for at in range(3)]) for user in range(len(lengths))])

    results = []
    for form in (by_loop, by_memory, by_own_buckets):
        interest_BCD = form()
        loss = (weight_BCD * interest_BCD).sum() + 0 * event_BLE.sum() + 0 * model.value.weight.sum()
        results.append((interest_BCD.detach(), *torch.autograd.grad(loss, [event_BLE, model.value.weight])))
    for other in results[1:]:
        for left, right in zip(other, results[0], strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=1e-10)


def test_the_gradient_of_an_empty_bucket_is_no_larger_than_that_of_others() -> None:
    sum_BCGD = torch.zeros(1, 1, 2, 4, requires_grad=True)
    mean_direction(sum_BCGD).sum().backward()
    assert sum_BCGD.grad is not None
    assert sum_BCGD.grad.flatten().tolist() == [0.5] * 8


def test_an_old_event_is_found_exactly_behind_many_others_in_single_precision() -> None:
    model = make(groups=4, bits=3).float()
    generator = torch.Generator().manual_seed(0)
    event_BLE = 100 * torch.randn(1, 5000, model.event_width, generator=generator)
    target_BCE = event_BLE[:, :1, : model.target_width]
    position_BC = torch.tensor([[1]])
    single = model.own_sums(event_BLE, target_BCE, position_BC)
    expected = model.value(event_BLE[:, 0]).view(1, 1, 1, -1).expand_as(single)
    torch.testing.assert_close(single, expected, rtol=1e-6, atol=0)
    late = model.own_sums(event_BLE, target_BCE, torch.tensor([[5000]]))
    double = model.double().own_sums(event_BLE.double(), target_BCE.double(), torch.tensor([[5000]]))
    torch.testing.assert_close(late.double(), double, rtol=1e-4, atol=1e-3)
