"""Tally's specification against its compiled form and the bytes of a store, over random histories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lifelong.artifact.folder import FieldLayout
from lifelong.dataset.events import GAP_NUMBERS
from lifelong.dataset.vocabulary import FIRST_BUCKET, NumberVocabulary, Vocabulary
from lifelong.online.memory.codec import Codec, make_codec
from lifelong.online.memory.state import States
from lifelong.tally import kernel, spec
from lifelong.tally.plan import CellPacking, Plan, keys_of, seconds_of

PLAN = Plan((32, 8, 10), (5, 3, 8), levels=17, widths_G=(5, 3), repeats=True)
"""Far more keys than cells, a few more, and as many."""
NUMBERS = (32, 8, 10)


@dataclass(frozen=True)
class History:
    """A user's events: unknown values among them, equal times, late events (a gap of 0), gaps that stop the clock."""

    number_LF: np.ndarray
    gap_L: np.ndarray
    factor_LD: np.ndarray

    @classmethod
    def drawn(cls, plan: Plan, seed: int, length: int, unknown: float) -> History:
        rng, width = np.random.default_rng(seed), sum(plan.widths_G)
        number_LF = rng.integers(2, NUMBERS, (length, 3))
        number_LF[rng.random(number_LF.shape) < unknown] = rng.integers(0, 2)
        gap = rng.choice([0, 1, 60, 86_400, 3 * 10**8], length, p=[0.2, 0.3, 0.3, 0.19, 0.01])
        return cls(number_LF, gap, rng.normal(size=(length, width)).astype(np.float32))

    def upto(self, count: int) -> History:
        return History(self.number_LF[:count], self.gap_L[:count], self.factor_LD[:count])


def specified(plan: Plan, history: History) -> spec.Memory:
    memory = spec.Memory(plan.cells_F, plan.levels, sum(plan.widths_G))
    for key_F, gap, factor_D in zip(
        keys_of(history.number_LF).tolist(), history.gap_L.tolist(), history.factor_LD, strict=True
    ):
        memory.write(key_F, gap, factor_D)
    return memory


def written(plan: Plan, history: History) -> kernel.Memory:
    memory, length = kernel.empty(plan, 1), len(history.gap_L)
    count_L, row_L = np.arange(1, length + 1), np.zeros(length, np.int64)
    rules = kernel.rules_of(plan)
    kernel.write(memory, row_L, keys_of(history.number_LF), history.gap_L, history.factor_LD, count_L, rules)
    return memory


def compiled(plan: Plan, memory: spec.Memory) -> kernel.Memory:
    """The same memory for the loops."""
    found = kernel.empty(plan, 1)
    for name, part in found._asdict().items():
        if part.size:
            part[0] = memory.fields()[name.rsplit("_", 1)[0]]
    return found


def fields_of(plan: Plan, memory: kernel.Memory, row: int = 0) -> dict[str, np.ndarray]:
    by_name = {name.rsplit("_", 1)[0]: value[row] for name, value in memory._asdict().items()}
    return {part.name: by_name[part.name] for part in plan.layout}


def codec_of(plan: Plan) -> Codec:
    layout = [
        FieldLayout(name=one.name, shape=one.shape, dtype=one.dtype, cells=plan.packing if one.name == "cell" else None)
        for one in plan.layout
    ]
    return make_codec("fp32", layout)


def check_equal(plan: Plan, found: dict[str, np.ndarray], wanted: spec.Memory) -> None:
    for name, value in found.items():
        whole = wanted.fields()[name]
        assert value.dtype == whole.dtype and value.tobytes() == whole.tobytes(), name
    codec, one = codec_of(plan), np.array([wanted.count])
    records = [
        codec.encode(States(one, one, {name: fields[name][None] for name in found}))
        for fields in (found, wanted.fields())
    ]
    assert records[0] == records[1]
    back = codec.decode(records[0])
    assert all(np.array_equal(back.fields[name][0], value) for name, value in found.items())


