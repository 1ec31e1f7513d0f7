"""What all pictures share: their style, their texts, and how they become a file."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure

from tools.command import Record

# What would differ from one run to the next, or with the version of what has drawn.
_METADATA: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None}}
_STYLE = {
    "agg.path.chunksize": 10_000,  # Longer lines overflow the canvas's buffer otherwise.
    "image.interpolation": "nearest",
    "savefig.dpi": 150,
    "svg.hashsalt": "tools.plot",  # Ids of an SVG are random otherwise.
    "text.parse_math": False,  # A class may be called $x$.
}
_COLOURS = "tableau-colorblind10"  # Told apart with any kind of colour vision.


class Picture(NamedTuple):
    """What is drawn, None where there is nothing; a line of what is in it; the same as JSON."""

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
        matplotlib.style.use([_COLOURS, _STYLE])
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
    """The content of the file, whose suffix is its format: the same for the same figure.

    The figure is to be made and rendered under one `style`.
    """
    suffix = os.path.splitext(path)[1].lower()
    content = io.BytesIO()
    figure.savefig(content, format=suffix.removeprefix("."), metadata=_METADATA[suffix])
    return content.getvalue()
