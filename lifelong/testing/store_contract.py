"""What every memory store must do; a new store gets these checks by being named.

    @pytest.mark.parametrize("check", checks_for(durable=True), ids=lambda check: check.__name__)
    def test_contract(check, tmp_path): check(lambda: MyStore(tmp_path / "store"))

A check takes a function that opens the store: the first call makes a new one, each later call (after closing) opens it
again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from lifelong.errors import StoreConflictError, StoreError, StoreForeignError
from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.online.store.contract import ITEMS, SOURCES, Commit, MemoryStore

Open = Callable[[], MemoryStore]
Check = Callable[[Open], None]
E = TypeVar("E", bound=Exception)

IDENTITY = StoreIdentity("a" * 64, "fp32", '[{"name":"slot","shape":[2,3]}]')
OTHER = StoreIdentity("b" * 64, "fp16", '[{"name":"slot","shape":[4,3]}]')
STRANGE = ["u", "u/1", "u\x001", "", "e", "ü", "日本", "a:b", "a b\n", "\x00", "u" * 500, "u\xff"]
"""Ids that are no trouble, separators and prefixes of each other among them."""
_DAY = 86_400


def checks_for(*, durable: bool) -> list[Check]:
    """The checks of a store.

    Args:
        durable: whether what was committed is there after closing and opening again.
    """
    checks = {name: check for name, check in globals().items() if name.startswith("check_")}
    reopening = {name for name in checks if name.startswith("check_reopened")}
    return [
        check if name in reopening else _on_one_store(check)
        for name, check in checks.items()
        if durable or name not in reopening
    ]


def _on_one_store(check: Callable[[MemoryStore], None]) -> Check:
    """A check of a store that is opened once, as one that opens and closes it."""

    @functools.wraps(check)
    def opened(open_store: Open) -> None:
        with contextlib.closing(open_store()) as store:
            check(store)

    return opened


def check_an_absent_user_is_none(store: MemoryStore) -> None:
    """An answer per question."""
    assert store.read_many(["nobody", "no one"]) == [None, None]
    assert store.read_many([]) == []


def check_reads_are_in_the_order_of_the_question(store: MemoryStore) -> None:
    """Repeated users too."""
    store.commit(Commit(records={0: {"a": b"1", "b": b"2"}}))
    assert store.read_many(["b", "x", "a", "b"]) == [b"2", None, b"1", b"2"]


def check_any_text_is_an_id(store: MemoryStore) -> None:
    """Ids with separators, empty ones and prefixes of each other stay apart, everywhere."""
    value = {name: f"{number}".encode() for number, name in enumerate(STRANGE)}
    store.commit(
        Commit(
            records={0: value, ITEMS: value},
            events={(name, 1): text for name, text in value.items()},
            watermarks={(name, 3): number for number, name in enumerate(STRANGE)},
            event_ids=dict.fromkeys(zip(STRANGE, reversed(STRANGE), strict=True), 50),
        )
    )
    assert store.read_many(STRANGE) == list(value.values())
    assert store.read_many(STRANGE, space=ITEMS) == list(value.values())
    assert dict(store.scan()) == value and dict(store.scan(ITEMS)) == value
    assert [store.events(name) for name in STRANGE] == [[text] for text in value.values()]
    assert [store.watermark(name, 3) for name in STRANGE] == list(range(len(STRANGE)))
    assert [store.positions(name, 3, [name]) for name in STRANGE] == [[number] for number in range(len(STRANGE))]
    pairs = [(name, other) for name in STRANGE for other in STRANGE]
    written = set(zip(STRANGE, reversed(STRANGE), strict=True))
    assert store.seen(pairs, now=10) == [pair in written for pair in pairs]


def check_a_new_memory_replaces_the_old_one(store: MemoryStore) -> None:
    """And leaves the others alone."""
    store.commit(Commit(records={0: {"a": b"1", "b": b"2"}}))
    store.commit(Commit(records={0: {"a": b"33"}}))
    assert store.read_many(["a", "b"]) == [b"33", b"2"]


def check_an_empty_commit_changes_nothing(store: MemoryStore) -> None:
    """It is no error either."""
    store.commit(Commit())
    assert list(store.scan()) == []


def check_watermarks_are_kept_by_source_and_partition(store: MemoryStore) -> None:
    """-1 where nothing was applied; 0 is an offset."""
    store.commit(Commit(watermarks={("a", 0): 0, ("a", 1): 7, ("b", 0): 2**40}))
    asked = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0)]
    assert [store.watermark(*key) for key in asked] == [0, 7, 2**40, -1, -1]


def check_event_ids_are_seen_until_they_expire(store: MemoryStore) -> None:
    """At its expiry an id is not known any more."""
    x, y = ("u", "x"), ("v", "y")
    store.commit(Commit(event_ids={x: 100, y: 200}))
    assert store.seen([x, y, ("u", "z"), ("v", "x")], now=99) == [True, True, False, False]
    assert store.seen([x, y], now=100) == [False, True]
    assert store.seen([], now=100) == []


def check_an_event_id_can_come_again_after_it_expired(store: MemoryStore) -> None:
    """The later expiry counts, also once the earlier one is cleared away."""
    x, y = ("u", "x"), ("u", "y")
    store.commit(Commit(event_ids={x: 100}))
    assert store.seen([x], now=150) == [False]
    store.commit(Commit(event_ids={x: 300}))
    store.commit(Commit(event_ids={y: 400}))
    assert store.seen([x, y], now=200) == [True, True]


def check_who_asks_with_a_wrong_second_takes_no_event_id_out(store: MemoryStore) -> None:
    """An id is forgotten only when the store's own clock says so, too."""
    x, y = ("u", "x"), ("u", "y")
    store.commit(Commit(event_ids={x: store.clock() + _DAY}))
    assert store.seen([x], now=store.clock() + 400 * _DAY) == [False]
    store.commit(Commit(event_ids={y: store.clock() + _DAY}))
    assert store.seen([x, y], now=store.clock()) == [True, True]


