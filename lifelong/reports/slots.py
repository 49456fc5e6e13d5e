"""What the slots of a memory hold: attention to each slot by age of related events, as table and figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.evaluation.attention import SlotContents
from lifelong.reports import drawing
from lifelong.reports.drawing import Figure, Theme
from lifelong.reports.sections import Section
from lifelong.reports.tables import Cell, Quantity, Table
from lifelong.reports.timeline import slot_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def slots_section(contents: SlotContents, folder: Path, *, title: str) -> Section:
    """Mean attention of each slot, by age of the latest related event."""
    note = (
        f"Which slot does {title} (first seed) read, when the last event with the target's item or category lies how "
        "far back? Ages are counted in events. Only targets with all slots filled, so that the length of the "
        "history does not decide."
    )
    rows: list[list[Cell]] = [
        [part.name, part.examples, *(Quantity(float(of), f"{of:.3f}") for of in part.attention_S)]
        for part in contents.classes
    ]
    columns = ["age of the latest related event", "targets", *(slot_name(period) for period in contents.periods)]
    table = Table(columns, rows, "Mean attention of the first read, by how often a slot is written.", name="slots")
    drawn = [slots_figure(contents, folder)] if contents.classes else []
    return Section("What the slots hold", [note], [table], drawn)


def slots_figure(contents: SlotContents, folder: Path) -> Figure:
    """One line per slot over the age classes."""
    classes = contents.classes

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        for slot, period in enumerate(contents.periods):
            colour = theme.colour(slot)
            mark, name = drawing.marker(slot), slot_name(period)
            look: dict[str, Any] = {"color": colour, "markersize": 7, "markeredgecolor": theme.paper}
            weights = [float(part.attention_S[slot]) for part in classes]
            axes.plot(range(len(classes)), weights, label=name, marker=mark, linewidth=1.4, **look)
            # Once more, each with its value for the page.
            for place, (part, weight) in enumerate(zip(classes, weights, strict=True)):
                axes.plot(
                    [place], [weight], mark, gid=drawing.tip(slot, f"{name}, age {part.name}: {weight:.3f}"), **look
                )
        axes.set_xticks(range(len(classes)), [f"{part.name}\n{part.examples:,} targets" for part in classes])
        axes.set_xlim(-0.4, len(classes) - 0.6)
        axes.set_ylim(0, 1.08 * max(float(part.attention_S.max()) for part in classes))
        drawing.finish(axes, grid="y", x="age of the latest related event, in events", y="mean attention")
        drawing.legend(axes, 3)

    spoken = "; ".join(f"{part.name}: " + ", ".join(f"{weight:.2f}" for weight in part.attention_S) for part in classes)
    words = (
        "Attention by slot",
        "Each line is one slot. If slots hold time scales, the slow ones rise to the right and the fast ones fall.",
        f"Mean attention by age of the latest related event, from the fastest slot to the slowest. {spoken}.",
    )
    return drawing.save("slots", draw, folder, size=(9.1, 4.4), words=words)
