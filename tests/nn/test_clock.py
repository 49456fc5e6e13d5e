"""The clock against the times of the events themselves, and its marks on every path."""

import itertools

import pytest

pytest.importorskip("torch")
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.nn.clock import LONGEST, clock_at, elapsed, empty_clock, seconds_of, spans, tick

pytestmark = pytest.mark.torch
LEVELS = 6


def test_a_gaps_bucket_stands_for_a_time_within_it() -> None:
    assert seconds_of(torch.tensor([-1, 0])).tolist() == [0, 0]
    for key in range(1, 31):
        assert 2 ** (key - 1) <= int(seconds_of(torch.tensor(key))) < 2**key


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-1, 33), max_size=150), st.integers(1, 9))
def test_all_paths_lead_to_the_same_marks(gaps: list[int], levels: int) -> None:
    key_BL = torch.tensor([gaps], dtype=torch.int64)
    every_BC = torch.arange(len(gaps) + 1).unsqueeze(0)
    clock_BJX = empty_clock(1, levels, device=torch.device("cpu"))
    folded = [clock_BJX]
    for place in range(len(gaps)):
        clock_BJX = tick(clock_BJX, seconds_of(key_BL[:, place]), torch.tensor([place + 1]))
        folded.append(clock_BJX)
    found = clock_at(seconds_of(key_BL), every_BC, levels)
    assert found.dtype == clock_BJX.dtype == torch.int32
    assert torch.equal(found, torch.stack(folded, dim=1))
    assert int(found.max()) <= LONGEST


def test_marks_are_the_times_of_every_second_fourth_and_eighth_event() -> None:
    key_BL = torch.randint(0, 20, (1, 50), generator=torch.Generator().manual_seed(0))
    times = [0, *itertools.accumulate(seconds_of(key_BL)[0].tolist())]
    found = clock_at(seconds_of(key_BL), torch.tensor([[50]]), LEVELS)[0, 0]
    assert found.tolist() == [
        [times[50], times[49]],
        [times[50], times[48]],
        [times[48], times[44]],
        [times[48], times[40]],
        [times[48], times[32]],
        [times[32], times[0]],
    ]
    assert spans(found[None, None])[0, 0].tolist() == [times[50] - times[n] for n in (49, 48, 44, 40, 32, 0)]


def test_steady_events_are_told_exactly_and_older_ones_than_the_clock_knows_as_its_oldest() -> None:
    key_BL, count = torch.full((1, 300), 8), 300
    step = int(seconds_of(torch.tensor(8)))
    clock = clock_at(seconds_of(key_BL), torch.tensor([[count]]), LEVELS)
    ago = torch.arange(count).unsqueeze(0).unsqueeze(0)
    found = elapsed(clock, torch.tensor([[count]]), ago, torch.float64)[0, 0]
    # The last level has marks at 288 and 256.
    oldest = 256
    wanted = [step * min(number, count - oldest) for number in range(count)]
    assert found.tolist() == pytest.approx(wanted)


def test_an_event_between_two_marks_lies_on_the_line_between_them_and_not_beyond() -> None:
    # Of 51 events the last two marks are at 51 and 50, those of the next level at 50 and 48: event 49 is between these.
    gap_BL = torch.tensor([[10] * 48 + [100, 300, 5000]])
    clock = clock_at(gap_BL, torch.tensor([[51]]), LEVELS)
    found = elapsed(clock, torch.tensor([[51]]), torch.tensor([[[1, 2, 3]]]), torch.float64)[0, 0]
    assert found.tolist() == [5000, 5000 + 200, 5000 + 400]


def test_a_time_is_never_off_by_more_than_the_marks_around_it() -> None:
    generator = torch.Generator().manual_seed(1)
    key_BL = torch.randint(0, 22, (3, 200), generator=generator)
    position_BC = torch.tensor([[200, 77], [64, 1], [33, 150]])
    clock = clock_at(seconds_of(key_BL), position_BC, 17)
    time_BL = torch.cat([torch.zeros(3, 1, dtype=torch.int64), seconds_of(key_BL).cumsum(dim=1)], dim=1)
    for user, target in itertools.product(range(3), range(2)):
        count = int(position_BC[user, target])
        ago = torch.arange(count)[None, None]
        found = elapsed(clock[user : user + 1, target : target + 1], torch.tensor([[count]]), ago, torch.float64)[0, 0]
        assert found[0] == 0 and bool((found.diff() >= -1e-6).all())
        marks = {max(count // 2**level - back, 0) * 2**level for level in range(17) for back in (0, 1)} | {count}
        for number, seconds in enumerate(found.tolist()):
            around = (
                max(mark for mark in marks if mark <= count - number),
                min(mark for mark in marks if mark >= count - number),
            )
            high, low = (int(time_BL[user, count] - time_BL[user, mark]) for mark in around)
            assert low - 1e-6 <= seconds <= high + 1e-6, (user, target, number)