def check_expired_event_ids_are_removed(store: MemoryStore) -> None:
    """By commits of other users, too: those who never come again leave nothing behind."""
    gone = [f"gone {number}" for number in range(20)]
    store.commit(Commit(event_ids={(user, name): 100 for user in gone for name in ("x", "y")}))
    store.seen([], now=3 * _DAY)
    # Enough of them to be in every part of any store.
    for numbers in (range(2_000), range(2_000, 4_000)):
        store.commit(Commit(event_ids={(f"new {number}", "x"): 4 * _DAY for number in numbers}))
    assert [store.event_ids(user) for user in gone] == [[]] * len(gone)
    assert store.event_ids("new 0") == [("x", 4 * _DAY)]


def check_the_log_is_ordered_by_count(store: MemoryStore) -> None:
    """As a number and not as text, whatever the order of writing; `last` takes from the end."""
    # Sorted as texts, 11 and 300 would be in another order than as numbers, and 2 last.
    store.commit(Commit(events={("u", count): str(count).encode() for count in (300, 2, 11)}))
    store.commit(Commit(events={("u", 1): b"1", ("v", 9): b"9"}))
    assert store.events("u") == [b"1", b"2", b"11", b"300"]
    assert store.events("u", last=2) == [b"11", b"300"]
    assert store.events("u", last=9) == [b"1", b"2", b"11", b"300"]
    assert store.events("u", last=0) == [] and store.events("nobody") == []
    asked = [("u", 0), ("u", 2), ("v", 9), ("nobody", 0), ("u", 10)]
    later = [(11, b"11"), (300, b"300")]
    assert store.logs(asked) == [[(1, b"1"), (2, b"2"), *later], later, [], [], later] and store.logs([]) == []


def check_deleting_erases_memory_events_and_ids(store: MemoryStore) -> None:
    """Of this user alone, and not what has no user."""
    ids = {("u", "x"): 100, ("uu", "x"): 100}
    log = {("u", 1): b"e", ("uu", 1): b"f"}
    store.commit(Commit(records={0: {"u": b"1", "uu": b"2"}, ITEMS: {"u": b"i"}}, events=log, event_ids=ids))
    assert store.event_ids("u") == [("x", 100)]
    store.commit(Commit(deleted=["u", "nobody"]))
    assert store.event_ids("u") == [] and store.event_ids("uu") == [("x", 100)]
    store.purge()
    assert store.seen(list(ids), now=1) == [False, True]
    assert store.read_many(["u", "uu"]) == [None, b"2"]
    assert (store.events("u"), store.events("uu")) == ([], [b"f"])
    assert dict(store.scan(ITEMS)) == {"u": b"i"} and dict(store.scan()) == {"uu": b"2"}


