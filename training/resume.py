"""Where a run starts: at the newest good checkpoint of its folder, or at step 0.

A checkpoint of another run is refused. Its manifest tells which run it is of: the run's identity is
what its numbers follow from, its environment what their last bits depend on.
"""

import functools
import os
import platform
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from fractions import Fraction
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from checkpoints import folder, layout
from checkpoints.bundle import VariableSpec
from checkpoints.folder import Retention, Saved
from checkpoints.layout import Manifest
from checkpoints.lock import Hold, read_newest
from checkpoints.reader import CheckpointReader, Restored, restore_newest
from checkpoints.writer import MOST_FAILURES
from cli.terminal import INTRA_OP_THREADS_VARIABLE, ONEDNN_VARIABLE, processors
from errors import CheckpointError, TrainingError, first_few
from training.config import InitFrom, RunConfig
from training.metrics import LOGS_FOLDER, METRICS_FILE, lines_of, refusals_told, step_of
from training.task import GraphSession, InitialValues, Task, log_origins

STEP, _SAVES = "global_step", "save_counter"  # The latter of tf.train.Checkpoint.
_MAX_NAMED = 5
_DIGEST = "initial_values"  # The identity's entry for what a run began with.
_SHOWN = 20  # classes in an error
_MOST_OF_CPUINFO = 1 << 13  # bytes: the first processor's, which tell of all
BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "asimd", "sve", *BFLOAT16_FEATURES)


class Start(NamedTuple):
    """Where a run starts."""

    step: int  # Updates done.
    identity: Mapping[str, Any]  # What the run's numbers follow from, its first values included.
    retention: Retention  # Which checkpoints stay.
    best: Saved | None  # Of those that were measured; None where it is not to be kept.


def start(session: GraphSession, config: RunConfig, task: Task) -> Start:
    """Gives the variables their values: restored ones, or those that the run begins with.

    The folder is changed only once it is clear that the run is this one.

    Raises:
      CheckpointError: there are checkpoints and none is good, or what the run begins with cannot
        be read or does not fit.
      TrainingError: the newest good one is of another run, there is none although the folder tells
        of some, or the folder cannot be written.
    """
    with refusals_told(f"{config.ckpt_dir} cannot be read"):
        _check_nothing_is_lost(config, task.save_interval(config.save_every_steps))
    check = functools.partial(refuse_other_run, task.identity, config)
    restored = restore_newest(config.ckpt_dir, session.specs, check)
    identity = begin_with(restored, session, config, task)
    if restored is not None and (moved := moves(restored.manifest)):
        logging.warning("the last bits of the numbers may differ: %s", ", ".join(moved))
    step = restored.step if restored else None
    wanted = Retention(config.max_to_keep, config.keep_checkpoint_every_n_hours, config.keep_best)
    with refusals_told(f"{config.ckpt_dir} cannot be written"):
        retention = folder.at_start(config.ckpt_dir, step, wanted)
        keeps = step is not None and config.keep_best
        best = folder.best_so_far(config.ckpt_dir, step or 0, retention) if keeps else None
        return Start(step or 0, identity, retention, best)


def begin_with(
    restored: Restored | None, session: GraphSession, config: RunConfig, task: Task
) -> Mapping[str, Any]:
    """Gives the variables a checkpoint's values, or those of step 0; returns the run's identity."""
    read_initial = task.initial_values
    if config.init_from is not None:
        read_initial = functools.partial(read_init_from, config.init_from, session.specs)
    if restored is None:
        initial = read_initial()
        session.initialize(initial.values)
        logging.info("starting %s at step 0", config.ckpt_dir)
        log_origins(session.specs, initial)
        return _with_digest(task.identity, initial)
    identity = _resumed_identity(task.identity, read_initial, restored.manifest)
    say_changes(identity, config, restored.prefix, restored.manifest)
    session.initialize(restored.values)
    logging.info("resuming %s", restored.prefix)
    return identity


