"""How many files run code for one event, one score, one explanation, and for `prepare table`."""

from __future__ import annotations

import re
from pathlib import Path

from support.ways import shown, ways

MOST = {"event": 20, "score": 16, "explain": 24, "prepare": 40}
"""A change may lower these, and says why if it raises one."""


def test_no_way_through_the_package_grows():
    found = ways()
    print(*(shown(way, files) for way, files in found.items()), sep="\n")
    assert {way: len(files) for way, files in found.items() if len(files) > MOST[way]} == {}
    assert all(len(files) > 5 for files in found.values()), "the tracer saw a service at work"
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    for way in ("event", "score"):
        rows = re.search(rf"^{way}: .*\n((?:  .*\n)+)", page, re.M)[1].splitlines()
        rooms = (row.strip().split(": ") for row in rows)
        there = {f"{room}/{name}.py" for room, names in rooms for name in names.split()}
        assert there == set(found[way]), shown(way, found[way])
