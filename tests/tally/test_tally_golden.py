"""One history of Tally, event by event, with the bytes that are stored and the numbers that a score reads.

The specification and the compiled form take their constants from one place, so that comparing them says nothing of the
constants. Here they are written out.
"""

from __future__ import annotations

import lz4.block
import numpy as np
import pytest
from test_tally_law import History, codec_of, fields_of
from test_tally_law import written as write

from lifelong.online.memory.state import States
from lifelong.tally import kernel, spec
from lifelong.tally.plan import Plan, keys_of

PLAN = Plan(sizes_F=(12, 6), cells_F=(3, 2), levels=4, widths_G=(2,), repeats=True)
MINUTE, DAY = 60, 86_400
EVENTS = [
    # Item, category, seconds since the event before; 1 is a value that is not known.
    (5, 2, 0),
    (5, 2, MINUTE),
    (6, 3, DAY),
    (5, 2, MINUTE),
    (7, 4, 3 * DAY),
    (1, 1, DAY),
    (8, 2, 0),
    (6, 3, 10 * DAY),
    (9, 5, MINUTE),
    (5, 2, MINUTE),
]
FACTORS = np.array([[0.6, 0.8], [-1.0, 0.0]], np.float32)
"""Of even and of odd items."""


def written(plan: Plan, number_LF: np.ndarray, gap_L: np.ndarray) -> kernel.Memory:
    return write(plan, History(number_LF, gap_L, FACTORS[number_LF[:, 0] % 2][:, : sum(plan.widths_G)]))


@pytest.fixture(scope="module")
def memory() -> kernel.Memory:
    event_LX = np.array(EVENTS, np.int64)
    return written(PLAN, np.ascontiguousarray(event_LX[:, :2]), event_LX[:, 2].copy())


def test_ten_events_leave_these_cells(memory: kernel.Memory) -> None:
    key, packed = memory.cell_BKX[0].T.astype(int)
    # Key, level of the count, step of the age: items, then categories.
    found = list(zip((key + 2**15).tolist(), (packed // 256).tolist(), (packed % 256).tolist(), strict=True))
    assert found == [(3, 4, 0), (4, 1, 2), (7, 1, 1), (0, 5, 0), (3, 1, 1)]


def test_ten_events_are_stored_in_these_bytes(memory: kernel.Memory) -> None:
    fields, codec = {name: value[None] for name, value in fields_of(PLAN, memory).items()}, codec_of(PLAN)
    states = States(np.array([10]), np.array([1_700_000_000]), fields)
    (record,) = codec.encode(states)
    header, stored = record[:24], lz4.block.decompress(record[24:], uncompressed_size=codec.size - 24)
    # The checksum is left out: it is of the compressed bytes, which another release of LZ4 may choose otherwise.
    assert (header[:4] + header[8:]).hex(" ", -4) == "01000000 0a000000 00000000 00f15365 00000000"
    assert stored.hex(" ", -8) == (
        "6766a6c09a991940 55d1a0c09f6a1540 70c7130034c71300 70c71300f8c61300 "
        "f8c61300f8510100 f8c6130000000000 03000000270b0000 0300017000001800 "
        "48440850210e03"
    )


ASKED = {(5, 2): 0.5, (6, 2): 0.1, (7, 3): 0.1, (1, 1): 0.01}
"""Item and category -> their share of all targets."""


@pytest.fixture
def found(memory: kernel.Memory) -> kernel.Found:
    number_NF, size = np.array([*ASKED]), len(ASKED)
    popularity_NF = np.log(np.repeat(np.array([*ASKED.values()], np.float32), 2).reshape(size, 2))
    asked = kernel.Targets(
        np.zeros(size, np.int64), keys_of(number_NF), number_NF, popularity_NF, FACTORS[number_NF[:, 0] % 2]
    )
    found = kernel.unknown(kernel.rules_of(PLAN), size, np.float64)
    kernel.read(memory, np.array([10]), asked, kernel.rules_of(PLAN), found)
    return found


def test_a_score_reads_these_counts(found: kernel.Found) -> None:
    # Times, events ago, hours ago, rank; of the item and of the category.
    assert found.number_NFX.round(4).tolist() == [
        [[4.0, 0.0, 0.0, 3.0], [5.0, 0.0, 0.0, 0.0]],
        [[1.0, 2.0, 0.0333, 4.0], [5.0, 0.0, 0.0, 0.0]],
        [[0.0, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 1.0]],
        [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    ]
    assert found.kind_NF.tolist() == [[97, 386], [3, 386], [0, 289], [0, 289]]


def test_a_score_reads_these_decayed_counts_and_affinities(found: kernel.Found) -> None:
    known_Y, features = found.known_NY[1].round(5).tolist(), spec.FEATURES
    assert known_Y[:features] == [
        *(1.0, 0.69315, 0.27465, 0.0082, 0.64769),
        *(0.60342, 0.67419, 0.68931, 0.69238, 0.69305, 0.69314),
    ]
    assert known_Y[2 * features :] == [
        *(0.06077, -0.17028, 0.0, 1.09861, 0.59947, 0.00413, 0.0082, 1.45505, 1.47227),
        *(-0.4, -0.40204, -0.20953, -0.2071, -0.39423, -0.38218),
    ]


@pytest.mark.parametrize(("between", "after", "stays"), [(580, 185, 2), (640, 125, 3)])
def test_a_value_met_twice_outlives_a_later_one_by_four_hundred_events(between: int, after: int, stays: int) -> None:
    """Their ages are 511 and 127, then 511 and 95: 384 and 416 apart."""
    number_L = np.array([2, 2, *[1] * between, 3, *[1] * after, 4])
    plan = Plan(sizes_F=(9,), cells_F=(2,))
    cells = written(plan, number_L[:, None], np.zeros(len(number_L), np.int64)).cell_BKX[0]
    assert (cells[:, 0].astype(int) + 2**15 + 2).tolist() == [stays, 4]


def test_constants_are_those_that_stored_memories_were_made_with() -> None:
    assert spec.COUNTS == (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28)
    assert spec.AGES[:12] == (0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63) and spec.AGES[-1] == 65_535
    assert spec.BONUSES == (0, 0, 400, 634, 800, 929, 1034, 1123, 1200, 1329, 1434, 1523, 1600, 1729, 1834, 1923)
    assert spec.GAPS[:6] == (0, 1, 2, 5, 11, 23) and spec.GAPS[-1] == 6227702579
    assert (spec.KEYS, spec.FIRST, spec.LONGEST, spec.RECENT) == (65_536, 2, 2**31 - 1, 64)
    assert (spec.HALF_LIFE, spec.HALF_LIVES, spec.DAYS) == (100.0, (10.0, 50.0, 250.0, 1250.0), (7.0, 60.0))
    assert (spec.ONE, spec.SHORTEST, spec.HOUR, spec.DAY) == (65_536, 1e-6, 3_600.0, 86_400.0)
    assert spec.TIMES == (1, 2, 3, 4, 6, 9, 14, 25, 60) and spec.KINDS == 289
