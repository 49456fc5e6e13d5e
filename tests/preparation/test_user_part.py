"""A part of the users is prepared with the items, vocabularies and popularity of the whole log."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ibis")
import pyarrow as pa

from lifelong.cli import main
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import drawn_counts
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.preparation.prepare import prepare
from lifelong.online.store.part import part_of

COLUMNS = {"user": "user", "item": "item", "time": "time"}
TYPED = {**COLUMNS, "event_type": "what", "fields": ["brand"]}
LABELLED = {**COLUMNS, "labels": ["shown"], "history": "all"}
SOUTH = (2, 4)
LEAST = {"field_min_count": 2, "threads": 1}


def rows() -> list[dict[str, Any]]:
    """Users of all parts; an item, a brand and a type have events of few users alone."""
    drawn, made = random.Random(3), []
    for at in range(800):
        user, item = drawn.randrange(40), min(drawn.randrange(30), drawn.randrange(30))
        rare = user % 7 == 0
        made.append(
            {
                "user": f"u{user}",
                "item": f"i{item}" if not rare or at % 3 else f"rare{user}",
                "time": 1_000 + at // 2,
                "what": "gift" if rare and at % 5 == 0 else drawn.choice(["buy", "view"]),
                "brand": f"b{item % 5}" if not rare else "seldom",
                "shown": at % 3 == 0,
            }
        )
    return made


def table(out: Path, columns: dict[str, Any], **settings: Any) -> Dataset:
    log = pa.Table.from_pylist([{**row, "shown": float(row["shown"])} for row in rows()])
    return prepare(log, out=out, **columns, **LEAST, **settings)


def events_of(dataset: Dataset, users: list[str]) -> dict[str, list[Any]]:
    """All that a dataset holds of the events and targets of some users, by user."""
    history, types, found = dataset.histories, dataset.event_types, dict[str, list[Any]]()
    for user, place in zip(users, dataset.users.find(users).tolist(), strict=True):
        mine = slice(int(history.offset_U[place]), int(history.offset_U[place + 1]))
        columns: list[Any] = [history.row_N[mine], history.time_N[mine], history.sequence_N[mine]]
        if types is not None and history.event_type_N is not None:
            columns.append(history.event_type_N[mine])
        # Negatives are drawn from other events: the positives are the same.
        targets = [dataset.examples(split) for split in ("train", "validation", "test")]
        chosen = [each.take((each.user_N == place) & (each.label_NT[:, 0] > 0)) for each in targets]
        columns += [values for each in chosen for values in (each.row_N, each.time_N, each.position_N)]
        found[user] = [np.asarray(values).tolist() for values in columns]
    return found


@pytest.mark.parametrize(
    ("columns", "settings"),
    [(TYPED, {}), (TYPED, {"negatives": "following"}), (LABELLED, {}), (TYPED, {"vault": 0.05})],
    ids=["popularity", "following", "logged labels", "with a vault"],
)
def test_a_part_has_the_rows_of_its_users_and_what_the_whole_log_counts(
    tmp_path: Path, columns: dict[str, Any], settings: dict[str, Any]
) -> None:
    whole = table(tmp_path / "whole", columns, **settings)
    part = table(tmp_path / "part", columns, part="1/4", **settings)
    mine = [user for user in whole.users.ids() if part_of(user, 4) == 1]
    assert part.users.ids() == mine and 5 < len(mine) < 20
    assert events_of(part, mine) == events_of(whole, mine)
    for one, other in [(part, whole), *([(part.vault, whole.vault)] if settings.get("vault") else [])]:
        assert one.manifest.cut_times == other.manifest.cut_times
        assert one.catalogue.ids.ids() == other.catalogue.ids.ids()
        assert one.catalogue.number_VF.tolist() == other.catalogue.number_VF.tolist()
        assert one.catalogue.key_VF.tolist() == other.catalogue.key_VF.tolist()
        for field, vocabulary in other.vocabularies.items():
            assert one.vocabularies[field].content_hash() == vocabulary.content_hash()
        assert values_of(one.event_types) == values_of(other.event_types)
    assert list_of(drawn_counts(part)) == list_of(drawn_counts(whole))
    assert part.manifest.record["settings"]["part"] == [1, 4]
    assert "part" not in whole.manifest.record["settings"]


def values_of(vocabulary: Any) -> list[str] | None:
    return None if vocabulary is None else vocabulary.index.ids()


def list_of(values: Any) -> list[int] | None:
    return None if values is None else values.tolist()


def test_profiles_are_numbered_as_in_the_whole_log(tmp_path: Path) -> None:
    lines = [f"u{user},{'north' if user % 2 else 'south' if user in SOUTH else 'east'}" for user in range(40)]
    (tmp_path / "users.csv").write_text("id,place\n" + "\n".join(lines) + "\n")
    columns = {**COLUMNS, "users": {"files": [str(tmp_path / "users.csv")], "user": "id", "fields": {"place": "place"}}}
    whole = table(tmp_path / "whole", columns)
    part = table(tmp_path / "part", {"mapping": columns}, part="1/4")
    one, other = (each.profile_vocabularies["user.place"] for each in (part, whole))
    # One of the two users who have it is of another part.
    assert values_of(one) == values_of(other) == ["north", "east", "south"]
    places = whole.users.find(part.users.ids())
    assert part.profile_UF.tolist() == whole.profile_UF[places].tolist()


def test_other_parts_together_have_all_users(tmp_path: Path) -> None:
    parts = [table(tmp_path / str(number), TYPED, part=(number, 3)) for number in range(3)]
    assert sorted(user for part in parts for user in part.users.ids()) == sorted({row["user"] for row in rows()})


@pytest.mark.parametrize("part", ["4/4", "1", "a/b", "-1/4", (1, 2, 3), (1, 0)])
def test_what_is_no_part_is_refused(tmp_path: Path, part: Any) -> None:
    with pytest.raises(ConfigError, match=r"is not NUMBER/PARTS from 0 on, such as 1/64"):
        table(tmp_path / "data", TYPED, part=part)


def test_a_protocol_whose_training_period_depends_on_the_users_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a part of the users with the protocol 'paper'"):
        table(tmp_path / "data", TYPED, part="0/2", protocol="paper")


def test_the_command_takes_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "user,item,time\n" + "".join(f"{row['user']},{row['item']},{row['time']}\n" for row in rows())
    (tmp_path / "log.csv").write_text(text)
    assert main(["prepare", "table", str(tmp_path / "log.csv"), "--out", str(tmp_path / "part"), "--part", "2/4"]) == 0
    assert {part_of(user, 4) for user in Dataset(tmp_path / "part").users.ids()} == {2}
    assert main(["prepare", "table", str(tmp_path / "log.csv"), "--out", str(tmp_path / "no"), "--part", "4/4"]) == 2
    assert "such as 1/64" in capsys.readouterr().err
