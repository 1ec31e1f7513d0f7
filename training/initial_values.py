"""What variables begin with in place of their initializer's value, and where each comes from."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

_MOST_LINES = 40  # Of more variables, those of a scope are told of together.

NEW = "new"


class InitialValues(NamedTuple):
    """Values for some variables of a run that starts at step 0.

    Attributes:
      values: by the variable's name, of its very shape and dtype.
      origins: by the same names, where each comes from, such as `model1/my-model-200, conv1/w`.
    """

    values: Mapping[str, np.ndarray[Any, Any]]
    origins: Mapping[str, str]

    def digest(self) -> str:
        """Tells these values, of variables of these names, from others: a SHA-256 in hex."""
        digest = hashlib.sha256()
        for name, value in sorted(self.values.items()):
            digest.update(f"{name} {value.dtype.str} {value.shape} ".encode())
            digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()


NONE = InitialValues({}, {})


def log_origins(variables: Iterable[str], initial: InitialValues) -> None:
    """Logs where each variable's value comes from: `conv1/w: restored from ...` or `w: new`.

    Where all are new, there is nothing to tell.
    """
    if not initial.values:
        return
    origins = {name: _origin(name, initial) for name in variables}
    if len(origins) <= _MOST_LINES:
        for name, origin in origins.items():
            logging.info("%s: %s", name, origin)
        return
    scopes: dict[tuple[str, bool], list[str]] = {}
    for name in origins:
        scopes.setdefault((name.partition("/")[0], name in initial.values), []).append(name)
    for (scope, _), names in scopes.items():
        more = f" and {len(names) - 1} more of {scope}" if len(names) > 1 else ""
        logging.info("%s%s: %s", names[0], more, origins[names[0]])


def _origin(name: str, initial: InitialValues) -> str:
    return f"restored from {initial.origins[name]}" if name in initial.values else NEW
