"""Text that a terminal shows as it is, and does not obey."""

import re

# Control characters but for tab and newline, and those that turn the direction of what follows.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""The text with each character that a terminal would obey as its escape, such as `\u001b`.

    Names in a file may be anything: those of a stranger's file could hide or forge a line. JSON
    stays JSON.
    """
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
