"""Ordinal times: one cut for all users, which is said; and several columns of labels."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")

from lifelong.dataset.folder import Dataset
from lifelong.offline.preparation.prepare import prepare

LENGTH = {"a": 10, "b": 10, "c": 20, "d": 5}
EVENTS = [(user, f"i{at % 6}", at) for user, length in LENGTH.items() for at in range(length)]


def test_one_cut_for_all_users_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lifelong.cli import main

    (tmp_path / "log.csv").write_text("u,i,t\n" + "".join(f"{user},{item},{time}\n" for user, item, time in EVENTS))
    columns = ["user=u", "item=i", "time=t", "time_unit=ordinal"]
    command = [
        "prepare",
        "table",
        str(tmp_path / "log.csv"),
        *(word for each in columns for word in ("--column", each)),
    ]
    assert main([*command, "--out", str(tmp_path / "data")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    found = Dataset(tmp_path / "data").manifest.record["ordinal_cuts"]
    assert found == {"cut_times": [11, 15], "users": 4, "users_before_all_cuts": 3}
    assert "cut at the same numbers, 11 and 15: all events of 3 of 4 users" in shown


def test_two_label_columns_are_two_tasks(tmp_path: Path) -> None:
    lines = [f"u{at % 9},i{at % 7},{1_700_000_000 + at},{at % 2},{int(at % 4 == 0)}\n" for at in range(90)]
    (tmp_path / "log.csv").write_text("u,i,t,clicked,bought\n" + "".join(lines))
    columns = {
        "user": "u",
        "item": "i",
        "time": "t",
        "labels": "clicked,bought,late",
        "query": "SELECT *, CAST(t > '17000000' AS INTEGER) AS late FROM log",
    }
    dataset = prepare(tmp_path / "log.csv", out=tmp_path / "data", threads=1, history="all", **columns)
    assert dataset.schema.tasks == ("clicked", "bought", "late")
    assert dataset.examples("test").label_NT.shape == (9, 3)
    assert dataset.manifest.record["splits"]["train"]["positives_bought"] == 18
