"""Records that were used lately."""

import pytest

from lifelong.store.record_cache import ABSENT, RecordCache


@pytest.fixture
def cache():
    return RecordCache[str](10_000)


def test_what_was_read_is_found_and_what_is_not_there_is_known_to_be_absent(cache):
    cache.offer(cache.moment, ["a", "b"], [b"1", None])
    assert cache.get(["a", "b", "c"]) == [b"1", ABSENT, None]


def test_what_was_read_before_a_write_does_not_hide_what_was_written(cache):
    moment = cache.moment
    cache.wrote({"a": b"new"})
    cache.offer(moment, ["a"], [b"old"])
    assert cache.get(["a"]) == [b"new"]


def test_it_stays_within_its_limit_and_forgets_what_was_not_used_longest(cache):
    for number in range(1_000):
        cache.wrote({f"u{number}": b"x" * 100})
    known = [number for number in range(1_000) if cache.get([f"u{number}"])[0] is not None]
    # As many as there is room for: no more are forgotten than have to be.
    assert len(known) == 10_000 // 300
    assert known == list(range(known[0], 1_000))


def test_a_new_record_wins_over_the_one_of_the_generation_before(cache):
    cache.wrote({"a": b"old"})
    for number in range(20):
        cache.wrote({f"u{number}": b"x" * 100})
        if number == 17:
            cache.wrote({"a": b"new"})
    assert cache.get(["a"]) == [b"new"]


def test_after_forgetting_nothing_is_known(cache):
    cache.wrote({"a": b"1"})
    cache.forget()
    assert cache.get(["a"]) == [None]


def test_short_records_leave_room_for_more_of_them_next_to_a_long_one():
    cache = RecordCache[str](10_000)
    cache.wrote({"long": b"x" * 4_000})
    cache.wrote({f"u{number}": b"x" * 10 for number in range(20)})
    assert None not in cache.get(["long", *(f"u{number}" for number in range(20))])


def test_a_record_that_is_written_again_counts_once():
    cache = RecordCache[str](10_000)
    for _ in range(100):
        cache.wrote({"a": b"x" * 4_000, "b": b"x", "c": ABSENT})
    assert None not in cache.get(["a", "b", "c"])


def test_of_what_was_written_only_what_is_kept_can_be_brought_up_to_date(cache):
    cache.offer(cache.moment, ["a", "b"], [b"1", None])
    moment = cache.moment
    cache.wrote_some(["c", "b", "a"], [b"3", b"2", b"4"].__getitem__)
    assert cache.get(["a", "b", "c"]) == [b"4", b"2", None]
    # What was read before may be old, of all names.
    cache.offer(moment, ["c"], [b"old"])
    assert cache.get(["c"]) == [None]


def test_what_was_read_outlives_what_was_only_written_but_not_for_ever():
    cache = RecordCache[str](limit=100_000, favour_read=True)
    cache.wrote({"asked": b"x" * 100})
    for number in range(1_000):
        cache.get(["asked"])
        cache.wrote({f"written{number}": b"x" * 100})
    assert cache.get(["asked", "written0"]) == [b"x" * 100, None]
    for number in range(1_000):
        cache.wrote({f"later{number}": b"x" * 100})
    assert cache.get(["asked"]) == [None]


def test_names_that_are_asked_for_and_not_kept_take_no_room():
    cache = RecordCache[str](limit=100_000, favour_read=True)
    for number in range(1_000):
        before = cache.moment
        assert cache.get([f"u{number}"]) == [None]
        # A commit comes between the read and its record, which is not kept.
        cache.wrote({"busy": b"x"})
        cache.offer(before, [f"u{number}"], [b"old"])
    assert not cache._found


def test_where_everything_was_read_the_bound_holds_too():
    cache = RecordCache[str](limit=100_000, favour_read=True)
    names = [f"n{number}" for number in range(300)]
    cache.wrote(dict.fromkeys(names, b"x" * 100))
    cache.get(names)
    for number in range(3):
        names += [f"{number}m{k}" for k in range(100)]
        cache.wrote(dict.fromkeys(names, b"x" * 100))
        assert 250 <= sum(record is not None for record in cache.get(names)) <= 334