def check_deleting_comes_before_writing(store: MemoryStore) -> None:
    """A commit that does both leaves what it writes."""
    store.commit(Commit(records={0: {"u": b"1"}}, events={("u", 1): b"e", ("u", 2): b"f"}))
    store.commit(Commit(records={0: {"u": b"2"}}, deleted=["u"], events={("u", 1): b"g"}))
    assert (store.read_many(["u"]), store.events("u")) == ([b"2"], [b"g"])


def check_a_log_is_trimmed_from_its_beginning(store: MemoryStore) -> None:
    """Of one user, up to a count; before what the same commit writes."""
    log = {(user, count): b"%d" % count for user in ("u", "uu") for count in (1, 2, 3, 300)}
    store.commit(Commit(records={0: {"u": b"1"}}, events=log))
    store.commit(Commit(bases={0: {"u": b"1"}}, trimmed={"u": 2, "nobody": 5}))
    assert store.logs([("u", 0), ("uu", 1)]) == [[(3, b"3"), (300, b"300")], [(2, b"2"), (3, b"3"), (300, b"300")]]
    _raises(StoreConflictError, store.commit, Commit(bases={0: {"u": b"2"}}, trimmed={"u": 300}))
    assert store.events("u") == [b"3", b"300"] and store.read_many(["u"]) == [b"1"]
    store.commit(Commit(trimmed={"u": 300}, events={("u", 301): b"e", ("u", 5): b"f"}))
    assert store.logs([("u", 0)]) == [[(5, b"f"), (301, b"e")]]


def check_items_put_online_can_be_removed(store: MemoryStore) -> None:
    """One that is not there is no error; users and other items stay; the store need not be opened again."""
    store.commit(Commit(records={0: {"i": b"user"}, ITEMS: {"i": b"1", "j": b"2", "k": b"3"}}))
    assert store.read_many(["i", "j", "k"], space=ITEMS) == [b"1", b"2", b"3"]
    store.commit(Commit(bases={ITEMS: {"i": b"1"}}, removed=["i", "j", "nothing"]))
    assert store.read_many(["i", "j", "k"], space=ITEMS) == [None, None, b"3"]
    assert dict(store.scan(ITEMS)) == {"k": b"3"} and store.read_many(["i"]) == [b"user"]
    _raises(StoreConflictError, store.commit, Commit(bases={ITEMS: {"k": b"other"}}, removed=["k"]))
    store.commit(Commit(records={ITEMS: {"i": b"4"}}, removed=["i"]))
    assert dict(store.scan(ITEMS)) == {"k": b"3", "i": b"4"}


def check_items_are_kept_and_replaced(store: MemoryStore) -> None:
    """By item; absent ones are None."""
    assert store.read_many(["i"], space=ITEMS) == [None]
    store.commit(Commit(records={ITEMS: {"i": b"{}", "j": b"1"}}))
    store.commit(Commit(records={ITEMS: {"i": b"2"}}))
    assert store.read_many(["j", "x", "i"], space=ITEMS) == [b"1", None, b"2"]
    assert dict(store.scan(ITEMS)) == {"i": b"2", "j": b"1"}


def check_what_was_applied_of_a_source_is_kept_with_its_watermark(store: MemoryStore) -> None:
    """Under any name, together with memories or alone; a later one takes its place."""
    assert list(store.scan(SOURCES)) == []
    for number, name in enumerate(STRANGE):
        user = {"u": b"%d" % number}
        store.commit(Commit({0: user, SOURCES: {name: b"old"}}, watermarks={(name, 0): 1}))
        store.commit(Commit({0: user, SOURCES: {name: name.encode()}}, watermarks={(name, 0): 2}))
    store.commit(Commit(records={SOURCES: {"alone": b"1"}}))
    applied_of = dict.fromkeys(STRANGE, b"") | {name: name.encode() for name in STRANGE} | {"alone": b"1"}
    # In a store of several parts those that have none of the users keep what was written before.
    assert applied_of.items() <= set(store.scan(SOURCES))
    assert {name for name, _ in store.scan(SOURCES)} == applied_of.keys()
    store.commit(Commit(deleted=["u", "alone"]))
    assert {name for name, _ in store.scan(SOURCES)} == applied_of.keys()


