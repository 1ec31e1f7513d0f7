"""What all pictures share: their style, and texts that are shown as they are."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from tools.common.output import Record

# Okabe and Ito, "Color Universal Design" (2008): told apart with any kind of colour vision. Without
# their yellow, which is too light for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#767676"

_PNG, _SVG = ".png", ".svg"
# What would differ from one run to the next, or with the version of what has drawn.
_METADATA: dict[str, dict[str, Any]] = {_PNG: {"Software": None}, _SVG: {"Date": None}}
_STYLE = {
    "agg.path.chunksize": 10_000,  # Longer lines overflow the canvas's buffer otherwise.
    "axes.grid": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 100,
    "font.size": 10,
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "tools.plot",  # Ids of an SVG are random otherwise.
    "text.parse_math": False,  # A class may be called $x$.
}


class Picture(NamedTuple):
    """What is drawn, and what is said of it.

    Attributes:
      figure: None where there is nothing to draw.
      summary: a line of what is in it.
      record: the same as JSON values.
    """

    figure: Figure | None
    summary: str
    record: Record


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draws with the style of this project, whatever the user's matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        # A box stands for what the font has no glyph for.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches; it belongs to nobody else, and needs no display."""
    return Figure(figsize=(width, height), layout="constrained")


def as_label(text: str, most: int = 32) -> str:
    """A text from a file as one short line that any font and any SVG can take."""
    line = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)
    return line if len(line) <= most else f"{line[: most - 1]}\u2026"


def short_path(path: str) -> str:
    """The last two parts of a path, for a title."""
    return as_label("/".join(os.path.abspath(path).split(os.sep)[-2:]), 60)


def render(figure: Figure, path: str) -> bytes:
    """The content of the file: the same for the same figure.

    Args:
      figure: made and rendered under one `style`.
      path: of the file, whose suffix is its format.
    """
    suffix = os.path.splitext(path)[1].lower()
    content = io.BytesIO()
    figure.savefig(content, format=suffix.removeprefix("."), metadata=_METADATA[suffix])
    return content.getvalue()
