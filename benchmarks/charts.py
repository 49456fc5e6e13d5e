"""The charts of `docs/results`, drawn from the tables of these pages.

    python benchmarks/charts.py

Run it after a table has changed: nothing is measured here. The SVG files adapt to light and dark pages.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PAGES = Path(__file__).parents[1] / "docs" / "results"
BLUE, ORANGE, GREY = "#4f7fc0", "#d08a1e", "#8a90a0"
# Text without a colour of its own follows the page, as far as an image can: by what the reader's system prefers.
THEME = "<style>text{fill:#1d2433}@media (prefers-color-scheme: dark){text{fill:#e3e6ee}}</style>"
EVERY_MODEL = "| model | AUC | less Tally | bytes |"
INTERVAL = r"(\.\d+) \((\.\d+) to (\.\d+)\)"

# The other models of the picture lie too close together for a name each.
LABELLED = (
    "Tally",
    "HPMN",
    "SIM (cluster)",
    "Gated delta memory",
    "SDIM",
    "SVD++",
    "DNN",
    "GRU4Rec",
    "FM",
    "HSTU",
    "MIMN",
    "RUM (feature level)",
    "LSTM",
    "FPMC",
)
CROWDED = {"GRU4Rec": -14, "MIMN": 6, "RUM (feature level)": 6}
"""Models with their names below or above the point, since other points are next to it: by how many points."""

Row = list[str]


def table(page: str, heading: str) -> list[Row]:
    """The rows of the table whose first row starts with `heading`, without emphasis and code marks."""
    text = (PAGES / page).read_text()
    start = text.index(f"\n{heading}") + 1
    lines = text[start : text.index("\n\n", start)].splitlines()[2:]
    return [[cell.strip().replace("*", "").replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def number(cell: str) -> float:
    """The first number of a cell."""
    found = re.search(r"\.?\d[\d,]*\.?\d*", cell)
    assert found, cell
    return float(found[0].replace(",", ""))


def auc(ax: Axes) -> None:
    """Every model of the comparison, with its interval."""
    rows = table("accuracy.md", EVERY_MODEL)
    for place, row in enumerate(rows):
        found = re.search(INTERVAL, row[1])
        assert found, row
        value, low, high = map(float, found.groups())
        colour = ORANGE if row[0] in ("Tally", "HPMN") else BLUE
        ax.plot([low, high], [place, place], color=colour, linewidth=2.5, alpha=0.6)
        ax.plot(value, place, "o", color=colour, markersize=5)
    ax.set_yticks(range(len(rows)), [row[0] for row in rows])
    ax.invert_yaxis()
    ax.set_xlabel("test AUC, 95 % interval over users (HPMN: and seeds)")


def tally_bytes(ax: Axes) -> None:
    """AUC of Tally by bytes, against the lines to beat."""
    points = []
    for row in table("accuracy.md", "| bytes per user at most | AUC |"):
        if not row[0].replace(",", "").isdigit():
            continue
        found = re.search(INTERVAL, row[1])
        assert found, row
        points.append((number(row[0]), *map(float, found.groups())))
    points.sort()
    sizes = [point[0] for point in points]
    ax.plot(sizes, [point[1] for point in points], "o-", color=ORANGE)
    for size, _, low, high in points:
        ax.plot([size, size], [low, high], color=ORANGE, linewidth=2.5, alpha=0.6)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [f"{size / 1024:.0f} KiB" for size in sizes])
    ax.minorticks_off()
    lines = {row[0]: number(row[1]) for row in table("accuracy.md", EVERY_MODEL)}
    for name, label, place in (
        ("LightGBM", "LightGBM, whole history", 0),
        ("SIM (cluster)", "SIM (cluster), 40 kB", -1),
        ("Counts", "counts, whole history", -1),
    ):
        ax.axhline(lines[name], color=GREY, linestyle="--", linewidth=1)
        ax.text(sizes[place], lines[name] + 0.001, label, ha="right" if place else "left", va="bottom")
    ax.set_ylabel("test AUC")
    ax.set_xlabel("Tally, state per user")


def throughput(ax: Axes) -> None:
    """Labelled examples per second of processor time, with 1,000 events per user."""
    rows = table("training-speed.md", "| contender |")
    names = [f"{row[0].split(' as ')[0].split(' of ')[0]}, {row[1]}" for row in rows]
    names[0] = "stacked nn.GRU, 1"
    names[1] = "DIN of torch-rechub, 1"
    rates = [number(row[3].split("/")[1]) for row in rows]
    _bars(ax, names, rates, [ORANGE if name.startswith("hpmn") else BLUE for name in names])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("1,000 events per user; the number is targets per pass")


def bytes_auc(ax: Axes) -> None:
    """Bytes per user against AUC."""
    for name, auc_, size in ((row[0], row[1], row[3]) for row in table("accuracy.md", EVERY_MODEL)):
        if not size.replace(",", "").isdigit() or name == "Popularity":
            continue
        x, y = number(size), number(auc_)
        ax.plot(x, y, "o", color=ORANGE if name in ("Tally", "HPMN") else BLUE, markersize=5)
        if name in LABELLED:
            side, shift = ("right", (-6, -4)) if x > 15_000 else ("left", (6, -4))
            if name in CROWDED:
                side, shift = "center", (0, CROWDED[name])
            ax.annotate(name, (x, y), xytext=shift, textcoords="offset points", ha=side)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("bytes per user, fp32")
    ax.set_ylabel("test AUC")


def kills(ax: Axes) -> None:
    """Kills by what was running: how many left one more batch than was acknowledged."""
    rows = table("reliability.md", "| process | kills |")
    names = [row[0].split(":")[0].replace(" a process that", "").replace("a process that ", "") for row in rows]
    names = [
        re.sub(r" while RocksDB.*", ", RocksDB compacting", re.sub(r" (by workers )?into", ",", name)) for name in names
    ]
    ax.barh(names, [number(row[1]) for row in rows], color=BLUE, label="killed: nothing lost, nothing twice")
    ax.barh(names, [number(row[2]) for row in rows], color=ORANGE, label="with one batch more than acknowledged")
    ax.invert_yaxis()
    ax.set_xlabel("processes")
    ax.legend(loc="lower center", bbox_to_anchor=(0.2, 1), frameon=False)


def latency(ax: Axes) -> None:
    """Percentiles of Tally over HTTP, behind a short and a long history."""
    rows = {row[0]: row[1] for row in table("service.md", "| path | `tally`: p50, p95, p99 |")}
    places = range(3)
    for path, shift, label, colour in (
        ("HTTP", -0.2, "all users", BLUE),
        ("HTTP, a user with 1,000,000 events", 0.2, "a user with 1,000,000 events", ORANGE),
    ):
        values = [float(part) for part in rows[path].split(",")]
        bars = ax.barh([place + shift for place in places], values, height=0.38, color=colour, label=label)
        ax.bar_label(bars, [f"{value:.1f}" for value in values], padding=3)
    ax.set_yticks(places, ["median", "p95", "p99"])
    ax.invert_yaxis()
    ax.set_xlabel("ms per request of 100 candidates, over HTTP (Tally)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=2, frameon=False)


def _bars(ax: Axes, names: list[str], values: list[float], colours: list[str]) -> None:
    bars = ax.barh(names, values, color=colours)
    ax.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.2)


CHARTS: dict[str, tuple[Callable[[Axes], None], float]] = {
    "auc": (auc, 7.6),
    "tally-bytes": (tally_bytes, 3.4),
    "training-throughput": (throughput, 3.4),
    "bytes-auc": (bytes_auc, 4.4),
    "kills": (kills, 4.0),
    "latency": (latency, 3.0),
}


def main() -> None:
    """Draw all."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    # Text stays text, so that it follows the theme; a fixed salt and no date, so that an equal table is an equal file.
    settings: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "lifelong", "font.size": 10}
    settings |= {"font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False}
    settings |= {"axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": "black"}
    settings |= {"ytick.labelcolor": "black"}
    with plt.rc_context(settings):
        for name, (draw, height) in CHARTS.items():
            # 5.4 inches are 389 points: letters of ten points stay readable on a phone.
            figure, ax = plt.subplots(figsize=(5.4, height), layout="constrained")
            draw(ax)
            _save(figure, PAGES / f"{name}.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)
    text = path.read_text()
    start = text.index("<defs>")
    path.write_text("\n".join(line.rstrip() for line in (text[:start] + THEME + text[start:]).splitlines()) + "\n")


if __name__ == "__main__":
    main()
