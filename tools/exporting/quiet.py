"""Keeps a converter silent: what it says is for its makers; what it raises is for us to tell."""

import io
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from cli.held_output import STDERR, STDOUT, descriptors_into


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what is written to stdout and stderr, by Python and beneath it, and all warnings.

    Warnings go too, as the packages warn of each other: none of them is about the user's model.
    """
    with (
        tempfile.TemporaryFile() as said,
        descriptors_into(said, [STDOUT, STDERR]),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
