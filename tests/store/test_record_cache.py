"""Records that were used lately, and copies of what another process wrote."""

import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.online.store.record_cache import ABSENT, PIECE, PackedRecords, RecordCache, RecordCopies, pieces_of

MANY = 3 * PIECE + 7


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


def wrote(copies: RecordCopies, written: dict[str, bytes]) -> None:
    for piece in pieces_of({0: written}):
        copies.wrote(piece[0])


@pytest.fixture
def copies():
    return RecordCopies(2**24)


@pytest.mark.parametrize("size", [1, 63, 64, PIECE, PIECE + 1, MANY])
def test_each_record_of_a_commit_is_found_however_many_there_are(copies, size):
    written = {f"u{number}": f"record of {number}".encode() for number in range(size)}
    wrote(copies, written)
    assert copies.get([*written, "u", "1"]) == [*written.values(), None, None]


def test_many_names_are_found_at_once_each_with_its_latest_record(copies):
    names = [f"u{number}" for number in range(MANY)]
    for at, some in enumerate((names, names[::2], names[::3], names[:5])):
        wrote(copies, dict.fromkeys(some, b"%d" % at))
    latest = dict.fromkeys(names, b"0") | dict.fromkeys(names[::2], b"1") | dict.fromkeys(names[::3], b"2")
    latest |= dict.fromkeys(names[:5], b"3")
    assert copies.get([*names, "nobody"]) == [*latest.values(), None]


def test_names_are_whole_ones_in_any_script(copies):
    written = {
        "ann": b"1",
        "annie": b"2",
        "n": b"3",
        "": b"4",
        "\u00ff": b"5",
        "\ud7ff\U0010ffff": b"6",
        "a\nb\0": b"7",
    }
    wrote(copies, written | {f"other{number}": b"x" for number in range(PIECE)})
    assert copies.get([*written]) == [*written.values()]
    assert copies.get(["an", "nn", "\u00fe"]) == [None, None, None]


def test_pieces_hold_all_of_a_commit_and_none_is_large():
    written = {0: {f"u{number}": b"x" for number in range(MANY)}, 1: {"u1": b"y"}, 2: {}}
    pieces = list(pieces_of(written))
    assert [len(piece[0].start_N) - 1 for piece in pieces] == [PIECE, PIECE, PIECE, 7]
    assert [1 in piece for piece in pieces] == [True, False, False, False]
    assert not any(2 in piece for piece in pieces)
    assert list(pieces_of({})) == []


@pytest.mark.parametrize("others", [0, 5, PIECE, MANY])
def test_what_was_asked_for_stays_up_to_date_and_what_was_erased_is_known_to_be_absent(copies, others):
    more = {f"other{number}": b"x" for number in range(others)}
    copies.offer(copies.moment, ["ann", "bob"], [b"1", None])
    wrote(copies, {"ann": b"2", "bob": b"3", "eve": b"4"} | more)
    assert copies.get(["ann", "bob", "eve"]) == [b"2", b"3", b"4"]
    wrote(copies, more | {"ann": ABSENT, "eve": ABSENT})
    assert copies.get(["ann", "bob", "eve"]) == [ABSENT, b"3", ABSENT]


def test_what_was_read_before_a_write_of_another_process_does_not_hide_it(copies):
    moment = copies.moment
    wrote(copies, {"ann": b"new"})
    copies.offer(moment, ["ann"], [b"old"])
    assert copies.get(["ann"]) == [b"new"]


@pytest.mark.parametrize("others", [0, PIECE])
def test_who_asks_while_a_piece_is_taken_in_finds_no_old_record_that_stays(copies, monkeypatch, others):
    more, found = {f"other{number}": b"x" for number in range(others)}, []
    wrote(copies, {"ann": b"1"} | more)
    wrote_some = copies._asked.wrote_some

    def wrote_some_and_asked(*arguments):
        wrote_some(*arguments)
        found.append(copies.get(["ann"]))

    monkeypatch.setattr(copies._asked, "wrote_some", wrote_some_and_asked)
    wrote(copies, {"ann": b"2"} | more)
    assert found[0] == copies.get(["ann"]) == [b"2"]


def test_what_was_asked_for_outlives_what_was_only_written():
    copies = RecordCopies(limit=200_000)
    wrote(copies, {"asked": b"x" * 100, "not asked": b"x"})
    assert copies.get(["asked"]) == [b"x" * 100]
    for number in range(MANY):
        wrote(copies, {f"{number} {k}": b"x" * 100 for k in range(PIECE)})
    assert copies.get(["asked", "not asked", "0 0"]) == [b"x" * 100, None, None]
    assert copies.get([f"{MANY - 1} 0"]) == [b"x" * 100]


