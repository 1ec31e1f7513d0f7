"""Where a run starts: at the newest good checkpoint of its folder, or at step 0.

A checkpoint of another run is refused. Which run it is of, its manifest tells: the run's identity
is what its numbers follow from, its environment what their last bits depend on.

With --init_from a run begins with the values of another model's checkpoint, by name. It is strict:
each variable of a scope that is asked for has to be there, of the same shape and dtype, and each
one that is there has to have its place, unless --exclude names it.
"""

import functools
import os
import platform
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from checkpoints import folder, naming
from checkpoints.bundle import VariableSpec
from checkpoints.folder import Retention
from checkpoints.lock import Hold, read_newest
from checkpoints.manifest import Manifest
from checkpoints.reader import CheckpointReader, Restored, restore_newest
from checkpoints.writer import MOST_FAILURES
from cli.terminal import INTRA_OP_THREADS_VARIABLE
from errors import CheckpointError, TrainingError, first_few, reason
from training.config import InitFrom, RunConfig
from training.metrics import LOGS_FOLDER, METRICS_FILE, lines_of, step_of
from training.task import NONE, GraphSession, InitialValues, Task, log_origins

STEP = "global_step"
_MAX_NAMED = 5
_OF_ADAM = re.compile(r"(.*/)?beta[12]_power(_\d+)?")
_PART = re.compile(r"\.(index|meta|manifest|data-\d{5}-of-\d{5})$")


_DIGEST = "initial_values"
_SHOWN = 20  # classes in an error


class Start(NamedTuple):
    """Where a run starts."""

    step: int  # Updates done.
    identity: Mapping[str, Any]  # What the run's numbers follow from, its first values included.
    retention: Retention  # Which checkpoints stay.


def start(session: GraphSession, config: RunConfig, task: Task) -> Start:
    """Gives the variables their values: restored ones, or those that the run begins with.

    The folder is changed only once it is clear that the run is this one.

    Raises:
      CheckpointError: there are checkpoints and none is good, or what the run begins with cannot
        be read or does not fit.
      TrainingError: the newest good one is of another run, there is none although the folder tells
        of some, or the folder cannot be written.
    """
    with _refusals_as_training_errors(f"{config.ckpt_dir} cannot be read"):
        _say_what_is_gone(config.ckpt_dir)
    read_initial = task.initial_values
    if config.init_from is not None:
        read_initial = functools.partial(read_init_from, config.init_from, session.specs)
    check = functools.partial(_refuse_other_run, task.identity, config.allow_config_change)
    restored = restore_newest(config.ckpt_dir, session.specs, check)
    if restored is None:
        if not config.start_anew:
            with _refusals_as_training_errors(f"{config.ckpt_dir} cannot be read"):
                _refuse_lost_run(config.ckpt_dir, task.save_interval(config.save_every_steps))
        initial = NONE if read_initial is None else read_initial()
        session.initialize(initial.values)
        identity = _with_digest(task.identity, initial)
        logging.info("starting %s at step 0", config.ckpt_dir)
        log_origins(session.specs, initial)
    else:
        identity = _resumed_identity(task.identity, read_initial, restored)
        _check_identity(restored, identity, config.allow_config_change)
        session.assign(restored.values)
        logging.info("resuming %s", restored.prefix)
    step = restored.step if restored else None
    with _refusals_as_training_errors(f"{config.ckpt_dir} cannot be written"):
        retention = folder.at_start(config.ckpt_dir, step, _retention(config))
    return Start(step or 0, identity, retention)


def _retention(config: RunConfig) -> Retention:
    return Retention(config.max_to_keep, config.keep_checkpoint_every_n_hours, config.keep_best)