def _check_nothing_is_lost(config: RunConfig, save_every: int | Fraction) -> None:
    """Warns where the newest checkpoint is gone; TrainingError where all are, unless that is meant.

    A run may have metrics and no checkpoint, where its saves have failed. The third failure in a
    row ends it at its fourth save: metrics of more steps mean that checkpoints are gone.
    """
    path = config.ckpt_dir
    state = os.path.join(path, layout.STATE_FILE)
    named = folder.named_checkpoint(state)
    if steps := folder.usable_steps(path):
        found = layout.split_name((named or "") + layout.MANIFEST_SUFFIX)
        if found and found[0] not in steps:
            gone = f"{state} names {named}, which is not there"
            logging.warning("%s: its steps since step %d are done again", gone, steps[-1])
        return
    if config.start_anew:
        return
    metrics = os.path.join(path, LOGS_FOLDER, METRICS_FILE)
    last = max((step_of(line) or 0 for line in lines_of(metrics)), default=0)
    if remains := folder.remains(path):
        told = f"{path} has {remains[-1]} without its .index and its manifest"
    elif tf.io.gfile.exists(state):
        told = f"{state} names {named or 'a checkpoint'}"
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

    The threads are TF_NUM_INTRAOP_THREADS if that is set, else the number of processors. Kernels
    are chosen by what the processor can do, and by whether oneDNN's are among them.
    """
    given = int(os.environ.get(INTRA_OP_THREADS_VARIABLE) or 0)
    words: list[str] = []  # Linux alone tells.
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        words = file.read(_MOST_OF_CPUINFO).split()
    return {
        "tensorflow": tf.version.VERSION,
        "machine": platform.machine(),
        "threads": given or processors(),
        "onednn": os.environ.get(ONEDNN_VARIABLE, "by default"),
        "processor": " ".join(name for name in _FEATURES if name in words),
    }


def _with_digest(identity: Mapping[str, Any], initial: InitialValues) -> Mapping[str, Any]:
    return {**identity, _DIGEST: initial.digest()} if initial.values else identity


def _resumed_identity(
    identity: Mapping[str, Any],
    read_initial: Callable[[], InitialValues],
    manifest: Manifest | None,
) -> Mapping[str, Any]:
    """The identity with what the run began with, which is not compared where it is gone by now."""
    try:
        return _with_digest(identity, read_initial())
    except CheckpointError as error:
        if manifest is None or _DIGEST not in manifest.config:
            raise
        logging.warning("what the run began with is not compared: %s", error)
        return {**identity, _DIGEST: manifest.config[_DIGEST]}


def refuse_other_run(
    identity: Mapping[str, Any], config: RunConfig, prefix: str, manifest: Manifest
) -> None:
    """Refuses a checkpoint of another run, before its variables are compared, which may not fit.

    What the run began with is not compared yet.
    """
    saved = {name: value for name, value in manifest.config.items() if name != _DIGEST}
    _changes_or_refusal(prefix, saved, identity, config)


def say_changes(
    identity: Mapping[str, Any], config: RunConfig, prefix: str, manifest: Manifest | None
) -> None:
    """Says what is another than it was; raises TrainingError where that may not be."""
    saved = identity if manifest is None else manifest.config
    if changes := _changes_or_refusal(prefix, saved, identity, config):
        logging.warning("continuing another run: %s", ", ".join(changes))


def moves(manifest: Manifest | None) -> list[str]:
    """How this machine or TensorFlow is another than what a checkpoint was made with."""
    return [] if manifest is None else _differences(manifest.environment, environment())


def _changes_or_refusal(
    prefix: str, saved: Mapping[str, Any], identity: Mapping[str, Any], config: RunConfig
) -> list[str]:
    """Lists what is another than it was; raises TrainingError where that may not be.

    Another model, or another number of classes, has other variables, as has one with moving
    averages: that may never be.
    """
    changes = _changes(saved, identity)
    before, now = _class_names(saved), _class_names(identity)
    may_fit = saved.get("model") == identity.get("model") and len(before) == len(now)
    may_fit &= ("ema_decay" in saved) == ("ema_decay" in identity)
    if not changes or (config.allow_config_change and may_fit):
        return changes
    if config.replay is not None:
        flags = os.path.join(config.ckpt_dir, layout.FLAGS_FILE)
        raise TrainingError(
            f"{prefix} is of another run: {', '.join(changes)}; give --replay the run's own flags, "
            f"such as --flagfile={flags}"
        )
    mends = ["train into another folder with --ckpt_dir"]
    if isinstance(saved.get("classes"), list) and {*before} < {*now}:
        old = shlex.quote(",".join(before)) if len(before) <= _SHOWN else "..."
        mends.insert(0, f"train on the old ones with --classes={old}")
    if may_fit:
        mends.append("continue all the same with --allow_config_change")
    raise TrainingError(f"{prefix} is of another run: {', '.join(changes)}; {', or '.join(mends)}")


def _changes(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """What is another than it was, without what only follows from another model or class."""
    before, now = _class_names(saved), _class_names(identity)
    if saved.get("model") != identity.get("model"):
        return _differences(saved, identity, left_out={*saved, *identity} - {"model"})
    if {*before} == {*now}:
        return _differences(saved, identity)
    told = []
    for what, names, others in (("new", now, before), ("gone", before, now)):
        if only := [name for name in names if name not in others]:
            told.append(f"classes that are {what}: {first_few(only, _SHOWN)}")
    return told + _differences(saved, identity, {"data", "test_data", "images", "classes"})


def _differences(
    saved: Mapping[str, Any], present: Mapping[str, Any], left_out: Collection[str] = ()
) -> list[str]:
    """`name was A, is now B` for each entry that differs."""
    was, now = ({k: repr(v) for k, v in each.items()} for each in (saved, present))
    return [
        f"{k} was {was.get(k, 'not given')}, is now {now.get(k, 'not given')}"
        for k in sorted({*saved, *present} - {*left_out})
        if saved.get(k) != present.get(k)
    ]


def _class_names(identity: Mapping[str, Any]) -> list[str]:
    """The names of a run's classes; of classes without names, their numbers."""
    classes = identity.get("classes", 0)
    return classes if isinstance(classes, list) else [str(number) for number in range(classes)]


