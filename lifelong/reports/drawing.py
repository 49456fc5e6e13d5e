"""What all figures share: colours, style, and writing an SVG that follows a light or dark page and a white PNG.

A figure is drawn twice. For the SVG with placeholder colours, one per role, which then become CSS variables with a
light and a dark value; for the PNG with the light values. The series colours are Okabe and Ito's, adjusted for
contrast, which people with any common colour blindness can distinguish; markers differ too.
"""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lifelong.dtypes import IntArray
from lifelong.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from lifelong.evaluation.results import Estimate

MARKERS = "osD^vPX*"
TIP = "tip:"
"""What the id of a drawn value begins with; its text follows after the next colon."""
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

    def colour(self, place: int) -> str:
        """Colour of a series; they repeat after eight."""
        return self.series[place % len(self.series)]


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
_PLACEHOLDERS = Theme("#0a0b01", "#0a0b02", "#0a0b03", tuple(f"#0a0b1{place}" for place in range(8)))


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure.

    Args:
        name: file stem.
        svg: path of the SVG file.
        png: path of the PNG file.
        title: heading.
        caption: what it shows and how to read it.
        alt: what a person who does not see it should know.
    """

    name: str
    svg: Path
    png: Path
    title: str
    caption: str
    alt: str


Draw = Callable[["Canvas", Theme], None]


def save(name: str, draw: Draw, folder: Path, *, size: tuple[float, float], words: tuple[str, str, str]) -> Figure:
    """Draw and write both files.

    Args:
        name: file stem.
        draw: fills a canvas.
        folder: where to write.
        size: width and height, inches.
        words: title, caption, alt text.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="report", purpose="drawing figures")
    folder.mkdir(parents=True, exist_ok=True)
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": "lifelong"}
    _render(draw, _PLACEHOLDERS, size, buffer, format="svg", transparent=True, metadata=metadata)
    svg.write_text(_themed(buffer.getvalue()))
    _render(draw, LIGHT, size, png, format="png", dpi=160, facecolor=LIGHT.paper)
    title, caption, alt = words
    return Figure(name, svg, png, title, caption, alt)


def _render(draw: Draw, theme: Theme, size: tuple[float, float], target: Any, **options: Any) -> None:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(cast(Any, _style(theme))):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasAgg(canvas)
        draw(canvas, theme)
        canvas.savefig(target, **options)


def _style(theme: Theme) -> dict[str, Any]:
    ink = ("axes.labelcolor", "axes.titlecolor", "text.color", "xtick.labelcolor", "ytick.labelcolor")
    faint = ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    return {
        **dict.fromkeys(ink, theme.ink),
        **dict.fromkeys(faint, theme.faint),
        "font.family": "sans-serif",
        "font.size": 11.0,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11.0,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        # Names come from data; a dollar sign in one is a dollar sign.
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "lifelong",
    }


def _roles(theme: Theme) -> dict[str, str]:
    series = {f"series-{place + 1}": colour for place, colour in enumerate(theme.series)}
    return {"ink": theme.ink, "faint": theme.faint, "paper": theme.paper, **series}


def _themed(svg: str) -> str:
    """Placeholder colours -> CSS variables; a standalone file follows the reader's light or dark setting."""
    light = _roles(LIGHT)
    for role, placeholder in _roles(_PLACEHOLDERS).items():
        svg = svg.replace(placeholder, f"var(--{role}, {light[role]})")
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]+", rf"\1 {FONTS}", svg)
    return svg.replace("<defs>", f"<style>{css_variables('svg')}</style>\n <defs>", 1)


def css_variables(selector: str) -> str:
    """CSS that gives the colours their light and dark values."""
    light, dark = ("".join(f"--{role}:{value};" for role, value in _roles(theme).items()) for theme in (LIGHT, DARK))
    return f"{selector}{{{light}}}@media (prefers-color-scheme: dark){{{selector}{{{dark}}}}}"


def tip(place: float, text: str) -> str:
    """The id (`gid`) of a mark whose text a page shows at the pointer; the place keeps ids of equal texts apart.

    >>> tip(2.0, "HPMN: 0.7000")
    'tip:2:HPMN: 0.7000'
    """
    return f"{TIP}{place:.6g}:{text}"


def interval_mark(
    axes: Axes,
    place: float,
    value: Estimate,
    name: str,
    *,
    colour: str,
    paper: str,
    marker: str = "o",
    horizontal: bool = False,
) -> None:
    """A dot with its 95 % interval as a bar; a page shows its name and the numbers at the pointer."""
    middle = value.value or 0.0
    low, high = (middle if end is None else end for end in (value.low, value.high))
    bar, dot = ([place, place], [low, high]), ([place], [middle])
    axes.plot(*(bar[::-1] if horizontal else bar), color=colour, linewidth=2.4, alpha=0.55, solid_capstyle="butt")
    axes.plot(
        *(dot[::-1] if horizontal else dot),
        marker,
        color=colour,
        markersize=7,
        markeredgecolor=paper,
        markeredgewidth=0.7,
        gid=tip(place, f"{name}: {f'{middle:.4f} [{low:.4f}, {high:.4f}]'.replace('-', '−')}"),
    )


def chance_line(axes: Axes, theme: Theme, *, vertical: bool) -> None:
    """A dashed line at 0.5; it is always visible, so that small differences look small."""
    line = axes.axvline if vertical else axes.axhline
    line(0.5, color=theme.ink, linewidth=1, linestyle=(0, (4, 3)))
    where: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}
    if vertical:
        axes.annotate("chance", (0.5, 1), xycoords=("data", "axes fraction"), xytext=(4, -2), va="top", **where)
    else:
        axes.annotate("chance", (1, 0.5), xycoords=("axes fraction", "data"), xytext=(-2, 3), ha="right", **where)


def finish(axes: Axes, *, grid: Literal["x", "y", "both"] = "both", x: str = "", y: str = "") -> None:
    """Grid and labels of the axes; ticks have no marks."""
    axes.tick_params(length=0, which="both")
    axes.grid(axis=grid, linewidth=0.8)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def name_rows(axes: Axes, names: Sequence[str], *, longest: int) -> None:
    """Name the rows of axes, from bottom to top."""
    axes.set_yticks(range(len(names)), [short(name, longest) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.spines["left"].set_visible(False)


def legend(axes: Axes, entries: int) -> None:
    """A legend above the axes, where it covers no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(5, entries), handletextpad=0.4, columnspacing=1.4)


def background(theme: Theme) -> dict[str, Any]:
    """Style of lines behind the coloured ones."""
    return {"color": theme.series[-1], "alpha": 0.4, "linewidth": 1.0}


def log_axis(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers at 1, 2 and 5."""
    from matplotlib import ticker

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def marker(series: int) -> str:
    """The marker of a series; they repeat after eight."""
    return MARKERS[series % len(MARKERS)]


def thousands(value: float, _: float) -> str:
    """A number as a tick label.

    >>> thousands(1_500_000, 0)
    '1.5 M'
    """
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


def date_axis(axes: Axes) -> None:
    """A few short date labels; which year and month they are of is for `date_span` to say."""
    from matplotlib import dates

    locator = dates.AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]


def date_span(time_L: IntArray) -> str:
    """Axis label that names the first and the last day."""
    if not len(time_L):
        return "time (UTC)"
    first, last = (datetime.datetime.fromtimestamp(int(t), datetime.UTC).date() for t in (time_L[0], time_L[-1]))
    return f"time (UTC), {first} to {last}"


def short(name: str, most: int) -> str:
    """A name, cut to at most this many characters.

    >>> short("a long name", 7)
    'a long…'
    """
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"
