"""The elements of a report: HTML and SVG that hold any text as text.

Everything is built as elements and serialized once, so no name from a file can become markup.
Charts are drawn without scripts; each has a title to point at and a table or a label to read. How a
page looks is in `report.css`.
"""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
from PIL import Image

_WIDTH, _HEIGHT = 640, 220  # of a chart, in units of its own; it is scaled to the page
_LEFT, _BOTTOM, _TOP, _RIGHT = 72, 32, 12, 28
_COLOURS = 6


def clean(text: object) -> str:
    """A text without characters that no page may hold."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in str(text)
    )


def element(name: str, *children: Any, **attributes: Any) -> ET.Element:
    """An element; a text or a number as a child is its text, None nothing. `class_` is class."""
    made = ET.Element(
        name, {key.rstrip("_").replace("_", "-"): clean(v) for key, v in attributes.items()}
    )
    for child in children:
        if isinstance(child, ET.Element):
            made.append(child)
        elif child is not None and len(made):
            made[-1].tail = (made[-1].tail or "") + clean(child)
        elif child is not None:
            made.text = (made.text or "") + clean(child)
    return made


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> ET.Element:
    """A table that can be scrolled sideways, by keyboard too; numbers stand to the right."""
    body = [element("tr", *map(_cell, row)) for row in rows]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *(element("th", text, scope="col") for text in head))),
        element("tbody", *body),
    )
    return element("div", made, class_="wide", tabindex=0, role="region", aria_label=caption)


def _cell(value: Any) -> ET.Element:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return element("td", value)
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return element("td", shown, class_="number")


def picture(pixels: npt.NDArray[np.float64], description: str) -> ET.Element:
    """An image, float64 [height, width, 3] in [0, 1], within the page."""
    content = io.BytesIO()
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(content, "PNG", optimize=True)
    encoded = base64.b64encode(content.getvalue()).decode()
    return element("img", src=f"data:image/png;base64,{encoded}", alt=description)


Points = Sequence[tuple[float, float]]  # Steps and values; NaN where there is no value.


class Line(NamedTuple):
    """A line of a chart; those of one run have one colour, and that of the test split is dashed."""

    name: str
    run: int
    is_dashed: bool
    points: Points


def curves(title: str, lines: Sequence[Line]) -> ET.Element:
    """Lines over the steps, with a point for each value that says what it is when pointed at."""
    finite = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    if not finite:
        return element("p", f"{title}: no number to draw.")
    steps, values = (_range(numbers) for numbers in zip(*finite, strict=True))
    drawn, keys = _axes(steps, values), []
    for name, run, is_dashed, points in lines:
        colour = f"var(--c{run % _COLOURS})"
        key = element("span", class_="dashed key" if is_dashed else "key", style=f"color: {colour}")
        keys.append(element("li", key, " ", name))
        places = [(_across(x, steps), _up(y, values), x, y) for x, y in points if math.isfinite(y)]
        path = " ".join(f"{left},{top}" for left, top, _, _ in places)
        look = {"fill": "none", "stroke": colour, "stroke_width": 2}
        if is_dashed:
            look["stroke_dasharray"] = "6 4"
        drawn.append(element("polyline", points=path, **look))
        for left, top, x, y in places:
            said = element("title", f"{name}, step {x:,.0f}: {y:.6g}")
            drawn.append(element("circle", said, cx=left, cy=top, r=3, fill=colour))
    view = f"0 0 {_WIDTH} {_HEIGHT}"
    svg = element("svg", *drawn, viewBox=view, role="img", aria_label=f"{title} over the steps")
    legend = element("ul", *keys, class_="pictures")
    return element("figure", element("figcaption", title), legend, svg, _values(title, lines))


def _values(title: str, lines: Sequence[Line]) -> ET.Element:
    """The numbers of a chart as a table that can be unfolded, for who cannot point."""
    columns = [dict(line.points) for line in lines]
    steps = sorted({step for column in columns for step in column})
    rows = [[int(step), *(column.get(step) for column in columns)] for step in steps]
    head = ["step", *(line.name for line in lines)]
    return element("details", element("summary", "as a table"), table(head, rows, title))


_Range: TypeAlias = tuple[float, float]


def _range(values: Sequence[float]) -> _Range:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _across(step: float, steps: _Range) -> float:
    return round(float(np.interp(step, steps, (_LEFT, _WIDTH - _RIGHT))), 1)


def _up(value: float, values: _Range) -> float:
    return round(float(np.interp(value, values, (_HEIGHT - _BOTTOM, _TOP))), 1)


def ticks(between: _Range) -> list[float]:
    """Some three to seven round numbers in a range: multiples of 1, 2 or 5 times a power of ten."""
    low, high = between
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * i for i in (1, 2, 5, 10) if (high - low) / (power * i) <= 6)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _axes(steps: _Range, values: _Range) -> list[ET.Element]:
    """Lines and numbers at the edges."""
    drawn = []
    for value in ticks(values):
        top = _up(value, values)
        line = {"x1": _LEFT, "x2": _WIDTH - _RIGHT, "y1": top, "y2": top}
        drawn.append(element("line", stroke="var(--line)", **line))
        drawn.append(element("text", f"{value:.3g}", x=_LEFT - 6, y=top + 4, text_anchor="end"))
    for step in ticks(steps):
        place = {"x": _across(step, steps), "y": _HEIGHT - 16, "text_anchor": "middle"}
        drawn.append(element("text", f"{step:,.6g}", **place))
    middle = (_WIDTH + _LEFT) / 2
    return [*drawn, element("text", "step", x=middle, y=_HEIGHT - 2, text_anchor="middle")]


def histogram(counts: Sequence[int], low: float, high: float) -> ET.Element:
    """A small histogram of equal bins from `low` to `high`."""
    most, width = max([*counts, 1]), 120 / max(len(counts), 1)
    bars = []
    for place, count in enumerate(counts):
        height = 24 * count / most
        left, top = round(width * place, 2), round(24 - height, 2)
        size = {"width": round(width * 0.9, 2), "height": round(height, 2)}
        bars.append(element("rect", x=left, y=top, fill="var(--c0)", **size))
    said = f"histogram from {low:.3g} to {high:.3g}"
    look = {"viewBox": "0 0 120 24", "role": "img", "style": "width: 120px"}
    return element("svg", element("title", said), *bars, aria_label=said, **look)


def page(title: str, body: Sequence[ET.Element]) -> bytes:
    """The whole file, UTF-8; it needs nothing but itself."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
    )
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    ET.SubElement(head, "style").text = style
    html = element("html", head, element("body", element("main", *body)), lang="en")
    text: bytes = ET.tostring(html, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + text + b"\n"
