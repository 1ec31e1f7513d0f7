"""Which names are offered for one that there is not."""

import pytest

from errors import nearest_names

NAMES = ["import/model/Logits:0", "model/logits_loss:0", "labels:0", "save/Const:0", "scores"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("import/model/logits", "import/model/Logits:0"),
        ("logits", "import/model/Logits:0"),
        ("model/logits:0", "import/model/Logits:0"),
        ("net/labels", "labels:0"),
        ("LABELS:0", "labels:0"),
        ("labels:", "labels:0"),
        ("Scores", "scores"),
        ("scores:0", "scores"),
        (" label", "labels:0"),
        ("const", "save/Const:0"),
    ],
)
def test_case_scopes_and_numbers_of_outputs_count_least(text: str, first: str) -> None:
    assert nearest_names(text, NAMES)[0] == first


def test_the_fewer_scopes_differ_the_nearer() -> None:
    names = ["a/b/c/x:0", "c/x:0", "x:0", "b/c/x:0"]
    assert nearest_names("d/c/x", names)[:2] == ["c/x:0", "x:0"]
    assert nearest_names("c/X", names) == ["c/x:0", "b/c/x:0", "x:0"]
    assert nearest_names("c/X", names, most=1) == ["c/x:0"]
    whole, part = "zzzzzzzzzzzzzzz/logits:0", "zzzzzzzzzz/qlogits_of_all:0"
    assert nearest_names("logits", [part, whole]) == [whole]
    assert not any(nearest_names(text, NAMES) for text in ("", ":0", " ", "zzz"))
