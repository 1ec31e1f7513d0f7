"""What all pictures share: their style, texts that are shown as they are, and the file."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import tensorflow as tf
from matplotlib.figure import Figure

from checkpoints import durable
from prediction.output_file import check_output
from tools.common.errors import ToolError
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


def check_target(path: str, given: Sequence[str], *, overwrite: bool) -> None:
    """Finds out, before a long run, whether a picture can be written.

    Args:
      path: of the picture.
      given: the values of the flags that name what is read.
      overwrite: whether there may be one already.

    Raises:
      ToolError: there is one already.
      PredictionError: it cannot be written.
    """
    check_output(path, given)
    if tf.io.gfile.exists(path) and not overwrite:
        raise ToolError(f"--output={path} is there already; --overwrite replaces it")


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


def write(path: str, content: bytes) -> None:
    """Writes the file, whole or not at all.

    Raises:
      ToolError: the file system refused.
    """
    try:
        durable.replace_file(path, content)
    except (tf.errors.OpError, OSError) as error:
        with contextlib.suppress(tf.errors.OpError, OSError):
            durable.remove_leftover(path)
        raise ToolError(f"--output={path} cannot be written: {error}") from error
