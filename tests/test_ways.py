"""How many files run code for one event, one score, one explanation, and for `prepare table`."""

from __future__ import annotations

from support.ways import ways

MOST = {"event": 37, "score": 29, "explain": 42, "prepare": 47}
"""A change may lower these, and says why if it raises one."""


def test_no_way_through_the_package_grows():
    found = ways()
    print(*(f"{way}: {', '.join(files)}" for way, files in found.items()), sep="\n")
    assert {way: len(files) for way, files in found.items() if len(files) > MOST[way]} == {}
    assert all(len(files) > 5 for files in found.values()), "the tracer saw a service at work"
