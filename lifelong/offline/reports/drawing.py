"""What all figures share: colours, style, and writing them as an SVG that follows a light or dark page and a white PNG.

A figure is drawn once, with the light colours; in the SVG they become CSS variables with a light and a dark value. The
series colours are Okabe and Ito's, adjusted for contrast, which people with any common colour blindness can
distinguish; markers differ too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lifelong.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MARKERS = "osD^vPX*"
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours by role.

    Args:
        ink: text.
        faint: grid and axes.
        paper: what lies behind; rings around marks.
        series: one colour per series.
    """

    ink: str
    faint: str
    paper: str
    series: tuple[str, ...]

    @property
    def roles(self) -> dict[str, str]:
        """Role -> colour; each is a CSS variable."""
        series = {f"series-{place + 1}": colour for place, colour in enumerate(self.series)}
        return {"ink": self.ink, "faint": self.faint, "paper": self.paper, **series}


LIGHT = Theme(
    "#24292f",
    "#d5dae0",
    "#ffffff",
    ("#0072b2", "#d55e00", "#009e73", "#b0527f", "#a87900", "#4a5fb5", "#7a4f24", "#5f6b76"),
)
DARK = Theme(
    "#e6e8eb",
    "#3d444d",
    "#161b21",
    ("#5bb4ee", "#ff8f3f", "#35cfa0", "#e79cc4", "#f0c244", "#9fb0ff", "#d0a47a", "#aab4bf"),
)
_INK = ("axes.labelcolor", "axes.titlecolor", "text.color", "xtick.labelcolor", "ytick.labelcolor")
_FAINT = ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
_STYLE = {
    **dict.fromkeys(_INK, LIGHT.ink),
    **dict.fromkeys(_FAINT, LIGHT.faint),
    "font.family": "sans-serif",
    "font.size": 11.0,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "date.converter": "concise",
    "legend.frameon": False,
    # Names come from data; a dollar sign in one is a dollar sign.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lifelong",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure.

    Args:
        path: of the SVG file; a PNG file of the same name lies next to it.
        title: heading.
        caption: what it shows and how to read it.
    """

    path: Path
    title: str
    caption: str


@contextlib.contextmanager
def drawn(path: Path, size: tuple[float, float]) -> Iterator[Canvas]:
    """A canvas that is written as SVG and PNG when the block ends.

    Args:
        path: of the SVG file.
        size: width and height, inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="report", purpose="drawing figures")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(cast(Any, _STYLE)):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasAgg(canvas)
        yield canvas
        canvas.savefig(path.with_suffix(".png"), dpi=160, facecolor=LIGHT.paper)
        canvas.savefig(path, transparent=True, metadata={"Date": None, "Creator": "lifelong"})
    # matplotlib writes literal colours; as variables they can follow the page.
    svg = path.read_text()
    for role, colour in LIGHT.roles.items():
        svg = svg.replace(colour, f"var(--{role}, {colour})")
    # Names of fonts of the drawing machine mean nothing on another one.
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]+", rf"\1 {FONTS}", svg)
    path.write_text(svg.replace("<defs>", f"<style>{css_variables('svg')}</style>\n <defs>", 1))


def css_variables(selector: str) -> str:
    """CSS that gives the colours their light and dark values."""
    light, dark = ("".join(f"--{role}:{of};" for role, of in theme.roles.items()) for theme in (LIGHT, DARK))
    return f"{selector}{{{light}}}@media (prefers-color-scheme: dark){{{selector}{{{dark}}}}}"


def look(series: int) -> dict[str, Any]:
    """Colour and marker of a series; they repeat after eight."""
    return {"color": LIGHT.series[series % 8], "marker": MARKERS[series % 8]}


def chance_line(axes: Axes, *, vertical: bool) -> None:
    """A dashed line at 0.5; it is always visible, so that small differences look small."""
    (axes.axvline if vertical else axes.axhline)(0.5, color=LIGHT.ink, linewidth=1, linestyle=(0, (4, 3)))
    if vertical:
        axes.text(0.5, 1, " chance", transform=axes.get_xaxis_transform(), fontsize=9, va="top")
    else:
        axes.text(1, 0.5, "chance ", transform=axes.get_yaxis_transform(), fontsize=9, va="bottom", ha="right")


def finish(axes: Axes, *, grid: Literal["x", "y", "both"] = "both", x: str = "", y: str = "") -> None:
    """Grid and labels of the axes; ticks have no marks."""
    axes.tick_params(length=0, which="both")
    axes.grid(axis=grid, linewidth=0.8)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of axes, from bottom to top."""
    axes.set_yticks(range(len(names)), [short(name, 34) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.spines["left"].set_visible(False)


def legend(axes: Axes, most: int = 5) -> None:
    """A legend above the axes, where it covers no data."""
    columns = min(most, len(axes.get_legend_handles_labels()[0]))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, handletextpad=0.4, columnspacing=1.4)


def short(name: str, most: int) -> str:
    """A name, cut to at most this many characters.

    >>> short("a long name", 7)
    'a long…'
    """
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"
