"""Regular expressions that a user writes."""

import re


def as_pattern(text: str) -> re.Pattern[str]:
    """Compiles it.

    Raises:
      ValueError: it is none of Python's, or more than its compiler takes.
    """
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error
