"""Class names as a file of labels, one a line in label order."""

from collections.abc import Sequence

LABELS_FILE = "labels.txt"


def labels_text(class_names: Sequence[str]) -> bytes:
    """The file's content in UTF-8."""
    return "".join(f"{line}\n" for line in as_lines(class_names)).encode()


def as_lines(class_names: Sequence[str]) -> list[str]:
    """Each name on one line: a line break inside of one, were there any, is a space."""
    return [" ".join(name.splitlines()) for name in class_names]
