"""What every memory store must do; a new store gets these checks by being named.

    @pytest.mark.parametrize("check", checks_for(durable=True), ids=lambda check: check.__name__)
    def test_contract(check, tmp_path): check(lambda: MyStore(tmp_path / "store"))

A check takes a function that opens the store: the first call a new one, each later call (after closing) the same again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from lifelong.errors import StoreConflictError, StoreError, StoreForeignError
from lifelong.memory.item_memory import ITEMS
from lifelong.memory.store import Commit, MemoryStore, StoreIdentity

Open = Callable[[], MemoryStore]
Check = Callable[[Open], None]
E = TypeVar("E", bound=Exception)

IDENTITY = StoreIdentity("a" * 64, "fp32", '[{"name":"slot","shape":[2,3]}]')
OTHER = StoreIdentity("b" * 64, "fp16", '[{"name":"slot","shape":[4,3]}]')
STRANGE = ["u", "u/1", "u\x001", "", "e", "ü", "日本", "a:b", "a b\n", "\x00", "u" * 500, "u\xff"]
"""Ids that are no trouble, separators and prefixes of each other among them."""


def checks_for(*, durable: bool) -> list[Check]:
    """The checks of a store.

    Args:
        durable: whether what was committed is there after closing and opening again.
    """
    checks = [value for name, value in globals().items() if name.startswith("check_")]
    return [check for check in checks if durable or not check.__name__.startswith("check_reopened")]


def check_an_absent_user_is_none(open_store: Open) -> None:
    """An answer per question."""
    store = open_store()
    assert store.read_many(["nobody", "no one"]) == [None, None]
    assert store.read_many([]) == []
    store.close()


def check_reads_stand_in_the_order_of_the_question(open_store: Open) -> None:
    """Repeated users too."""
    store = open_store()
    store.commit(Commit(states={"a": b"1", "b": b"2"}))
    assert store.read_many(["b", "x", "a", "b"]) == [b"2", None, b"1", b"2"]
    store.close()


def check_a_whole_store_keeps_records_of_items_with_those_of_users_or_neither(open_store: Open) -> None:
    """What `whole` promises; an item may be called as a user is, and is not erased with her."""
    store, item = open_store(), (ITEMS, "u")
    if store.whole:
        store.commit(Commit(states={"u": b"1"}, beside={item: b"x"}, beside_based_on={item: None}))
        for stale in ({"based_on": {"u": b"0"}}, {"beside_based_on": {item: None}}):
            with_both = Commit(states={"u": b"2", "v": b"2"}, beside={item: b"y", (ITEMS, "i"): b"y"}, **stale)
            _raises(StoreConflictError, lambda change=with_both: store.commit(change))
        assert store.read_many(["u", "v"]) == [b"1", None]
        assert store.read_many(["u", "i"], slot=ITEMS) == [b"x", None]
        assert list(store.users(slot=ITEMS)) == [("u", b"x")] and list(store.users()) == [("u", b"1")]
        store.commit(Commit(deleted=["u"]))
        assert store.read_many(["u"]) == [None] and store.read_many(["u"], slot=ITEMS) == [b"x"]
    store.close()


def check_any_text_is_an_id(open_store: Open) -> None:
    """Ids with separators, empty ones and prefixes of each other stay apart, everywhere."""
    store = open_store()
    value = {name: f"{place}".encode() for place, name in enumerate(STRANGE)}
    store.commit(
        Commit(
            states=value,
            items=value,
            events={(name, 1): text for name, text in value.items()},
            watermarks={(name, 3): place for place, name in enumerate(STRANGE)},
            event_ids=dict.fromkeys(zip(STRANGE, reversed(STRANGE), strict=True), 50),
        )
    )
    assert store.read_many(STRANGE) == list(value.values())
    assert store.read_items(STRANGE) == list(value.values())
    assert dict(store.users()) == value and dict(store.items()) == value
    assert [store.events(name) for name in STRANGE] == [[text] for text in value.values()]
    assert [store.watermark(name, 3) for name in STRANGE] == list(range(len(STRANGE)))
    assert [store.positions(name, 3, [name]) for name in STRANGE] == [[place] for place in range(len(STRANGE))]
    pairs = [(name, other) for name in STRANGE for other in STRANGE]
    written = set(zip(STRANGE, reversed(STRANGE), strict=True))
    assert store.seen(pairs, now=10) == [pair in written for pair in pairs]
    store.close()


def check_a_new_memory_replaces_the_old_one(open_store: Open) -> None:
    """And leaves the others alone."""
    store = open_store()
    store.commit(Commit(states={"a": b"1", "b": b"2"}))
    store.commit(Commit(states={"a": b"33"}))
    assert store.read_many(["a", "b"]) == [b"33", b"2"]
    store.close()


def check_an_empty_commit_changes_nothing(open_store: Open) -> None:
    """It is no error either."""
    store = open_store()
    store.commit(Commit())
    assert list(store.users()) == []
    store.close()


def check_watermarks_are_kept_by_source_and_partition(open_store: Open) -> None:
    """-1 where nothing was applied; 0 is an offset."""
    store = open_store()
    store.commit(Commit(watermarks={("a", 0): 0, ("a", 1): 7, ("b", 0): 2**40}))
    asked = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0)]
    assert [store.watermark(*key) for key in asked] == [0, 7, 2**40, -1, -1]
    store.close()


def check_event_ids_are_seen_until_they_expire(open_store: Open) -> None:
    """At its expiry an id is not known any more."""
    store = open_store()
    x, y = ("u", "x"), ("v", "y")
    store.commit(Commit(event_ids={x: 100, y: 200}))
    assert store.seen([x, y, ("u", "z"), ("v", "x")], now=99) == [True, True, False, False]
    assert store.seen([x, y], now=100) == [False, True]
    assert store.seen([], now=100) == []
    store.close()


def check_an_event_id_can_come_again_after_it_expired(open_store: Open) -> None:
    """The later expiry counts, also once the earlier one is cleared away."""
    store = open_store()
    x, y = ("u", "x"), ("u", "y")
    store.commit(Commit(event_ids={x: 100}))
    assert store.seen([x], now=150) == [False]
    store.commit(Commit(event_ids={x: 300}))
    store.commit(Commit(event_ids={y: 400}))
    assert store.seen([x, y], now=200) == [True, True]
    store.close()


def check_the_log_is_ordered_by_count(open_store: Open) -> None:
    """As a number and not as text, whatever the order of writing; `last` takes from the end."""
    store = open_store()
    store.commit(Commit(events={("u", count): str(count).encode() for count in (300, 2, 11)}))
    store.commit(Commit(events={("u", 1): b"1", ("v", 9): b"9"}))
    assert store.events("u") == [b"1", b"2", b"11", b"300"]
    assert store.events("u", last=2) == [b"11", b"300"]
    assert store.events("u", last=9) == [b"1", b"2", b"11", b"300"]
    assert store.events("u", last=0) == [] and store.events("nobody") == []
    asked = [("u", 0), ("u", 2), ("v", 9), ("nobody", 0), ("u", 10)]
    later = [(11, b"11"), (300, b"300")]
    assert store.logs(asked) == [[(1, b"1"), (2, b"2"), *later], later, [], [], later] and store.logs([]) == []
    store.close()


def check_deleting_erases_memory_events_and_ids(open_store: Open) -> None:
    """Of this user alone, and not what has no user."""
    store = open_store()
    ids = {("u", "x"): 100, ("uu", "x"): 100}
    log = {("u", 1): b"e", ("uu", 1): b"f"}
    store.commit(Commit(states={"u": b"1", "uu": b"2"}, events=log, event_ids=ids, items={"u": b"i"}))
    assert store.event_ids("u") == [("x", 100)]
    store.commit(Commit(deleted=["u", "nobody"]))
    assert store.event_ids("u") == [] and store.event_ids("uu") == [("x", 100)]
    store.purge()
    assert store.seen(list(ids), now=1) == [False, True]
    assert store.read_many(["u", "uu"]) == [None, b"2"]
    assert (store.events("u"), store.events("uu")) == ([], [b"f"])
    assert dict(store.items()) == {"u": b"i"} and dict(store.users()) == {"uu": b"2"}
    store.close()


def check_deleting_comes_before_writing(open_store: Open) -> None:
    """A commit that does both leaves what it writes."""
    store = open_store()
    store.commit(Commit(states={"u": b"1"}, events={("u", 1): b"e", ("u", 2): b"f"}))
    store.commit(Commit(deleted=["u"], states={"u": b"2"}, events={("u", 1): b"g"}))
    assert (store.read_many(["u"]), store.events("u")) == ([b"2"], [b"g"])
    store.close()


def check_a_log_is_trimmed_from_its_beginning(open_store: Open) -> None:
    """Of one user, up to a count; before what the same commit writes."""
    store = open_store()
    log = {(user, count): b"%d" % count for user in ("u", "uu") for count in (1, 2, 3, 300)}
    store.commit(Commit(states={"u": b"1"}, events=log))
    store.commit(Commit(trimmed={"u": 2, "nobody": 5}, based_on={"u": b"1"}))
    assert store.logs([("u", 0), ("uu", 1)]) == [[(3, b"3"), (300, b"300")], [(2, b"2"), (3, b"3"), (300, b"300")]]
    _raises(StoreConflictError, store.commit, Commit(trimmed={"u": 300}, based_on={"u": b"2"}))
    assert store.events("u") == [b"3", b"300"] and store.read_many(["u"]) == [b"1"]
    store.commit(Commit(trimmed={"u": 300}, events={("u", 301): b"e", ("u", 5): b"f"}))
    assert store.logs([("u", 0)]) == [[(5, b"f"), (301, b"e")]]
    store.close()


def check_items_are_kept_and_replaced(open_store: Open) -> None:
    """By item; absent ones are None."""
    store = open_store()
    assert store.read_items(["i"]) == [None]
    assert store.has_items in (False, store.shared)
    store.commit(Commit(items={"i": b"{}", "j": b"1"}))
    assert store.has_items
    store.commit(Commit(items={"i": b"2"}))
    assert store.read_items(["j", "x", "i"]) == [b"1", None, b"2"]
    assert dict(store.items()) == {"i": b"2", "j": b"1"}
    store.close()


def check_a_memory_made_from_an_older_one_is_refused(open_store: Open) -> None:
    """With all that was written beside it; the error names the user."""
    store = open_store()
    store.commit(Commit(states={"u": b"1"}, based_on={"u": None}))
    store.commit(Commit(states={"u": b"2"}, based_on={"u": b"1"}))
    for base in (None, b"1", b"22"):
        marks, log = {("s", 0): 7}, {("u", 3): b"e"}
        change = Commit(states={"u": b"3"}, watermarks=marks, events=log, based_on={"u": base})
        assert "u" in _raises(StoreConflictError, store.commit, change).users
        assert (store.read_many(["u"]), store.events("u")) == ([b"2"], [])
        assert (store.watermark("s", 0), store.positions("s", 0, ["u"])) == (-1, [-1])
    store.commit(Commit(deleted=["u"]))
    _raises(StoreConflictError, store.commit, Commit(states={"u": b"3"}, based_on={"u": b"2"}))
    store.commit(Commit(states={"u": b"3"}, based_on={"u": None}))
    assert store.read_many(["u"]) == [b"3"]
    store.close()


def check_a_refused_memory_leaves_its_users_whole_and_says_who_they_are(open_store: Open) -> None:
    """Whoever is not named in the error has been written; the watermark waits for all."""
    store = open_store()
    users = [f"u{place}" for place in range(50)]
    store.commit(Commit(states={"u7": b"other"}))
    change = Commit(
        states=dict.fromkeys(users, b"new"),
        watermarks={("s", 1): 9},
        events={(user, 1): b"e" for user in users},
        event_ids={(user, "x"): 100 for user in users},
        based_on=dict.fromkeys(users),
    )
    refused = _raises(StoreConflictError, store.commit, change).users
    assert "u7" in refused and store.watermark("s", 1) == -1
    for user in users:
        kept = user not in refused
        assert store.read_many([user]) == [b"new" if kept else b"other" if user == "u7" else None]
        assert store.events(user) == [b"e"] * kept and store.seen([(user, "x")], now=1) == [kept]
        assert store.positions("s", 1, [user]) == [9 if kept else -1]
    store.close()


def check_an_item_made_from_older_fields_is_refused(open_store: Open) -> None:
    """As a memory is."""
    store = open_store()
    store.commit(Commit(items={"i": b"1"}, items_based_on={"i": None}))
    store.commit(Commit(items={"i": b"2"}, items_based_on={"i": b"1"}))
    for base in (None, b"1"):
        _raises(StoreConflictError, store.commit, Commit(items={"i": b"3"}, items_based_on={"i": base}))
    assert store.read_items(["i"]) == [b"2"]
    store.close()


def check_a_write_to_a_store_that_stands_behind_is_refused(open_store: Open) -> None:
    """Its maker has seen a watermark that the store no longer has; one that is further is fine."""
    store = open_store()
    store.commit(Commit(states={"u": b"1"}, watermarks={("s", 0): 7}))
    for offset in (-1, 6, 7):
        store.commit(Commit(states={"u": b"2"}, watermarks={("s", 0): 9}, reached={("s", 0): offset}))
    late = Commit(states={"u": b"3"}, watermarks={("s", 0): 12}, based_on={"u": b"2"}, reached={("s", 0): 10})
    for change in (late, Commit(watermarks={("s", 1): 5}, reached={("s", 1): 4})):
        _raises(StoreConflictError, store.commit, change)
    assert store.watermark("s", 0) == 9 and store.watermark("s", 1) == -1
    store.close()


def check_users_is_one_view(open_store: Open) -> None:
    """Commits that come while it is read do not show in it; where others may write, each user is old or new."""
    store = open_store()
    store.commit(Commit(states={f"u{place:04}": b"old" for place in range(3000)}))
    view = store.users()
    first = next(view)
    store.commit(Commit(states={f"u{place:04}": b"new" for place in range(3001)}, deleted=["u2999"]))
    rows = [first, *view]
    if store.shared:
        assert {f"u{place:04}" for place in range(2999)} <= {user for user, _ in rows}
        assert {value for _, value in rows} <= {b"old", b"new"}
    else:
        assert len(rows) == 3000 and {value for _, value in rows} == {b"old"}
    assert {value for _, value in store.users()} == {b"new"}
    store.close()


def check_a_new_store_has_no_identity_and_takes_one(open_store: Open) -> None:
    """The same one is welcome again."""
    store = open_store()
    assert store.identity is None
    store.bind(IDENTITY)
    store.bind(IDENTITY)
    assert store.identity == IDENTITY
    store.close()


def check_another_identity_is_refused(open_store: Open) -> None:
    """Another artifact, codec or layout; the store stays whose it was."""
    store = open_store()
    store.bind(IDENTITY)
    for change in ({"artifact_id": "b" * 64}, {"codec": "int8"}, {"layout": "[]"}):
        _raises(StoreForeignError, store.bind, replace(IDENTITY, **change))
    assert store.identity == IDENTITY
    store.close()


def check_memories_of_several_artifacts_stand_side_by_side(open_store: Open) -> None:
    """Strange ids too; one commit writes them, one erasure takes all of them, and clearing a slot leaves the others."""
    store = open_store()
    _with_two(store)
    store.commit(
        Commit(
            states=dict.fromkeys(STRANGE, b"a"),
            beside={(1, name): b"b" for name in STRANGE},
            beside_based_on={(1, name): None for name in STRANGE},
        )
    )
    assert store.read_many(STRANGE) == [b"a"] * len(STRANGE)
    assert store.read_many(STRANGE, slot=1) == [b"b"] * len(STRANGE)
    assert dict(store.users(slot=1)) == dict.fromkeys(STRANGE, b"b") and dict(store.users(slot=2)) == {}
    store.commit(Commit(states={"u": b"c"}, slot=1))
    store.commit(Commit(deleted=["e"]))
    assert store.read_many(["u", "e"]) == [b"a", None] and store.read_many(["u", "e"], slot=1) == [b"c", None]
    store.clear(1)
    assert dict(store.users(slot=1)) == {} and len(dict(store.users())) == len(STRANGE) - 1
    store.clear(0)
    assert dict(store.users()) == {}
    store.close()


def check_a_commit_made_from_an_older_memory_of_another_artifact_is_refused(open_store: Open) -> None:
    """With all of it."""
    store = open_store()
    _with_two(store)
    store.commit(Commit(states={"u": b"1"}, beside={(1, "u"): b"x"}))
    change = Commit(states={"u": b"2"}, based_on={"u": b"1"}, beside_based_on={(1, "u"): None})
    assert "u" in _raises(StoreConflictError, store.commit, change).users
    assert (store.read_many(["u"]), store.read_many(["u"], slot=1)) == ([b"1"], [b"x"])
    store.commit(replace(change, beside={(1, "u"): b"y"}, beside_based_on={(1, "u"): b"x"}))
    assert (store.read_many(["u"]), store.read_many(["u"], slot=1)) == ([b"2"], [b"y"])
    store.close()


def check_a_commit_for_an_older_list_of_artifacts_is_refused(open_store: Open) -> None:
    """So no writer leaves out the memories of an artifact that it does not know of."""
    store = open_store()
    store.bind(IDENTITY)
    store.commit(Commit(states={"u": b"1"}, epoch=store.roster().epoch))
    old = store.roster().epoch
    _with_two(store)
    _raises(StoreConflictError, store.commit, Commit(states={"u": b"2"}, epoch=old))
    store.commit(Commit(states={"u": b"3"}, epoch=store.roster().epoch))
    assert store.read_many(["u"]) == [b"3"]
    store.close()


def check_of_two_changes_of_the_list_the_first_one_counts(open_store: Open) -> None:
    """The other one is told; the same change again is no harm."""
    store = open_store()
    store.bind(IDENTITY)
    before = store.roster()
    after = before.add(OTHER)
    store.change_roster(before, after)
    _raises(StoreConflictError, store.change_roster, before, before.add(replace(OTHER, artifact_id="c" * 64)))
    store.change_roster(after, after)
    assert store.roster() == after
    store.close()


def check_the_served_artifact_is_the_stores_identity(open_store: Open) -> None:
    """Both are welcome while their memories are complete; who is not on the list is refused."""
    store = open_store()
    _with_two(store, finished=False)
    _raises(StoreForeignError, store.bind, OTHER)
    roster = store.roster()
    store.change_roster(roster, roster.turn(OTHER.artifact_id, "ready").serve(OTHER.artifact_id))
    assert store.identity == OTHER and (store.bind(IDENTITY), store.bind(OTHER)) == (0, 1)
    roster = store.roster()
    store.change_roster(roster, roster.drop(IDENTITY.artifact_id))
    _raises(StoreForeignError, store.bind, IDENTITY)
    store.close()


def check_reopened_the_list_of_artifacts_is_there(open_store: Open) -> None:
    """With the memories of each."""
    store = open_store()
    _with_two(store)
    store.commit(Commit(states={"u": b"1"}, beside={(1, "u"): b"x"}))
    roster = store.roster()
    store.close()
    store = open_store()
    assert store.roster() == roster
    assert (store.read_many(["u"]), store.read_many(["u"], slot=1)) == ([b"1"], [b"x"])
    _raises(StoreConflictError, store.commit, Commit(states={"u": b"2"}, epoch=roster.epoch - 1))
    store.commit(Commit(deleted=["u"]))
    assert store.read_many(["u"], slot=1) == [None]
    store.close()


def _with_two(store: MemoryStore, *, finished: bool = True) -> None:
    """Give a store a second artifact."""
    store.bind(IDENTITY)
    roster = store.roster()
    added = roster.add(OTHER)
    store.change_roster(roster, added.turn(OTHER.artifact_id, "ready") if finished else added)


def check_a_failed_commit_keeps_nothing(open_store: Open) -> None:
    """One part that cannot be written takes all others with it."""
    store = open_store()
    store.commit(Commit(states={"u": b"1"}, watermarks={("s", 0): 1}))
    bad: Any = {("u", 2): object()}
    try:
        store.commit(Commit(states={"u": b"2"}, watermarks={("s", 0): 2}, events=bad))
    except Exception:
        assert store.read_many(["u"]) == [b"1"] and store.watermark("s", 0) == 1 and store.events("u") == []
    else:
        raise AssertionError("a value that is not bytes was taken")
    finally:
        store.close()


def check_closing_twice_does_nothing(open_store: Open) -> None:
    """But a closed store does not answer."""
    store = open_store()
    store.close()
    store.close()
    for call in (lambda: store.read_many(["u"]), lambda: store.commit(Commit(states={"u": b"1"})), store.users):
        _raises(StoreError, call)


def check_reopened_store_holds_everything(open_store: Open) -> None:
    """Memories, watermarks, ids, events, items and the identity."""
    store = open_store()
    store.bind(IDENTITY)
    store.commit(
        Commit(
            states={"u": b"1"},
            watermarks={("s", 2): 5},
            event_ids={("u", "x"): 100},
            events={("u", 1): b"e"},
            items={"i": b"{}"},
        )
    )
    store.close()
    store = open_store()
    assert store.identity == IDENTITY
    assert (store.read_many(["u"]), store.watermark("s", 2), store.seen([("u", "x")], now=1)) == ([b"1"], 5, [True])
    assert (store.events("u"), store.read_items(["i"])) == ([b"e"], [b"{}"])
    store.close()


def check_reopened_store_has_erased_what_was_deleted(open_store: Open) -> None:
    """Erasure is durable."""
    store = open_store()
    store.commit(Commit(states={"u": b"1"}, events={("u", 1): b"e"}))
    store.commit(Commit(deleted=["u"]))
    store.close()
    store = open_store()
    assert (store.read_many(["u"]), store.events("u")) == ([None], [])
    store.close()


def check_reopened_after_closing_under_a_reader(open_store: Open) -> None:
    """A view that is still read does not keep the store open; it ends with an error."""
    store = open_store()
    store.commit(Commit(states={"u": b"1", "v": b"2"}))
    view = store.users()
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
