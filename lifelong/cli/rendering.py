"""Tables of `lifelong.reports` on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.reports.tables import Table


def rich_table(table: Table) -> list[Any]:
    """A table and its caption, as a terminal shows them."""
    from rich.table import Table as RichTable

    from lifelong.reports.tables import text

    shown = RichTable(*table.columns)
    for row in table.rows:
        shown.add_row(*(text(cell) for cell in row))
    return [shown, *([table.caption] if table.caption else [])]
