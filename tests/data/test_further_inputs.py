"""Each further input against its definition, written down once more as plainly as possible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.rows import Make, make
from test_target_features import of_value

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.vocabulary import UNKNOWN
from lifelong.dtypes import Float32Array
from lifelong.zoo.inputs.affinity import unit_vectors
from lifelong.zoo.inputs.further import WEEK, Family, Further, chosen, week_odds
from lifelong.zoo.inputs.target_features import feature_names, fill_features

__all__ = ["make"]
DAY = 86_400
ALL: tuple[Family, ...] = ("pairs", "variety", "match", "likeness")
FIELDS = ("type", "maker", "size")
FURTHER = Further(ALL, ((1, 2), (1, 3)), 1)


@pytest.fixture
def dataset(make: Make) -> Dataset:
    """Baskets of one time each; some items have no maker, and the rarest ones share a number."""
    rng = np.random.default_rng(3)
    items = [(f"i{at}", f"t{at % 5}", None if at % 7 == 6 else f"m{rng.integers(4)}", f"s{at % 3}") for at in range(40)]
    moments = 4_000 * np.sort(rng.integers(0, 900, 250))
    events = [(f"u{rng.integers(4)}", f"i{min(rng.geometric(0.08), 39)}", int(time)) for time in moments]
    events += [(user, f"i{rng.integers(40)}", time) for user, _, time in events for _ in range(rng.integers(3))]
    return make(events, items=items, item_fields=FIELDS, settings={"cuts": (0.6, 0.7)})


def asked(dataset: Dataset) -> Examples:
    """Test examples, a few with their youngest events hidden, one without any event."""
    examples = dataset.examples("test").take(slice(0, 90))
    position_N = np.array(examples.position_N)
    position_N[:10] = np.maximum(position_N[:10] - 2, 0)
    position_N[10] = 0
    return replace(examples, position_N=position_N)


def further_inputs(dataset: Dataset, examples: Examples, vectors: dict[str, Float32Array]) -> Float32Array:
    week = week_odds(dataset)
    first = len(feature_names(dataset.schema, tuple(vectors)))
    names = feature_names(dataset.schema, tuple(vectors), FURTHER)
    value_NK = np.full((len(examples), len(names)), np.nan, np.float32)
    fill_features(value_NK, dataset, examples, vectors, FURTHER, week)
    return value_NK[:, first:]


def test_every_further_input_is_what_its_definition_says(dataset: Dataset) -> None:
    examples, vectors = asked(dataset), unit_vectors(dataset, 4, seed=0)
    assert {"item", "type"} <= set(vectors)
    found_NK = further_inputs(dataset, examples, vectors)
    names = feature_names(dataset.schema, tuple(vectors), FURTHER)[-found_NK.shape[1] :]
    expected = [dict(plain(dataset, examples.take(slice(at, at + 1)), vectors)) for at in range(len(examples))]
    assert set(names) == set(expected[0])
    for place, name in enumerate(names):
        wanted_N = [features[name] for features in expected]
        np.testing.assert_allclose(found_NK[:, place], wanted_N, rtol=1e-5, atol=1e-5, err_msg=name)
        assert len(set(wanted_N)) > 1, f"{name} never varies, so nothing is shown"


def plain(dataset: Dataset, example: Examples, vectors: dict[str, Float32Array]) -> Iterator[tuple[str, float]]:
    """All further inputs of one example, by loops over its events."""
    user, row, now, position = (int(column[0]) for column in example.columns()[:4])
    rows = dataset.histories.row_N[dataset.histories.of(user)][:position].tolist()
    times = dataset.histories.time_N[dataset.histories.of(user)][:position].tolist()
    number_VF = dataset.catalogue.number_VF.tolist()
    for left, right in FURTHER.pairs:
        codes: dict[Any, int] = {}
        pairs = [
            codes.setdefault((number_VF[r][left], number_VF[r][right]), len(codes) + FIRST_ROW) for r in (*rows, row)
        ]
        known = min(number_VF[row][left], number_VF[row][right]) > UNKNOWN
        values = of_value(pairs[:-1], pairs[-1] if known else 0, times, sorted(set(times)), now)
        yield from ((f"{FIELDS[left - 1]} x {FIELDS[right - 1]}.{name}", value) for name, value in values)
    yield from ((f"type.{name}", value) for name, value in of_kind(rows, row, [number[1] for number in number_VF]))
    last = next((r for r in reversed(rows) if number_VF[r][1] == number_VF[row][1]), None)
    for place, field in ((2, "maker"), (3, "size")):
        yield f"type.last_{field}", -1.0 if last is None else number_VF[last][place] == number_VF[row][place]
    for place, field in enumerate(("item", *FIELDS)):
        yield field + WEEK, odds(dataset, place, number_VF[row][place], part(now))
    same = [
        number_VF[r][1] == number_VF[row][1] and part(time) == part(now) for r, time in zip(rows, times, strict=True)
    ]
    yield f"type.count{WEEK}", sum(same)
    for place, field in ((0, "item"), (1, "type")):
        cosines = [
            float(vectors[field][number_VF[r][place]] @ vectors[field][number_VF[row][place]]) for r in rows[-100:]
        ]
        yield from ((f"{field}.{name}", value) for name, value in of_cosines(cosines))


def of_kind(rows: list[int], row: int, kind_V: list[int]) -> Iterator[tuple[str, float]]:
    of_it = [place for place, r in enumerate(rows) if kind_V[r] == kind_V[row]]
    held = [rows[place] for place in of_it]
    new = [place for place in of_it if rows[place] not in rows[:place]]
    yield "items", len(set(held))
    yield "items_share", len(set(held)) / len(held) if held else -1.0
    yield "item_share", held.count(row) / len(held) if held else -1.0
    yield "item_over_most", held.count(row) / max(map(held.count, held)) if held else -1.0
    yield "item_last", held[-1] == row if held else -1.0
    yield "events_since_new", len(rows) - new[-1] if held else -1.0
    yield "kind_since_item", held[::-1].index(row) + 1 if row in held else -1.0
    for half in (64, 256):
        weights = [0.5 ** ((len(rows) - place) / half) for place in range(len(rows))]
        again = [weight for place, weight in enumerate(weights) if rows[place] in rows[:place]]
        yield f"repeats_{half}", sum(again) / sum(weights) if rows else -1.0


def of_cosines(cosines: list[float]) -> Iterator[tuple[str, float]]:
    number = len(cosines)
    yield "likest", max(cosines, default=-1.0)
    yield "likest_20", max(cosines[-20:], default=-1.0)
    yield "likeness", sum(cosines) / number if number else 0.0
    yield "alike", sum(cosine > 0.5 for cosine in cosines)
    yield "much_alike", sum(cosine > 0.8 for cosine in cosines)
    yield "soft_likeness", math.log(sum(math.exp(6 * cosine) for cosine in cosines) / number) if number else 0.0


def part(time: int) -> int:
    return 8 * ((time // DAY + 3) % 7 >= 5) + time % DAY // (3 * 3600)


def odds(dataset: Dataset, place: int, value: int, wanted: int, before: int | None = None) -> float:
    """Of a part of the week among the training targets that hold a value."""
    train = dataset.examples("train")
    met = [
        (int(r), part(int(time)))
        for r, time in zip(train.row_N, train.time_N, strict=True)
        if before is None or time < before
    ]
    usual = (sum(at == wanted for _, at in met) + 1) / (len(met) + 16)
    own = [at for r, at in met if dataset.catalogue.number_VF[r, place] == value]
    return math.log((own.count(wanted) + 10 * usual) / (len(own) + 10) / usual)


def test_log_odds_of_the_week_can_end_before_the_examples_that_see_them(dataset: Dataset) -> None:
    before = int(np.median(dataset.examples("train").time_N))
    early, whole = week_odds(dataset, before), week_odds(dataset)
    number = int(dataset.catalogue.number_VF[dataset.examples("train").row_N[0], 1])
    for at in range(16):
        assert early["type" + WEEK][number, at] == pytest.approx(odds(dataset, 1, number, at, before), abs=1e-5)
    assert not np.array_equal(early["type" + WEEK], whole["type" + WEEK])


def test_events_from_the_moment_of_a_target_on_change_no_further_input(dataset: Dataset) -> None:
    examples, vectors = asked(dataset), unit_vectors(dataset, 4, seed=0)
    before_NK = further_inputs(dataset, examples, vectors)
    for at in range(0, len(examples), 3):
        one, histories = examples.take(slice(at, at + 1)), dataset.histories
        first, end = (int(histories.offset_U[one.user_N[0] + more]) for more in (0, 1))
        row_N, time_N = np.array(histories.row_N), np.array(histories.time_N)
        row_N[first + one.position_N[0] : end], time_N[first + one.position_N[0] : end] = FIRST_ROW + 2, 2**40
        changed = Dataset(dataset.folder)
        changed.__dict__["histories"] = replace(histories, row_N=row_N, time_N=time_N)
        assert np.array_equal(further_inputs(changed, one, vectors)[0], before_NK[at])


def test_fields_are_chosen_by_what_they_tell_of_an_item_whatever_their_names(make: Make) -> None:
    rng = np.random.default_rng(0)
    # "grid" and "line" tell half of an item each, "same" is "grid" by another name, "side" says next to nothing, and
    # "fine" with any other field is the item itself.
    items = [
        (f"i{at}", f"g{at % 8}", f"s{at % 8}", f"r{at // 8 % 8}", f"e{at // 255}", f"f{at // 2}") for at in range(256)
    ]
    events = [(f"u{rng.integers(20)}", f"i{rng.integers(256)}", at) for at in range(6000)]
    fields = ("grid", "same", "line", "side", "fine")
    further = chosen(make(events, items=items, item_fields=fields), ALL)
    assert {frozenset(pair) for pair in further.pairs} == {frozenset((1, 3)), frozenset((2, 3))}
    # "fine" tells nearly as much as the item: no kind has two items only.
    assert further.kind in (1, 2, 3)
    alone = chosen(make([(user, item, at) for user, item, at in events], out="alone"), ALL)
    assert (alone.pairs, alone.kind) == ((), 0)