def asked_of(plan: Plan, rng: np.random.Generator, targets: int) -> kernel.Targets:
    number_NF = rng.integers(0, NUMBERS, (targets, 3))
    # Other values than those of the numbers: a rare value shares its number.
    key_NF = np.where(rng.random((targets, 3)) < 0.2, rng.integers(-1, 8, (targets, 3)), keys_of(number_NF))
    factor_ND = rng.normal(size=(targets, sum(plan.widths_G))).astype(np.float32)
    popularity_NF = np.log(rng.random((targets, 3))).astype(np.float32)
    return kernel.Targets(np.zeros(targets, np.int64), key_NF, number_NF, popularity_NF, factor_ND)


def check_known(plan: Plan, memory: spec.Memory, asked: kernel.Targets, found: kernel.Found, n: int) -> None:
    keys, numbers = asked.key_NF[n].tolist(), asked.number_NF[n].tolist()
    factors = np.split(asked.factor_ND[n].astype(float), np.cumsum(plan.widths_G)[:-1]) if plan.widths_G else []
    wanted = memory.known(keys, numbers, plan.sizes_F, asked.popularity_NF[n].astype(float), factors)
    shares = 2 if not plan.repeats else 0
    if shares:
        at = len(wanted) - plan.affinities
        wanted = np.delete(wanted, [at - 2, at - 1])
    np.testing.assert_allclose(found.known_NY[n], wanted, rtol=1e-13, atol=1e-13)
    for field, key in enumerate(keys):
        look = memory.look(field, key)
        assert found.kind_NF[n, field] == look.kind + field * spec.KINDS
        rank = max(numbers[field] - spec.FIRST, 0)
        np.testing.assert_allclose(found.number_NFX[n, field], [look.times, look.events, look.hours, rank])


plans = st.builds(
    lambda levels, repeats, widths: replace(PLAN, levels=levels, repeats=repeats, widths_G=widths),
    levels=st.sampled_from([1, 4, 17]),
    repeats=st.booleans(),
    widths=st.sampled_from([(), (5, 3)]),
)


@settings(max_examples=60, deadline=None)
@given(plan=plans, seed=st.integers(0, 10_000), length=st.integers(0, 300), unknown=st.sampled_from([0.0, 0.2, 1.0]))
@example(plan=PLAN, seed=1, length=300, unknown=0.0)
def test_the_compiled_form_keeps_and_stores_what_the_specification_says(
    plan: Plan, seed: int, length: int, unknown: float
) -> None:
    history = History.drawn(plan, seed, length, unknown)
    wanted, memory = specified(plan, history), written(plan, history)
    check_equal(plan, fields_of(plan, memory), wanted)
    asked = asked_of(plan, np.random.default_rng(seed), 20)
    found = kernel.unknown(kernel.rules_of(plan), 20, np.float64)
    kernel.read(memory, np.array([length]), asked, kernel.rules_of(plan), found)
    for n in range(20):
        check_known(plan, wanted, asked, found, n)


@settings(max_examples=25, deadline=None)
@given(plan=plans, seed=st.integers(0, 10_000), length=st.integers(0, 150), asks=st.booleans())
@example(plan=PLAN, seed=1, length=150, asks=True)
@example(plan=PLAN, seed=1, length=150, asks=False)
def test_a_replay_gives_the_memories_and_what_is_known_at_any_positions(
    plan: Plan, seed: int, length: int, asks: bool
) -> None:
    histories = [History.drawn(plan, seed + user, length, 0.1) for user in range(2)]
    rng, targets = np.random.default_rng(seed), 12
    row_N, position_N = rng.integers(0, 2, targets), rng.integers(0, length + 1, targets)
    asked = asked_of(plan, rng, targets)._replace(row_N=row_N)
    if not asks:
        asked = asked._replace(key_NF=asked.key_NF[:, :0])
    found = kernel.unknown(kernel.rules_of(plan), targets if asks else 0, np.float64)
    kept = kernel.empty(plan, 0 if asks else targets)
    parts = [np.stack(values) for values in zip(*(vars(one).values() for one in histories), strict=True)]
    order_N, rules = np.lexsort((position_N, row_N)), kernel.rules_of(plan)
    nobody, one = kernel.empty(plan, 1), kernel.empty(plan, 1)
    parts[0] = keys_of(parts[0])
    kernel.replay(nobody, one, *parts, order_N, position_N, asked, rules, found, kept)
    for n in range(targets):
        wanted = specified(plan, histories[row_N[n]].upto(position_N[n]))
        if asks:
            check_known(plan, wanted, asked, found, n)
        else:
            check_equal(plan, fields_of(plan, kept, n), wanted)