def test_what_was_read_once_from_the_store_outlives_what_was_written_after_it():
    copies = RecordCopies(limit=100_000)
    copies.offer(copies.moment, ["asked"], [b"x" * 100])
    for number in range(400):
        wrote(copies, {f"written{number}": b"x" * 100})
    for number in range(4):
        wrote(copies, {f"later {number} {k}": b"x" * 100 for k in range(PIECE)})
    assert copies.get(["asked", "written0"]) == [b"x" * 100, None]


def test_who_is_asked_for_again_and_again_stays():
    copies = RecordCopies(limit=40_000)
    wrote(copies, {"often": b"x", "once": b"x"})
    for number in range(1_000):
        wrote(copies, {f"other{number}": b"x" * 100})
        copies.get(["often", f"other{number}"] if number else ["often", "once"])
    assert copies.get(["often", "once"]) == [b"x", None]


@pytest.mark.parametrize("size", [1, PIECE])
def test_copies_stay_within_their_limit(size):
    copies, limit = RecordCopies(limit=400_000), 400_000
    for number in range(6_000 // size):
        names = [f"{number} {k}" for k in range(size)]
        wrote(copies, dict.fromkeys(names, b"x" * 100))
        copies.get(names[:1])
    kept = copies._bytes + copies._asked._bytes + sum(map(len, copies._small.values()))
    assert limit / 5 < kept < limit


def test_a_search_passes_over_a_bounded_number_of_pieces(copies):
    for number in range(200):
        wrote(copies, {f"{number} {k}": b"x" for k in range(100)})
    known = [copies.get([f"{number} 7"]) != [None] for number in range(200)]
    assert known == [number >= 200 - 64 for number in range(200)]


def test_after_forgetting_nothing_is_known(copies):
    wrote(copies, {f"u{number}": b"1" for number in range(MANY)})
    wrote(copies, {"small": b"1"})
    copies.get(["u1"])
    copies.forget()
    assert copies.get(["u1", "u2", "small"]) == [None, None, None]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wrote"), st.integers(0, 400), st.sampled_from([1, 3, 70, 300])),
        st.tuples(st.just("erased"), st.integers(0, 400), st.sampled_from([1, 80])),
        st.tuples(st.just("asked"), st.integers(0, 400), st.sampled_from([1, 20])),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(steps)
def test_what_is_known_is_what_was_written_last(some):
    copies, truth = RecordCopies(limit=60_000), dict[str, bytes]()
    for at, (what, first, size) in enumerate(some):
        names = [f"u{(first + k) % 400}" for k in range(size)]
        if what == "asked":
            missing = [name for name, record in zip(names, copies.get(names), strict=True) if record is None]
            copies.offer(copies.moment, missing, [truth.get(name) for name in missing])
        else:
            written = dict.fromkeys(names, ABSENT if what == "erased" else b"%d" % at * 20)
            wrote(copies, written)
            truth |= written
        found = copies.get([f"u{k}" for k in range(400)])
        assert all(record in (None, truth.get(f"u{k}", ABSENT)) for k, record in enumerate(found))


def test_readers_never_get_an_older_record_than_was_there_when_they_asked():
    copies, names = RecordCopies(limit=60_000), [f"u{k}" for k in range(20)]
    others = {f"other{k}": b"x" * 50 for k in range(PIECE)}
    stored, announced, over, wrong = [0], [0], threading.Event(), list[str]()

    def ask() -> None:
        while not over.is_set():
            for name in names:
                before, moment = announced[0], copies.moment
                (record,) = copies.get([name])
                if record is None:
                    copies.offer(moment, [name], [b"%d" % stored[0]])
                elif int(record) < before:
                    wrong.append(f"{name} was {record!r} after {before}")
            # They take the room of the names before.
            copies.get([*others])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 400):
            stored[0] = number
            wrote(copies, dict.fromkeys(names, b"%d" % number) | (others if number % 3 else {}))
            announced[0] = number
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:3]
    assert all(record in (None, b"399") for record in copies.get(names))


def test_packed_records_are_the_same_after_the_way_between_processes():
    packed = PackedRecords.of({b"ann": b"12", b"bob": b"", b"eve": b"3"})
    again = pickle.loads(pickle.dumps(packed))
    assert (again, again.listed()) == (packed, [b"ann", b"bob", b"eve"])
    assert [again.get(name) for name in (b"ann", b"bob", b"eve", b"a")] == [b"12", b"", b"3", None]
