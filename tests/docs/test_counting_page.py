"""The worked example of the page on counting is what the specification of Tally computes."""

import re
from pathlib import Path

from lifelong.tally.spec import AGES, COUNTS, Memory

PAGE = Path(__file__).parents[2] / "docs" / "understand" / "counting.md"
ITEMS = ("tea", "soap", "jam")


def _shown(memory: Memory, key: int) -> str:
    if (cell := memory.cells[0].get(key)) is not None:
        return f"{COUNTS[cell.level]}, {AGES[cell.step]}"
    return ""


def test_the_worked_example_is_what_the_specification_computes() -> None:
    rows = re.findall(r"^\| \d (\w+) \|(.*)\|(.*)\|(.*)\|[^|]*\|$", PAGE.read_text(), re.MULTILINE)
    memory = Memory((2,), levels=1, width=0)
    for item, *shown in rows:
        memory.write([ITEMS.index(item)], gap=0)
        assert [cell.strip() for cell in shown] == [_shown(memory, key) for key in range(len(ITEMS))]
    assert len(rows) == 5