def check_a_memory_made_from_an_older_one_is_refused(store: MemoryStore) -> None:
    """With all that was written with it; the error names the user."""
    store.commit(Commit(records={0: {"u": b"1"}}, bases={0: {"u": None}}))
    store.commit(Commit(records={0: {"u": b"2"}}, bases={0: {"u": b"1"}}))
    for base in (None, b"1", b"22"):
        marks, log = {("s", 0): 7}, {("u", 3): b"e"}
        change = Commit(records={0: {"u": b"3"}}, bases={0: {"u": base}}, watermarks=marks, events=log)
        assert "u" in _raises(StoreConflictError, store.commit, change).users
        assert (store.read_many(["u"]), store.events("u")) == ([b"2"], [])
        assert (store.watermark("s", 0), store.positions("s", 0, ["u"])) == (-1, [-1])
    store.commit(Commit(deleted=["u"]))
    _raises(StoreConflictError, store.commit, Commit(records={0: {"u": b"3"}}, bases={0: {"u": b"2"}}))
    store.commit(Commit(records={0: {"u": b"3"}}, bases={0: {"u": None}}))
    assert store.read_many(["u"]) == [b"3"]


def check_a_refused_memory_leaves_its_users_whole_and_says_who_they_are(store: MemoryStore) -> None:
    """Whoever is not named in the error has been written; the watermark waits for all."""
    users = [f"u{number}" for number in range(50)]
    store.commit(Commit(records={0: {"u7": b"other"}}))
    change = Commit(
        records={0: dict.fromkeys(users, b"new")},
        bases={0: dict.fromkeys(users)},
        watermarks={("s", 1): 9},
        events={(user, 1): b"e" for user in users},
        event_ids={(user, "x"): 100 for user in users},
    )
    refused = _raises(StoreConflictError, store.commit, change).users
    assert "u7" in refused and store.watermark("s", 1) == -1
    for user in users:
        written = user not in refused
        assert store.read_many([user]) == [b"new" if written else b"other" if user == "u7" else None]
        assert store.events(user) == [b"e"] * written and store.seen([(user, "x")], now=1) == [written]
        assert store.positions("s", 1, [user]) == [9 if written else -1]


def check_an_item_made_from_older_fields_is_refused(store: MemoryStore) -> None:
    """As a memory is."""
    store.commit(Commit(records={ITEMS: {"i": b"1"}}, bases={ITEMS: {"i": None}}))
    store.commit(Commit(records={ITEMS: {"i": b"2"}}, bases={ITEMS: {"i": b"1"}}))
    for base in (None, b"1"):
        _raises(StoreConflictError, store.commit, Commit(records={ITEMS: {"i": b"3"}}, bases={ITEMS: {"i": base}}))
    assert store.read_many(["i"], space=ITEMS) == [b"2"]


def check_a_write_to_a_store_that_has_lost_commits_is_refused(store: MemoryStore) -> None:
    """Its maker has seen a watermark that the store no longer has; one that is further is fine."""
    store.commit(Commit(records={0: {"u": b"1"}}, watermarks={("s", 0): 7}))
    for offset in (-1, 6, 7):
        store.commit(Commit(records={0: {"u": b"2"}}, watermarks={("s", 0): 9}, reached={("s", 0): offset}))
    late = Commit(records={0: {"u": b"3"}}, bases={0: {"u": b"2"}}, watermarks={("s", 0): 12}, reached={("s", 0): 10})
    for change in (late, Commit(watermarks={("s", 1): 5}, reached={("s", 1): 4})):
        _raises(StoreConflictError, store.commit, change)
    assert store.watermark("s", 0) == 9 and store.watermark("s", 1) == -1


def check_a_store_that_is_asked_whether_it_takes_writes_holds_what_it_held(store: MemoryStore) -> None:
    """The mark that it writes is nobody's memory."""
    store.commit(Commit(records={0: {"u": b"1"}}, watermarks={("s", 0): 3}))
    for _ in range(2):
        store.check_writes()
    assert list(store.scan()) == [("u", b"1")] and not list(store.scan(ITEMS)) and store.watermark("s", 0) == 3


def check_a_scan_is_one_view(store: MemoryStore) -> None:
    """Commits that come while it is read do not show in it; where others may write, each user is old or new."""
    store.commit(Commit(records={0: {f"u{number:04}": b"old" for number in range(3000)}}))
    view = store.scan()
    first = next(view)
    store.commit(Commit(records={0: {f"u{number:04}": b"new" for number in range(3001)}}, deleted=["u2999"]))
    rows = [first, *view]
    if store.shared:
        assert {f"u{number:04}" for number in range(2999)} <= {user for user, _ in rows}
        assert {value for _, value in rows} <= {b"old", b"new"}
    else:
        assert len(rows) == 3000 and {value for _, value in rows} == {b"old"}
    assert {value for _, value in store.scan()} == {b"new"}


