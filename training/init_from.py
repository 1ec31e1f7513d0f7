"""--init_from: a run that begins with the values of another model's checkpoint, by name.

It is strict. Each variable of a scope that is asked for has to be there, of the same shape and
dtype, and each one that is there has to have its place, unless --exclude names it.
"""

import functools
import re
from collections.abc import Collection, Mapping, Sequence

import tensorflow as tf

from checkpoints import folder, naming
from checkpoints.bundle import VariableSpec
from checkpoints.folder import Hold, read_newest
from checkpoints.reader import CheckpointReader
from errors import CheckpointError, first_few
from training.config import InitFrom
from training.task import InitialValues

STEP = "global_step"
_MAX_NAMED = 5
_OF_ADAM = re.compile(r"(.*/)?beta[12]_power(_\d+)?")
_PART = re.compile(r"\.(index|meta|manifest|data-\d{5}-of-\d{5})$")


def read_init_from(request: InitFrom, specs: Mapping[str, VariableSpec]) -> InitialValues:
    """Reads the values that are asked for, of a run whose variables are `specs`.

    What belongs to an optimizer stays new, unless a rule names it in full; the step always does,
    as the run counts its own.

    Raises:
      CheckpointError: a rule matches nothing, a variable is missing, has no place or does not fit,
        or the checkpoint is damaged; the first few are named.
    """
    return read_newest([request.path], functools.partial(_read, request, specs))


def _read(request: InitFrom, specs: Mapping[str, VariableSpec], hold: Hold) -> InitialValues:
    prefix = _prefix(request.path)
    hold(prefix)
    reader = CheckpointReader(prefix)
    held = reader.specs
    keys = _keys(request, prefix, held, specs)
    wrong = [
        f"{key} is {held[key]}, {name} here is {specs[name]}"
        for name, key in keys.items()
        if held[key] != specs[name]
    ]
    if wrong:
        raise CheckpointError(
            f"--init_from={prefix}: {first_few(wrong, _MAX_NAMED, '; ')} (--exclude leaves "
            "variables new)"
        )
    reader.check_sizes(set(keys.values()))
    return InitialValues(
        {name: reader.read(key) for name, key in keys.items()},
        {name: prefix if key == name else f"{prefix} as {key}" for name, key in keys.items()},
    )


def _prefix(path: str) -> str:
    """The checkpoint that a path stands for."""
    if tf.io.gfile.isdir(path) and not tf.io.gfile.exists(path + naming.INDEX_SUFFIX):
        steps = folder.usable_steps(path)
        if not steps:
            raise CheckpointError(f"--init_from={path}: the folder holds no checkpoint")
        return naming.checkpoint_prefix(path, steps[-1])
    return _PART.sub("", path)


def _keys(
    request: InitFrom,
    prefix: str,
    held: Mapping[str, VariableSpec],
    specs: Mapping[str, VariableSpec],
) -> dict[str, str]:
    """Variable of the run -> key of the checkpoint, by the rules.

    Raises:
      CheckpointError: a rule or --exclude matches nothing, two rules give one variable, or a
        variable is missing or has no place.
    """
    keys: dict[str, str] = {}
    missing, extra = [], []
    for old, new in request.assign or (("", ""),):
        taken = {new + key[len(old) :]: key for key in _chosen(old, held)}
        wanted = _chosen(new, specs)
        if not taken:
            raise CheckpointError(
                f"--assign={old}={new}: {prefix} has nothing of {old or 'its own'}"
            )
        for name in {*taken} & {*wanted} & {STEP, *keys}:
            why = "the run counts its own steps" if name == STEP else "another rule gives it, too"
            raise CheckpointError(f"--assign={old}={new}: {name} cannot be assigned, as {why}")
        keys |= {name: taken[name] for name in wanted if name in taken}
        missing += [(name, old + name[len(new) :]) for name in wanted if name not in taken]
        extra += [(name, key) for name, key in taken.items() if name not in specs]
    kept = _kept(request.exclude, [*keys, *(name for name, _ in (*missing, *extra))])
    _check_complete(
        prefix, [m for m in missing if m[0] in kept], [e for e in extra if e[0] in kept]
    )
    return {name: key for name, key in keys.items() if name in kept}


def _chosen(rule: str, names: Collection[str]) -> list[str]:
    """The names that one side of a rule means."""
    if rule and not rule.endswith("/"):
        return [rule] if rule in names else []
    return [n for n in names if n.startswith(rule) and not _is_of_optimizer(n, names)]


def _is_of_optimizer(name: str, names: Collection[str]) -> bool:
    """Whether a variable is the step, or goes with another one, as `conv1/w/Adam` does."""
    if name == STEP or _OF_ADAM.fullmatch(name):
        return True
    parts = name.split("/")
    return any("/".join(parts[:count]) in names for count in range(1, len(parts)))


def _kept(exclude: str | None, names: Sequence[str]) -> set[str]:
    """The names that --exclude does not match.

    Raises:
      CheckpointError: it matches none.
    """
    if exclude is None:
        return {*names}
    kept = {name for name in names if not re.fullmatch(exclude, name)}
    if len(kept) == len({*names}):
        raise CheckpointError(
            f"--exclude={exclude} matches none of the variables: {first_few(names, _MAX_NAMED)}"
        )
    return kept


def _check_complete(
    prefix: str, missing: Sequence[tuple[str, str]], extra: Sequence[tuple[str, str]]
) -> None:
    """Each entry is the name of a variable here, and its key there."""
    found = []
    if missing:
        lacking = [name if name == key else f"{key} for {name}" for name, key in missing]
        found.append(f"it lacks {first_few(lacking, _MAX_NAMED)}")
    if extra:
        over = [key if name == key else f"{key} as {name}" for name, key in extra]
        found.append(f"there is no place here for its {first_few(over, _MAX_NAMED)}")
    if found:
        raise CheckpointError(
            f"--init_from={prefix}: {'; '.join(found)} (--assign=old/=new/ takes a part, --exclude "
            "leaves variables new)"
        )
