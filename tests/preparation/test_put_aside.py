"""What `--vault` puts aside is in no byte of what training, validation and test see."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lifelong.dataset.folder import OPENED, Dataset
from lifelong.errors import DataError, DatasetError, UsageError
from lifelong.offline.preparation.prepare import PrepareSettings, prepare

EVENTS, ASIDE = 400, 20
"""Events of the logs below, and how many of them a vault of .05 puts aside."""
LABELLED: dict[str, dict[str, Any]] = {
    "typed": {"event_type": "what", "fields": ["brand"], "time_unit": "s"},
    "ratings": {"rating": "stars", "fields": ["brand"]},
}


def rows(*, seed: int = 0, changed: int = 0) -> list[dict[str, Any]]:
    """A log, one row a second; of the last `changed` rows everything but the time is different."""
    drawn, other = random.Random(seed), random.Random(seed + 1)
    made = [_row(drawn, at) for at in range(EVENTS)]
    for at in range(EVENTS - changed, EVENTS):
        new = _row(other, at)
        made[at] = new | {"user": f"new{at % 3}", "item": f"new{new['item']}", "what": "return", "stars": 9.0}
        if at % 2:
            # An item that is known, with another brand: the last one in the source would win.
            made[at] |= {"item": new["item"], "brand": "other"}
    return made


def _row(drawn: random.Random, at: int) -> dict[str, Any]:
    item = drawn.randrange(25)
    return {
        "user": f"u{drawn.randrange(8)}",
        "item": f"i{item}",
        "time": 1_000 + at,
        "what": drawn.choice(["buy", "view"]),
        "brand": f"b{item % 4}",
        "stars": float(drawn.randrange(1, 6)),
    }


def table(out: Path, log: Sequence[dict[str, Any]], mapping: dict[str, Any], **settings: Any) -> Dataset:
    """Prepare rows as the source `table`."""
    import pyarrow as pa

    columns = {"user": "user", "item": "item", "time": "time", **mapping}
    chosen = PrepareSettings(threads=1, **settings)
    return prepare(pa.Table.from_pylist(list(log)), out=out, settings=chosen, mapping=columns)


def seen(dataset: Dataset) -> dict[str, bytes]:
    """Every file of a dataset outside of its vault, and what training reads of its manifest."""
    files = {
        str(path.relative_to(dataset.folder)): path.read_bytes()
        for path in dataset.folder.rglob("*")
        if path.is_file() and path.name != "dataset.json" and "vault" not in path.relative_to(dataset.folder).parts
    }
    manifest = dataset.manifest.model_dump(mode="json", exclude={"vault"})
    of_log = {"files", "read", "seconds", "columns"}
    manifest["record"] = {name: value for name, value in manifest["record"].items() if name not in of_log}
    return files | {"dataset.json": json.dumps(manifest).encode()}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("typed", {"tasks": "any,buy"}),
        ("typed", {"negatives": "following", "window": 0.001}),
        ("typed", {"protocol": "paper"}),
        ("ratings", {"tasks": "liked=rating>=4"}),
    ],
)
def test_other_events_in_the_vault_change_no_byte_outside_of_it(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    if settings.get("protocol") == "paper":
        # Whole users are put aside: the only ones with events at the end.
        logs = [[row | {"user": f"u{row['time'] // 50}"} for row in rows(changed=n)] for n in (0, 8)]
        logs[1] = [row | ({"item": "other", "brand": "other"} if row["time"] >= 1_390 else {}) for row in logs[0]]
    else:
        logs = [rows(), rows(changed=ASIDE)]
    one, other = (
        table(tmp_path / name, log, LABELLED[kind], vault=0.05, min_count=1, **settings)
        for name, log in zip(("one", "other"), logs, strict=True)
    )
    assert seen(one) == seen(other)
    assert one.manifest.data_hash == other.manifest.data_hash
    assert one.vault.manifest.data_hash != other.vault.manifest.data_hash
    assert one.manifest.vault is not None and one.manifest.vault.examples > 0


def test_a_dataset_with_a_vault_is_that_of_a_log_that_ends_before_it(make: Any) -> None:
    log = [(row["user"], row["item"], row["time"], row["what"]) for row in rows()]
    whole = make(log, out="whole", settings={"vault": 0.05})
    rest = EVENTS - ASIDE
    # The same cut times as shares of fewer events; the half keeps rounding away.
    cuts = ((320 + 0.5) / rest, (360 + 0.5) / rest)
    cut = make(log[:rest], out="cut", settings={"cuts": cuts})
    assert whole.manifest.cut_times == cut.manifest.cut_times
    assert whole.manifest.data_hash == cut.manifest.data_hash
    # The last event before the vault is seen.
    changed = [*log[: rest - 1], ("new", *log[rest - 1][1:]), *log[rest:]]
    assert make(changed, out="changed", settings={"vault": 0.05}).manifest.data_hash != cut.manifest.data_hash


def test_the_vault_has_the_last_targets_with_all_events_before_them(make: Any) -> None:
    log = [(row["user"], row["item"], row["time"]) for row in rows()]
    dataset = make(log, settings={"vault": 0.05, "ratio": 2})
    vault = dataset.vault
    examples = vault.examples("vault")
    positives = examples.take(examples.label_NT[:, 0] > 0)
    found = [
        (vault.users.id_at(int(user)), vault.catalogue.id_of(int(row)), int(time), int(position))
        for user, row, time, position in zip(
            positives.user_N, positives.row_N, positives.time_N, positives.position_N, strict=True
        )
    ]
    wanted = [
        (user, item, time, sum(earlier[0] == user and earlier[2] < time for earlier in log))
        for user, item, time in log[-ASIDE:]
    ]
    assert sorted(found) == sorted(wanted)
    assert len(examples) == 3 * ASIDE
    late = {item for _, item, _ in log[-ASIDE:]}
    drawn = examples.take(examples.label_NT[:, 0] == 0)
    assert {vault.catalogue.id_of(int(row)) for row in drawn.row_N} <= late, "popularity of the vault's own period"
    assert dataset.histories.num_events == EVENTS - ASIDE and vault.histories.num_events == EVENTS


def test_items_and_types_that_only_the_vault_has_are_unknown_there(tmp_path: Path) -> None:
    dataset = table(tmp_path / "data", rows(changed=ASIDE), LABELLED["typed"], vault=0.05, min_count=1)
    vault = dataset.vault
    for field, vocabulary in dataset.vocabularies.items():
        assert vault.vocabularies[field].content_hash() == vocabulary.content_hash()
    assert vault.event_types is not None and dataset.event_types is not None
    assert vault.event_types.content_hash() == dataset.event_types.content_hash()
    new = [item for item in vault.catalogue.ids.ids() if item.startswith("new")]
    assert new and not any(item.startswith("new") for item in dataset.catalogue.ids.ids())
    assert (vault.catalogue.numbers(new)[:, 0] < vault.vocabularies["item"].first_known).all()
    assert vault.schema == dataset.schema


def test_where_the_split_is_given_users_are_put_aside_with_all_they_did(make: Any) -> None:
    events = [(f"u{user}", f"i{(user * 7 + at) % 9}", at) for user in range(40) for at in range(6)]
    shown = [(f"u{user}", f"i{user % 9}", 6, float(user % 2), "test" if user >= 20 else "train") for user in range(40)]
    dataset = make(events, impressions=shown, protocol="given", time_unit="ordinal", settings={"vault": 0.1})
    assert dataset.manifest.vault is not None and dataset.manifest.vault.users == 4
    vault, examples = dataset.vault, dataset.vault.examples("vault")
    aside = {vault.users.id_at(int(user)) for user in examples.user_N}
    assert len(aside) == 4 and all(int(user[1:]) >= 20 for user in aside)
    assert set(dataset.users.ids()) == {f"u{user}" for user in range(40)} - aside
    assert (np.asarray(examples.position_N) == 6).all()


def test_the_users_with_the_latest_last_target_are_put_aside_by_paper(make: Any) -> None:
    log = [(f"u{user:02}", f"i{(user + at) % 9}", 100 * user + at) for user in range(40) for at in range(5)]
    dataset = make(log, settings={"vault": 0.05, "protocol": "paper"})
    assert set(dataset.vault.users.ids()) - set(dataset.users.ids()) == {"u38", "u39"}
    assert len(dataset.vault.examples("vault")) == 2


def test_nothing_is_put_aside_unless_it_is_asked_for(make: Any) -> None:
    dataset = make([(row["user"], row["item"], row["time"]) for row in rows()])
    assert not dataset.has_vault and "vault" not in json.loads((dataset.folder / "dataset.json").read_text())
    with pytest.raises(DatasetError, match=r"has no vault.*--vault 0.05"):
        _ = dataset.vault


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"vault": 0.1}, UsageError, "test begins at 0.9 of the events, and the vault at 0.9"),
        ({"vault": 0.001, "cuts": (0.5, 0.998)}, DataError, "test would be empty"),
    ],
)
def test_a_vault_must_leave_a_test_split(make: Any, settings: Any, error: type[Exception], text: str) -> None:
    log = [("a" if at % 2 else "b", f"i{at % 5}", min(at, 90)) for at in range(100)]
    with pytest.raises(error, match=text):
        make(log, settings=settings)


def test_a_vault_is_as_often_opened_after_the_same_preparation(make: Any) -> None:
    log = [(row["user"], row["item"], row["time"]) for row in rows()]
    dataset = make(log, settings={"vault": 0.05})
    record = dataset.vault.folder / OPENED / "family.json"
    record.parent.mkdir()
    record.write_text("{}")
    again = make(log, settings={"vault": 0.05, "overwrite": True})
    assert (again.vault.folder / OPENED / "family.json").read_text() == "{}"
    other = make(log[1:], settings={"vault": 0.05, "overwrite": True})
    assert not (other.vault.folder / OPENED).exists()