def check_a_new_store_has_no_identity_and_takes_one(store: MemoryStore) -> None:
    """That identity is accepted again."""
    assert store.artifact_list().identity is None
    store.bind(IDENTITY)
    store.bind(IDENTITY)
    assert store.artifact_list().identity == IDENTITY


def check_another_identity_is_refused(store: MemoryStore) -> None:
    """Another artifact, codec or layout is; the store keeps its identity."""
    store.bind(IDENTITY)
    for change in ({"artifact_id": "b" * 64}, {"codec": "int8"}, {"layout": "[]"}):
        _raises(StoreForeignError, store.bind, replace(IDENTITY, **change))
    assert store.artifact_list().identity == IDENTITY


def check_memories_of_several_artifacts_are_kept_apart(store: MemoryStore) -> None:
    """Strange ids too; one commit writes them, one erasure takes all of them, and clearing a slot leaves the others."""
    _with_two(store)
    store.commit(
        Commit(
            records={0: dict.fromkeys(STRANGE, b"a"), 1: dict.fromkeys(STRANGE, b"b")},
            bases={1: dict.fromkeys(STRANGE)},
        )
    )
    assert store.read_many(STRANGE) == [b"a"] * len(STRANGE)
    assert store.read_many(STRANGE, space=1) == [b"b"] * len(STRANGE)
    assert dict(store.scan(1)) == dict.fromkeys(STRANGE, b"b") and dict(store.scan(2)) == {}
    store.commit(Commit(records={1: {"u": b"c"}}))
    store.commit(Commit(deleted=["e"]))
    assert store.read_many(["u", "e"]) == [b"a", None] and store.read_many(["u", "e"], space=1) == [b"c", None]
    store.clear(1)
    assert dict(store.scan(1)) == {} and len(dict(store.scan())) == len(STRANGE) - 1
    store.clear(0)
    assert dict(store.scan()) == {}


def check_a_commit_made_from_an_older_memory_of_another_artifact_is_refused(store: MemoryStore) -> None:
    """With all of it."""
    _with_two(store)
    store.commit(Commit(records={0: {"u": b"1"}, 1: {"u": b"x"}}))
    change = Commit(records={0: {"u": b"2"}}, bases={0: {"u": b"1"}, 1: {"u": None}})
    assert "u" in _raises(StoreConflictError, store.commit, change).users
    assert (store.read_many(["u"]), store.read_many(["u"], space=1)) == ([b"1"], [b"x"])
    both = {0: {"u": b"2"}, 1: {"u": b"y"}}
    store.commit(replace(change, records=both, bases={0: {"u": b"1"}, 1: {"u": b"x"}}))
    assert (store.read_many(["u"]), store.read_many(["u"], space=1)) == ([b"2"], [b"y"])


def check_a_commit_for_an_older_list_of_artifacts_is_refused(store: MemoryStore) -> None:
    """So no writer leaves out the memories of an artifact that it does not know of."""
    store.bind(IDENTITY)
    store.commit(Commit(records={0: {"u": b"1"}}, epoch=store.artifact_list().epoch))
    old = store.artifact_list().epoch
    _with_two(store)
    _raises(StoreConflictError, store.commit, Commit(records={0: {"u": b"2"}}, epoch=old))
    store.commit(Commit(records={0: {"u": b"3"}}, epoch=store.artifact_list().epoch))
    assert store.read_many(["u"]) == [b"3"]


def check_of_two_changes_of_the_list_the_first_one_counts(store: MemoryStore) -> None:
    """The other one gets an error; making a change again does no harm."""
    store.bind(IDENTITY)
    before = store.artifact_list()
    after = before.add(OTHER)
    store.change_artifact_list(before, after)
    _raises(StoreConflictError, store.change_artifact_list, before, before.add(replace(OTHER, artifact_id="c" * 64)))
    store.change_artifact_list(after, after)
    assert store.artifact_list() == after