def test_events_of_several_users_in_any_order_change_their_own_memory_alone() -> None:
    history, user_N = History.drawn(PLAN, 5, 90, 0.1), np.random.default_rng(5).integers(0, 3, 90)
    memory = kernel.empty(PLAN, 3)
    count_N = np.array([1 + (user_N[:at] == user).sum() for at, user in enumerate(user_N)])
    parts = keys_of(history.number_LF), history.gap_L, history.factor_LD
    kernel.write(memory, user_N, *parts, count_N, kernel.rules_of(PLAN))
    for user in range(3):
        mine = user_N == user
        own = History(*(part[mine] for part in vars(history).values()))
        check_equal(PLAN, fields_of(PLAN, memory, user), specified(PLAN, own))


@pytest.mark.parametrize("count", [2**12, 2**15 - 3, 2**16, 2**20, 2**20 + 2**19])
def test_the_oldest_cells_age_as_specified(count: int) -> None:
    """Cells of all ages and counts, at numbers of events at which steps of many sizes are due."""
    rng, plan = np.random.default_rng(count), Plan((2**16 + 2, 14), (256, 3), levels=17)
    wanted = spec.Memory(plan.cells_F, plan.levels, 0)
    wanted.count = count - 1
    wanted.clock = [tuple(mark) for mark in np.sort(rng.integers(0, 10**8, (17, 2)))[::-1, ::-1].tolist()]
    for field, keys in enumerate((np.sort(rng.permutation(65_536)[:256]), np.array([3, 7, 9]))):
        levels, steps = rng.integers(1, 16, len(keys)), rng.permutation(len(keys)) % 32
        cells = (spec.Cell(level, step) for level, step in zip(levels.tolist(), steps.tolist(), strict=True))
        wanted.cells[field] = dict(zip(keys.tolist(), cells, strict=True))
    memory = compiled(plan, wanted)
    number_LF, gap_L = rng.integers(2, (65_538, 14), (40, 2)), rng.integers(0, 10**6, 40)
    for key_F, gap in zip(keys_of(number_LF).tolist(), gap_L.tolist(), strict=True):
        wanted.write(key_F, gap)
    factor_LD, count_L = np.zeros((40, 0), np.float32), np.arange(count, count + 40)
    kernel.write(memory, np.zeros(40, np.int64), keys_of(number_LF), gap_L, factor_LD, count_L, kernel.rules_of(plan))
    check_equal(plan, fields_of(plan, memory), wanted)


@pytest.mark.parametrize("new", [5, 15, 25, 35])
def test_of_equally_stale_cells_the_lowest_key_gives_way_wherever_the_new_one_goes(new: int) -> None:
    plan, wanted = Plan((50,), (3,)), spec.Memory((3,), 1, 0)
    wanted.count, wanted.cells[0] = 99, {key: spec.Cell(1, 9) for key in (20, 10, 30)}
    memory = compiled(plan, wanted)
    wanted.write([new], 0)
    assert set(wanted.cells[0]) == {20, 30, new}
    one, nothing = np.zeros(1, np.int64), np.zeros((1, 0), np.float32)
    kernel.write(memory, one, np.array([[new]]), one, nothing, one + 100, kernel.rules_of(plan))
    check_equal(plan, fields_of(plan, memory), wanted)


