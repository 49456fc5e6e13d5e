from __future__ import annotations

import numpy as np
import pytest

from lifelong.dataset.events import NO_TIME, context_numbers
from lifelong.dataset.scales import (
    FIRST_LEVEL,
    SCALES,
    SINCE,
    TIME_OF_DAY,
    TIME_OF_WEEK,
    Scale,
)
from lifelong.dataset.vocabulary import PADDING, UNKNOWN

TUESDAY = 1_511_827_200
"""2017-11-28 00:00 UTC."""
ALL = np.ones(1, bool)


def level(field: str, time: int, last: int = 0) -> int:
    return int(context_numbers([field], np.array([time]), np.array([last]))[0, 0]) - FIRST_LEVEL


@pytest.mark.parametrize(("seconds", "found"), [(0, 0), (299, 0), (300, 1), (43_200, 144), (86_399, 287), (86_400, 0)])
def test_a_day_has_levels_of_five_minutes(seconds: int, found: int) -> None:
    assert level("time_of_day", TUESDAY + seconds) == found


def test_a_week_has_levels_of_an_hour_and_begins_on_monday() -> None:
    assert [level("time_of_week", TUESDAY + 3600 * hour) for hour in (-25, -24, 0, 143)] == [167, 0, 24, 167]


@pytest.mark.parametrize("scale", [TIME_OF_DAY, TIME_OF_WEEK])
def test_the_end_of_a_cycle_is_as_near_to_its_beginning_as_any_neighbours(scale: Scale) -> None:
    code_LK = scale.codes()[FIRST_LEVEL:]
    apart_L = np.linalg.norm(code_LK - np.roll(code_LK, 1, axis=0), axis=1)
    assert np.allclose(apart_L, apart_L[0]) and apart_L[0] > 0


def test_gaps_go_up_a_twelfth_of_an_octave_at_a_time() -> None:
    gaps = [0, 1, 3, 7, 1023]
    assert [level("since_event", TUESDAY, TUESDAY - gap) for gap in gaps] == [0, 12, 24, 36, 120]
    assert level("since_event", TUESDAY, TUESDAY + 9) == 0
    assert level("since_event", TUESDAY, TUESDAY - 2**40) == 30 * 12


def test_without_an_event_before_the_gap_is_unknown() -> None:
    assert context_numbers(["since_event"], np.array([TUESDAY]), np.array([NO_TIME])).tolist() == [[UNKNOWN]]


def test_codes_of_octaves_are_filled_one_after_another() -> None:
    code_VK = SINCE.codes()
    five = int(SINCE.numbers(np.array([2**2.5 - 1]), ALL)[0])
    assert code_VK[five, :4].tolist() == [1, 1, 0.5, 0]
    # The distance of two levels is that of their logarithms, as long as they are in one octave.
    assert np.diff(code_VK[FIRST_LEVEL:].sum(axis=1)) == pytest.approx(1 / 12)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_padding_has_no_code_and_unknown_one_of_its_own(scale: Scale) -> None:
    code_VK = scale.codes()
    assert len(code_VK) == scale.size
    assert not code_VK[PADDING].any()
    assert code_VK[UNKNOWN].tolist() == [0] * (code_VK.shape[1] - 1) + [1]
    assert not code_VK[FIRST_LEVEL:, -1].any()
    assert len(np.unique(code_VK[FIRST_LEVEL:].round(9), axis=0)) == scale.size - FIRST_LEVEL
