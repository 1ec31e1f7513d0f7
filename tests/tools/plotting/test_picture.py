"""Style and texts of pictures."""

from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from tools.plot_runs import as_label, new_figure, render, style

ODD = "$x_{1}$ <&> \u732b \ufffe \x1b[31m \udc80"


def _figure(title: str = "a title") -> Figure:
    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.plot([0, 1, 2], [1, 3, 2], label="a line")
    axes.fill_between([0, 1], [0, 1], hatch="/")  # Of an SVG, hatches and clips have ids.
    axes.set_title(title)
    axes.legend()
    return figure


@pytest.mark.parametrize("name", ["p.png", "p.SVG"])
def test_the_same_picture_is_the_same_bytes(name: str) -> None:
    first, second = render(_figure(), name), render(_figure(), name)
    assert first == second
    assert render(_figure("another"), name) != first


def test_the_suffix_is_the_format() -> None:
    assert render(_figure(), "p.png").startswith(b"\x89PNG")
    assert ET.fromstring(render(_figure(), "p.svg")).tag.endswith("svg")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_any_text_is_drawn_as_it_stands(suffix: str) -> None:
    """Neither as a formula, nor with a warning of missing glyphs, nor as XML."""
    label = as_label(ODD)
    with style():
        content = render(_figure(label), f"p.{suffix}")
    if suffix == "svg":
        ET.fromstring(content)
        assert "$x_{1}$" in content.decode()


def test_a_formula_that_is_none_is_no_error() -> None:
    render(_figure("$\\frac{$"), "p.png")


@pytest.mark.parametrize(
    ("text", "label"),
    [("a b", "a b"), ("a\nb\tc", "a b c"), ("\x1b[0m", "\ufffd[0m"), ("\udc80", "\ufffd")],
)
def test_labels_are_one_printable_line(text: str, label: str) -> None:
    assert as_label(text) == label


def test_a_long_label_is_cut() -> None:
    assert as_label("a" * 50, 10) == "a" * 9 + "\u2026"


def test_the_users_own_style_changes_nothing_and_is_kept() -> None:
    plain = render(_figure(), "p.png")
    with mpl.rc_context({"font.size": 20, "text.usetex": True}):
        with style():
            assert render(_figure(), "p.png") == plain
        assert mpl.rcParams["font.size"] == 20