def test_counts_are_right_on_average_above_those_that_are_exact() -> None:
    found = []
    for start in range(64):
        memory = spec.Memory((1,), 1, 0)
        memory.count = start
        for _ in range(24):
            memory.write([7], 0)
        found.append(memory.look(0, 7).times)
    assert set(found) <= set(spec.COUNTS) and abs(np.mean(found) - 24) < 0.5


def test_equal_popularity_adds_nothing_and_unknown_values_are_never_known() -> None:
    memory = spec.Memory((2,), 1, 0)
    memory.write([spec.NO_KEY], 0)
    known_Y = memory.known([spec.NO_KEY], [1], [9], [-np.log(9)], [])
    assert known_Y[:4].tolist() == [0] * 4 and known_Y[spec.FEATURES] == 0


def test_numbers_of_gaps_stand_for_seconds_between_the_ends_of_their_bucket() -> None:
    number = np.arange(3, 36)
    assert seconds_of(np.array([0, 1, 2])).tolist() == [0, 0, 0]
    assert (seconds_of(number) >= 2.0 ** (number - 3)).all() and (seconds_of(number) < 2.0 ** (number - 2)).all()


def test_the_law_numbers_values_and_gaps_as_datasets_do() -> None:
    assert spec.FIRST == FIRST_BUCKET and len(spec.GAPS) == GAP_NUMBERS - FIRST_BUCKET


def keys_in(vocabulary: Vocabulary, values: list[str | None], keys: int) -> list[int]:
    return vocabulary.keys(values, vocabulary.numbers(values), keys).tolist()


def test_known_values_have_keys_of_their_own_and_others_share_the_rest_by_the_hash_of_their_ids() -> None:
    hashed = [int.from_bytes(blake2b(text, digest_size=8).digest(), "little") for text in (b"tea", b"milk", b"coffee")]
    values = ["tea", "milk", "coffee", None]
    vocabulary = Vocabulary.build(["milk", "tea"], buckets=2)
    assert keys_in(vocabulary, values, 1024) == [1, 0, 2 + hashed[2] % 1022, spec.NO_KEY]
    assert vocabulary.known_keys(1024).tolist() == [0, 1]
    # So many known values that the others would have less than a quarter of the keys: all are hashed.
    assert keys_in(Vocabulary.build(["milk", "tea", "salt"]), values, 4) == [*(at % 4 for at in hashed), spec.NO_KEY]
    assert keys_in(Vocabulary.build(["milk", "tea", "salt"]), values, 5) == [1, 0, 3 + hashed[2] % 2, spec.NO_KEY]


def test_values_of_one_level_of_numbers_have_its_key() -> None:
    one, same, other, *none = keys_in(NumberVocabulary(), ["6.63", "7.5", "8.1", "cheap", None], 1024)
    assert one == same == other - 1 and none == [spec.NO_KEY] * 2


@pytest.mark.parametrize(
    ("sizes", "keys"), [((9, 9, 4), (65_536, 1_024, 1_024)), ((9, 2_002, 40_000), (65_536, 4_000, 65_536))]
)
def test_all_but_the_items_have_twice_as_many_keys_as_numbers(sizes: tuple[int, ...], keys: tuple[int, ...]) -> None:
    assert Plan(sizes, cells_F=(1, 1, 1)).packing.values_F == keys


def test_cells_that_are_not_sorted_are_not_packed() -> None:
    codec = make_codec("fp32", [FieldLayout(name="cell", shape=(2, 2), dtype="int16", cells=CellPacking((2,), (9,)))])
    cell_NKX = np.array([[[7 - 2**15, 256], [3 - 2**15, 256]]], np.int16)
    with pytest.raises(ValueError, match="cells out of order"):
        codec.encode(States(np.ones(1, np.int64), np.ones(1, np.int64), {"cell": cell_NKX}))
