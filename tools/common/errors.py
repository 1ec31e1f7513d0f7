"""The error of a command that cannot be done."""


class ToolError(Exception):
    """One line: what cannot be done, what was expected, what was found, and what mends it."""
