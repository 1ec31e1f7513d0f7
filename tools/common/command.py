"""The start of a command: its process, its errors, its exit code."""

import functools
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol, TypeAlias

from absl import flags

from checkpoints.errors import CheckpointError
from cli.run import run
from cli.supervisor import Supervisor
from data.errors import DataError
from prediction.errors import PredictionError
from tools.common.errors import ToolError

USER_ERRORS = (CheckpointError, DataError, PredictionError, ToolError)

EndAfter: TypeAlias = Callable[[float, str], None]


class Main(Protocol):
    """The work of a command: parsed flags to an exit code, or None for 0.

    `end_after` is that of a `TimeLimit`.
    """

    def __call__(  # noqa: D102 (told by the class)
        self, values: flags.FlagValues, end_after: EndAfter | None = None
    ) -> int | None: ...


def run_command(
    main: Main,
    define_flags: Callable[[flags.FlagValues], None],
    description: str | None,
    positional: Sequence[str] = (),
) -> NoReturn:
    """Runs a command in a process of its own, as it reads what strangers made, and exits.

    Args:
      main: the work.
      define_flags: defines its flags.
      description: the command's docstring, shown by --help.
      positional: flags whose values may stand without them, see `cli.run.run`.
    """
    supervisor = Supervisor("give it a smaller model")
    run(
        functools.partial(main, end_after=supervisor.end_after),
        define_flags,
        description,
        user_errors=USER_ERRORS,
        supervisor=supervisor,
        positional=positional,
    )
