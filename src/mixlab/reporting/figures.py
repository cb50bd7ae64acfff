"""Vector charts for a page: matplotlib draws in placeholder colours, which become the page's own, light or dark."""

import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#010203", "#010204", "#010205", "#010206"
SERIES = tuple(f"#0102{16 + place:02x}" for place in range(8))
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"} | {
    colour: f"series-{place}" for place, colour in enumerate(SERIES)
}
MARKERS, LINES = "osD^vPX*", ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
ENLARGED = 1.55  # on the page, so that letters are as large as its text
_numbers = itertools.count()


def look(place: int) -> Any:
    """Return colour, marker and line style of a series: none of the three has to be told from the others alone."""
    style = LINES[place % len(LINES)]
    return {"color": SERIES[place % len(SERIES)], "marker": MARKERS[place % len(MARKERS)], "linestyle": style}


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Figure, Callable[[], Markup]]]:
    """Give a figure of a size in inches, and what turns it into SVG for the page."""
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        yield drawn, lambda: _svg(drawn)


def clean(axes: Axes, x: str = "", y: str = "") -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.tick_params(which="both", length=0)


def _svg(drawn: Figure) -> Markup:
    """Return the figure as an SVG element with colours of the page and names that no other figure has."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of names in scripts that the font lacks
        drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    prefix = f"f{next(_numbers)}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    width = drawn.get_figwidth() * 72 * ENLARGED
    return Markup(text.replace("<svg ", f'<svg role="img" style="max-width: {width:.0f}px; --own: {width:.0f}px" ', 1))  # noqa: S704
