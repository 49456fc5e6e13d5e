from __future__ import annotations

import numpy as np
import pytest

from lifelong.dataset.events import GAP_NUMBERS, NO_TIME, USUAL_CONTEXT, Schema, context_numbers, gap_numbers


@pytest.mark.parametrize(
    ("seconds", "number"),
    [(-5, 2), (0, 2), (1, 3), (2, 4), (3, 4), (4, 5), (3_600, 14), (86_400, 19), (2**31, 34), (2**40, GAP_NUMBERS - 1)],
)
def test_gaps_are_numbered_by_powers_of_two(seconds: int, number: int) -> None:
    assert gap_numbers(np.array([10**9 + seconds]), np.array([10**9])).tolist() == [number]


def test_without_an_event_before_there_is_no_gap() -> None:
    assert gap_numbers(np.array([10**9]), np.array([NO_TIME])).tolist() == [1]


def test_context_holds_gap_hour_and_monday_based_weekday() -> None:
    # Tuesday 2017-11-28 05:59:59 and one second later, in UTC.
    time = np.array([[1_511_848_799, 1_511_848_800]])
    assert context_numbers(USUAL_CONTEXT, time, time - 1).tolist() == [[[3, 7, 3], [3, 8, 3]]]


def test_ordinal_times_have_no_context_and_no_gap() -> None:
    schema = Schema(item_fields=("item",), event_types=True, time_unit="ordinal")
    assert (schema.history_fields, schema.context_fields) == (("item", "event_type"), ())
    time = np.zeros((2, 3), np.int64)
    assert context_numbers(schema.context_fields, time, time).shape == (2, 3, 0)


def test_a_history_row_is_item_fields_then_event_fields() -> None:
    schema = Schema(item_fields=("item", "colour"), event_types=True)
    assert schema.history_fields == ("item", "colour", "event_type", "gap")
