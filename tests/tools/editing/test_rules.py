"""Rules over names, on names alone."""

import re
from collections.abc import Callable

import pytest

from errors import ToolError
from tools.selection import Rename, new_names, plain_rename, regex_rename, select

KEYS = ["conv1/w", "conv1/w/Adam", "conv10/w", "w", "global_step"]


@pytest.mark.parametrize(
    ("only", "drop", "slots", "kept"),
    [
        ([], [], [], KEYS),
        (["^conv1/"], [], [], ["conv1/w", "conv1/w/Adam"]),
        (["^conv1/", "step"], [], [], ["conv1/w", "conv1/w/Adam", "global_step"]),
        ([], ["w$"], [], ["conv1/w/Adam", "global_step"]),
        (["conv"], ["0"], ["conv1/w/Adam"], ["conv1/w"]),
        (["conv", "fc"], [], [], r"--only=fc is found in no name of the 5"),
        ([], ["fc"], [], r"--drop=fc is found in no name"),
        (["conv"], ["w"], [], "nothing is left of the 5 variables"),
    ],
)
def test_what_is_kept(
    only: list[str], drop: list[str], slots: list[str], kept: list[str] | str
) -> None:
    """Or why nothing is: patterns of no use are refused."""
    if isinstance(kept, str):
        with pytest.raises(ToolError, match=kept):
            select(KEYS, slots, only, drop)
    else:
        assert select(KEYS, slots, only, drop) == kept


@pytest.mark.parametrize(
    ("rules", "new"),
    [
        ([plain_rename("w=v")], "conv1/w conv1/w/Adam conv10/w v global_step"),
        ([plain_rename("conv1/=a/b/")], "a/b/w a/b/w/Adam conv10/w w global_step"),
        (
            [plain_rename("conv1/=layer/"), plain_rename("layer/=last/")],
            "last/w last/w/Adam conv10/w w global_step",
        ),
        (
            [regex_rename(r"^conv(\d+)/=layer\1/")],
            "layer1/w layer1/w/Adam layer10/w w global_step",
        ),
        (
            [regex_rename("^(?=c)=net/")],  # A pattern may have = itself.
            "net/conv1/w net/conv1/w/Adam net/conv10/w w global_step",
        ),
        ([plain_rename(r"w=a\1")], r"conv1/w conv1/w/Adam conv10/w a\1 global_step"),
        (
            [plain_rename("conv1/w=a"), plain_rename("w=b")],
            "a conv1/w/Adam conv10/w b global_step",
        ),
    ],
)
def test_what_they_are_called(rules: list[Rename], new: str) -> None:
    assert [*new_names(KEYS, rules).values()] == new.split()


def test_a_scope_is_taken_away_and_two_names_are_exchanged_by_a_third() -> None:
    assert new_names(["conv1/w", "b"], [plain_rename("conv1/=")]) == {"conv1/w": "w", "b": "b"}
    rules = [plain_rename(text) for text in ("a=c", "b=a", "c=b")]
    assert new_names(["a", "b"], rules) == {"a": "b", "b": "a"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (plain_rename("w=global_step"), "w and global_step would both be called global_step"),
        (plain_rename("conv1/=conv10/"), "conv1/w and conv10/w would both be called conv10/w"),
        (regex_rename("^w$="), "w would be called '', which is no name"),
        (plain_rename("v=u"), "--rename=v=u is for no name that is kept"),
        (regex_rename("^w$=a/"), "w would be called 'a/', which is no name"),
    ],
)
def test_clashes_and_rules_of_no_use_are_refused(rule: Rename, message: str) -> None:
    with pytest.raises(ToolError, match=f"^{re.escape(message)}$"):
        new_names(KEYS, [rule])


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (plain_rename, ["", "w", "=v", "/=a/", "a/=b", "a=b/", "a="]),
        (regex_rename, ["", "w", "=v", "(=b", r"a=\1"]),
    ],
)
def test_rules_of_another_form_are_refused(
    parse: Callable[[str], Rename], texts: list[str]
) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=r"old=new|pattern|reference"):
            parse(text)