# --init_from: the values of another model's checkpoint, by name. It is strict: each variable of a
# scope that is asked for has to be there, of the same shape and dtype, and each one that is there
# has to have its place, unless --exclude names it.


def read_init_from(request: InitFrom, specs: Mapping[str, VariableSpec]) -> InitialValues:
    """Reads the values that are asked for, of a run whose variables are `specs`.

    What belongs to an optimizer stays new, unless a rule names it in full; the step always does.

    Raises:
      CheckpointError: a rule matches nothing, a variable is missing, has no place or does not fit,
        or the checkpoint is damaged; the first few are named.
    """
    return read_newest([request.path], functools.partial(_read, request, specs))


def _read(request: InitFrom, specs: Mapping[str, VariableSpec], hold: Hold) -> InitialValues:
    prefix = folder.find_variables(request.path, "--init_from")
    hold(prefix)
    reader = CheckpointReader(prefix)
    held = {name: reader.specs[key] for name, key in reader.names.items()}
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
    places = {name: reader.names[key] for name, key in keys.items()}
    reader.check_sizes(set(places.values()))
    return InitialValues(
        {name: reader.read(place) for name, place in places.items()},
        {name: prefix if key == name else f"{prefix} as {key}" for name, key in keys.items()},
    )


def _keys(
    request: InitFrom,
    prefix: str,
    held: Mapping[str, VariableSpec],
    specs: Mapping[str, VariableSpec],
) -> dict[str, str]:
    """Variable of the run -> key of the checkpoint, by the rules; errors as of `read_init_from`."""
    keys, missing, extra = dict[str, str](), dict[str, str](), dict[str, str]()
    for old, new in request.assign or (("", ""),):
        taken = {new + key[len(old) :]: key for key in _chosen(old, held)}
        wanted = {name: old + name[len(new) :] for name in _chosen(new, specs)}
        if not taken:
            raise CheckpointError(
                f"--assign={old}={new}: {prefix} has nothing of {old or 'its own'}"
            )
        for name in {*taken} & {*wanted} & {STEP, *keys}:
            why = "the run counts its own steps" if name == STEP else "another rule gives it, too"
            raise CheckpointError(f"--assign={old}={new}: {name} cannot be assigned, as {why}")
        keys |= {name: taken[name] for name in wanted if name in taken}
        missing |= {name: key for name, key in wanted.items() if name not in taken}
        extra |= {name: key for name, key in taken.items() if name not in specs}
    if request.exclude is not None:
        names = [*keys, *missing, *extra]
        kept = {name for name in names if not re.fullmatch(request.exclude, name)}
        if len(kept) == len({*names}):
            raise CheckpointError(
                f"--exclude={request.exclude} matches none of the variables: "
                f"{first_few(names, _MAX_NAMED)}"
            )
        keys, missing, extra = (
            {name: key for name, key in found.items() if name in kept}
            for found in (keys, missing, extra)
        )
    _check_complete(prefix, missing, extra)
    return keys


def _chosen(rule: str, names: Collection[str]) -> list[str]:
    """The names that one side of a rule means: one, or those of a scope but for an optimizer's."""
    if rule and not rule.endswith("/"):
        return [rule] if rule in names else []
    return [n for n in names if n.startswith(rule) and not _is_of_optimizer(n, names)]


def _is_of_optimizer(name: str, names: Collection[str]) -> bool:
    """Whether a variable is a counter, or goes with another one, as `conv1/w/Adam` does."""
    parts = name.split("/")
    is_beneath = any("/".join(parts[:count]) in names for count in range(1, len(parts)))
    return is_beneath or name in (STEP, _SAVES) or layout.is_slot(name, names)


def _check_complete(prefix: str, missing: Mapping[str, str], extra: Mapping[str, str]) -> None:
    """CheckpointError where a variable here has none there, or one there has no place here."""
    lacking = [name if name == key else f"{key} for {name}" for name, key in missing.items()]
    over = [key if name == key else f"{key} as {name}" for name, key in extra.items()]
    found = [f"it lacks {first_few(lacking, _MAX_NAMED)}"] if lacking else []
    found += [f"there is no place here for its {first_few(over, _MAX_NAMED)}"] if over else []
    if found:
        raise CheckpointError(
            f"--init_from={prefix}: {'; '.join(found)} (--assign=old/=new/ takes a part, --exclude "
            "leaves variables new)"
        )