def check_the_served_artifact_is_the_stores_identity(store: MemoryStore) -> None:
    """Both are accepted while their memories are complete; one that is not on the list is refused."""
    _with_two(store, finished=False)
    _raises(StoreForeignError, store.bind, OTHER)
    artifact_list = store.artifact_list()
    store.change_artifact_list(artifact_list, artifact_list.turn(OTHER.artifact_id, "ready").serve(OTHER.artifact_id))
    assert store.artifact_list().identity == OTHER and (store.bind(IDENTITY), store.bind(OTHER)) == (0, 1)
    artifact_list = store.artifact_list()
    store.change_artifact_list(artifact_list, artifact_list.drop(IDENTITY.artifact_id))
    _raises(StoreForeignError, store.bind, IDENTITY)


def check_reopened_the_list_of_artifacts_is_there(open_store: Open) -> None:
    """With the memories of each."""
    store = open_store()
    _with_two(store)
    store.commit(Commit(records={0: {"u": b"1"}, 1: {"u": b"x"}}))
    artifact_list = store.artifact_list()
    store.close()
    store = open_store()
    assert store.artifact_list() == artifact_list
    assert (store.read_many(["u"]), store.read_many(["u"], space=1)) == ([b"1"], [b"x"])
    _raises(StoreConflictError, store.commit, Commit(records={0: {"u": b"2"}}, epoch=artifact_list.epoch - 1))
    store.commit(Commit(deleted=["u"]))
    assert store.read_many(["u"], space=1) == [None]
    store.close()


def _with_two(store: MemoryStore, *, finished: bool = True) -> None:
    """Give a store a second artifact."""
    store.bind(IDENTITY)
    artifact_list = store.artifact_list()
    added = artifact_list.add(OTHER)
    store.change_artifact_list(artifact_list, added.turn(OTHER.artifact_id, "ready") if finished else added)


def check_a_failed_commit_keeps_nothing(store: MemoryStore) -> None:
    """One part that cannot be written takes all others with it."""
    store.commit(Commit(records={0: {"u": b"1"}}, watermarks={("s", 0): 1}))
    bad: Any = {("u", 2): object()}
    try:
        store.commit(Commit(records={0: {"u": b"2"}}, watermarks={("s", 0): 2}, events=bad))
    except Exception:
        assert store.read_many(["u"]) == [b"1"] and store.watermark("s", 0) == 1 and store.events("u") == []
    else:
        raise AssertionError("a value that is not bytes was found")


def check_closing_twice_does_nothing(store: MemoryStore) -> None:
    """But a closed store does not answer."""
    store.close()
    store.close()
    for call in (lambda: store.read_many(["u"]), lambda: store.commit(Commit(records={0: {"u": b"1"}})), store.scan):
        _raises(StoreError, call)


def check_reopened_store_holds_everything(open_store: Open) -> None:
    """Memories, watermarks, ids, events, items and the identity."""
    store = open_store()
    store.bind(IDENTITY)
    store.commit(
        Commit(
            records={0: {"u": b"1"}, ITEMS: {"i": b"{}"}},
            watermarks={("s", 2): 5},
            event_ids={("u", "x"): 100},
            events={("u", 1): b"e"},
        )
    )
    store.close()
    store = open_store()
    assert store.artifact_list().identity == IDENTITY
    assert (store.read_many(["u"]), store.watermark("s", 2), store.seen([("u", "x")], now=1)) == ([b"1"], 5, [True])
    assert (store.events("u"), store.read_many(["i"], space=ITEMS)) == ([b"e"], [b"{}"])
    store.close()


def check_reopened_store_has_erased_what_was_deleted(open_store: Open) -> None:
    """Erasure is durable."""
    store = open_store()
    store.commit(Commit(records={0: {"u": b"1"}}, events={("u", 1): b"e"}))
    store.commit(Commit(deleted=["u"]))
    store.close()
    store = open_store()
    assert (store.read_many(["u"]), store.events("u")) == ([None], [])
    store.close()


def check_reopened_after_closing_under_a_reader(open_store: Open) -> None:
    """A view that is still read does not keep the store open; it ends with an error."""
    store = open_store()
    store.commit(Commit(records={0: {"u": b"1", "v": b"2"}}))
    view = store.scan()
    next(view)
    store.close()
    _raises(StoreError, next, view)
    store = open_store()
    assert store.read_many(["v"]) == [b"2"]
    store.close()


def _raises(kind: type[E], call: Callable[..., object], *arguments: object) -> E:
    try:
        call(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")