@contextmanager
def _refusals_as_training_errors(what: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise TrainingError(f"{what}: {reason(error)}") from error


# A run that is lost is not begun anew in silence.


def _say_what_is_gone(path: str) -> None:
    """Warns where a checkpoint that the state file names is gone, and an older one is there."""
    state = os.path.join(path, naming.STATE_FILE)
    named = folder.named_checkpoint(state)
    found = naming.split_name((named or "") + naming.MANIFEST_SUFFIX)
    steps = folder.usable_steps(path)
    if found and steps and found[0] not in steps:
        logging.warning(
            "%s names %s, which is not there: its steps since step %d are done again",
            state,
            named,
            steps[-1],
        )


def _refuse_lost_run(path: str, save_every: int | Fraction) -> None:
    """TrainingError where a folder without a checkpoint tells of some: they are lost.

    A run that never had one tells of none. It may have written metrics, but not of more steps than
    there are until its third save in a row has failed, which the fourth finds.
    """
    state = os.path.join(path, naming.STATE_FILE)
    metrics = os.path.join(path, LOGS_FOLDER, METRICS_FILE)
    last = max((step_of(line) or 0 for line in lines_of(metrics)), default=0)
    if remains := folder.remains(path):
        told = f"{path} has {remains[-1]} without its .index and its manifest"
    elif tf.io.gfile.exists(state):
        told = f"{state} names {folder.named_checkpoint(state) or 'a checkpoint'}"
    elif last > (MOST_FAILURES + 1) * save_every:
        told = f"{metrics} has steps up to {last}"
    else:
        return
    raise TrainingError(
        f"{told}, but {path} has no checkpoint: bring the missing files back, train into another "
        "folder with --ckpt_dir, or begin at step 0 with --start_anew"
    )


# Whether a checkpoint is of this run.


def environment() -> dict[str, Any]:
    """What the last bits depend on: TensorFlow, the machine, and the threads of an operation.

    The threads are TF_NUM_INTRAOP_THREADS if that is set, else the number of processors.
    """
    given = os.environ.get(INTRA_OP_THREADS_VARIABLE, "")
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    return {
        "tensorflow": tf.version.VERSION,
        "machine": platform.machine(),
        "threads": int(given) if given.isdecimal() and int(given) > 0 else processors,
    }


def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """`name was A, is now B` for each entry that differs."""

    def value(entries: Mapping[str, Any], name: str) -> str:
        return repr(entries[name]) if name in entries else "not given"

    return [
        f"{name} was {value(saved, name)}, is now {value(present, name)}"
        for name in sorted({*saved, *present})
        if saved.get(name) != present.get(name)
    ]


def _with_digest(identity: Mapping[str, Any], initial: InitialValues) -> Mapping[str, Any]:
    return {**identity, _DIGEST: initial.digest()} if initial.values else identity


def _resumed_identity(
    identity: Mapping[str, Any],
    read_initial: Callable[[], InitialValues] | None,
    restored: Restored,
) -> Mapping[str, Any]:
    """The identity of a run that goes on: with what it began with, if that is still there.

    What is gone by now cannot be compared, and is not needed either.
    """
    if read_initial is None:
        return identity
    try:
        return _with_digest(identity, read_initial())
    except CheckpointError as error:
        saved = restored.manifest.config.get(_DIGEST) if restored.manifest else None
        if saved is None:
            raise
        logging.warning("what the run began with is not compared: %s", error)
        return {**identity, _DIGEST: saved}


def _refuse_other_run(
    identity: Mapping[str, Any], allow_change: bool, prefix: str, manifest: Manifest
) -> None:
    """Refuses a checkpoint of another run before its variables, which might not fit, are compared.

    What the run began with is not compared yet.
    """
    saved = {name: value for name, value in manifest.config.items() if name != _DIGEST}
    _changes_or_refusal(prefix, saved, identity, allow_change)


def _check_identity(restored: Restored, identity: Mapping[str, Any], allow_change: bool) -> None:
    """Refuses a checkpoint of another run, unless that is allowed; says what is another."""
    if restored.manifest is None:
        return
    saved = restored.manifest.config
    if changes := _changes_or_refusal(restored.prefix, saved, identity, allow_change):
        logging.warning("continuing another run: %s", ", ".join(changes))
    if moves := differences(restored.manifest.environment, environment()):
        logging.warning("the last bits of the numbers may differ: %s", ", ".join(moves))


def _changes_or_refusal(
    prefix: str, saved: Mapping[str, Any], identity: Mapping[str, Any], allow_change: bool
) -> list[str]:
    """Lists what is another than it was; raises TrainingError where that may not be.

    Another model, or another number of classes, has other variables: that may never be.
    """
    changes = _changes(saved, identity)
    before, now = _class_names(saved), _class_names(identity)
    may_fit = saved.get("model") == identity.get("model") and len(before) == len(now)
    if not changes or (allow_change and may_fit):
        return changes
    mends = ["train into another folder with --ckpt_dir"]
    if isinstance(saved.get("classes"), list) and {*before} < {*now}:
        old = shlex.quote(",".join(before)) if len(before) <= _SHOWN else "..."
        mends.insert(0, f"train on the old ones with --classes={old}")
    if may_fit:
        mends.append("continue all the same with --allow_config_change")
    raise TrainingError(f"{prefix} is of another run: {', '.join(changes)}; {', or '.join(mends)}")


def _changes(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """What is another than it was, without what only follows from another model or class."""
    left_out, told = set[str](), []
    before, now = _class_names(saved), _class_names(identity)
    if saved.get("model") != identity.get("model"):
        left_out = {*saved, *identity} - {"model"}
    elif {*before} != {*now}:
        left_out = {"data", "test_data", "images", "classes"}
        for what, names, others in (("new", now, before), ("gone", before, now)):
            if only := [name for name in names if name not in others]:
                more = ", ..." if len(only) > _SHOWN else ""
                told.append(f"classes that are {what}: {', '.join(only[:_SHOWN])}{more}")
    kept = [{k: v for k, v in e.items() if k not in left_out} for e in (saved, identity)]
    return told + differences(*kept)


def _class_names(identity: Mapping[str, Any]) -> list[str]:
    """The names of a run's classes; of classes without names, their numbers."""
    classes = identity.get("classes", 0)
    return classes if isinstance(classes, list) else [str(number) for number in range(classes)]


# --init_from: the values of another model's checkpoint, by name.


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
