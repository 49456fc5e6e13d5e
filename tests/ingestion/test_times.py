"""Times of files of events are read as `prepare` reads those of a log."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest

from lifelong.cli.options import moment_of
from lifelong.dataset.events import Schema
from lifelong.dataset.mapping import mapping_from, mapping_of_events
from lifelong.errors import ConfigError, UsageError
from lifelong.online.ingestion.rows import EventRows, Problem
from lifelong.online.memory.event import UserEvent
from lifelong.online.scoring.answer import ScoreRequest

SCHEMA = Schema(item_fields=("item",), event_types=False)


@pytest.mark.parametrize(
    ("said", "value", "seconds"),
    [
        ({"time_unit": "ms"}, "1511629200999", 1_511_629_200),
        ({"time_unit": "us"}, 1_511_629_200_999_999, 1_511_629_200),
        ({"time_unit": "ns"}, "1511629200999999999", 1_511_629_200),
        ({"time_unit": "iso"}, "2017-11-25T17:00:00Z", 1_511_629_200),
        ({"time_unit": "iso"}, "2017-11-25 17:00:00.9", 1_511_629_200),
        ({"time_unit": "iso"}, "2017-11-25T18:00:00+01:00", 1_511_629_200),
        ({"time_format": "%d/%m/%Y %H:%M"}, "25/11/2017 17:00", 1_511_629_200),
        ({}, "1511629200", 1_511_629_200),
    ],
)
def test_a_time_is_what_the_mapping_says(said, value, seconds):
    rows = EventRows(SCHEMA, said)
    assert rows.event({"user": "u", "item": "i", "time": value}).time == seconds
    table = rows.table({"user": ["u", "v"], "item": ["i", "i"], "time": [value, value]})
    assert table.time_N.tolist() == [seconds, seconds]


@pytest.mark.parametrize("value", ["1511629200.9", 1_511_629_200.9, Decimal("1511629200.9"), "1.5116292e9"])
def test_fractions_of_a_second_are_rounded_down(value):
    assert EventRows(SCHEMA, {}).event({"user": "u", "item": "i", "time": value}).time == 1_511_629_200
    rows = EventRows(SCHEMA, {"time_unit": "ms"})
    assert rows.event({"user": "u", "item": "i", "time": float(value) * 1_000}).time == 1_511_629_200


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", True, "1e400", [1], None])
@pytest.mark.parametrize("unit", ["s", "ms"])
def test_what_is_no_number_is_no_time(value, unit):
    assert isinstance(EventRows(SCHEMA, {"time_unit": unit}).event({"user": "u", "item": "i", "time": value}), Problem)


@pytest.mark.parametrize("value", ["yesterday", "", None, "25/11/2017", 3.5])
def test_another_time_is_a_problem_that_says_what_was_expected(value):
    rows = EventRows(SCHEMA, {"time": "at", "time_unit": "iso"})
    assert rows.table({"user": ["u"], "item": ["i"], "at": [value]}) is None
    problem = rows.event({"user": "u", "item": "i", "at": value})
    assert isinstance(problem, Problem)
    assert (problem.column, problem.expected) == ("at", "a time such as 2017-11-25T18:00:00Z")


def test_a_time_far_ahead_is_refused_in_every_unit():
    rows = EventRows(SCHEMA, {"time_unit": "ms"}, lambda: 2_000_000_000)
    assert isinstance(rows.event({"user": "u", "item": "i", "time": 2_000_000_001_000}), Problem)


def test_wrong_units_are_refused():
    with pytest.raises(UsageError, match="time_unit"):
        EventRows(SCHEMA, {"time_unit": "days"})
    with pytest.raises(UsageError, match="seconds"):
        EventRows(SCHEMA, {"time_unit": "ordinal"})


def test_a_setting_of_a_mapping_that_there_is_not_is_refused_by_name(tmp_path):
    path = tmp_path / "mapping.toml"
    path.write_text('user = "who"\nitems_column = "sku"\nzeit = "at"\n')
    with pytest.raises(
        ConfigError, match=r"items_column: there is no such setting; zeit: .*mapping\.toml.*time_format"
    ):
        mapping_from(path)


def test_fields_of_a_mapping_may_be_one_text_and_a_column_wins_over_them():
    mapping = mapping_from({"fields": "brand, price", "user": "who", "name": "shop"})
    assert mapping_of_events(mapping, {"brand": "maker"}, ["brand"]).fields == {"brand": "maker", "price": "price"}


def test_a_unit_of_times_takes_the_place_of_the_format_of_a_mapping():
    rows = EventRows(SCHEMA, {"time_unit": "ms"}, mapping=mapping_from({"time_format": "%d.%m.%Y"}))
    assert rows.event({"user": "u", "item": "i", "time": "5000"}).time == 5


def test_a_topic_takes_no_mapping_that_leaves_rows_out():
    from lifelong.online.ingestion.kafka import StreamSettings

    for setting in ({"query": "FROM log"}, {"labels": ["bought"]}):
        with pytest.raises(UsageError, match="for a topic"):
            StreamSettings(mapping=mapping_from(setting))


MOMENT = 1_764_547_200


@pytest.mark.parametrize(
    "time",
    [
        MOMENT,
        np.int64(MOMENT),
        datetime(2025, 12, 1, tzinfo=UTC),
        datetime(2025, 12, 1),
        datetime(2025, 12, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        date(2025, 12, 1),
        "2025-12-01",
        "2025-12-01T00:00:00.9Z",
        "2025-12-01 01:00+01:00",
    ],
)
def test_a_moment_is_taken_in_every_form_wherever_a_caller_gives_one(time):
    assert UserEvent("u", "i", time).time == ScoreRequest("u", ["i"], time).time == MOMENT
    assert moment_of(str(time)) == MOMENT


@pytest.mark.parametrize("time", ["now", "1764547200", 1.5, True, None, b"2025-12-01", "2025-13-01"])
def test_what_is_no_moment_is_refused_with_the_forms_that_are(time):
    with pytest.raises(UsageError, match=r"time = .*UTC seconds.*datetime.*ISO 8601"):
        UserEvent("u", "i", time)
    if time is not None:
        with pytest.raises(UsageError, match=r"time = .*UTC seconds.*datetime.*ISO 8601"):
            ScoreRequest("u", ["i"], time)


@pytest.mark.parametrize("wrong", [{"user": 5}, {"item": None}, {"user": b"ann"}])
def test_ids_of_an_event_that_are_no_texts_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"{name} = .*text of 1 to 256 characters"):
        UserEvent(**{"user": "u", "item": "i", "time": MOMENT, **wrong})
