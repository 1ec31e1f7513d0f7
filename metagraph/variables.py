"""The values of a graph's variables, from its checkpoint; which of them only an optimizer needs.

The graph's saver may store a variable under any name (of a dict, for moving averages) and as a
slice of a larger tensor (partitioned variables). What it does stands in its restore operations,
which are read here as data and never run:

  Assign(variable, [Identity or Cast of] RestoreV2(prefix, names, slices):k)
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.variable_pb2 import VariableDef

from checkpoints.bundle import DType, as_dtype
from checkpoints.layout import AVERAGE, is_slot
from checkpoints.reader import Array, CheckpointReader
from errors import CheckpointError, first_few
from metagraph.description import TensorInfo, fits_shape, format_shape
from metagraph.graph import (
    Output,
    View,
    attribute_of,
    data_inputs,
    reachable,
    source,
    sub_graph,
    text_at,
    views,
)
from metagraph.importing import disarmed_graph, reason_of_run, run_errors
from metagraph.meta import INPUT_OPS, MetaGraphFile, node_of, variable_definitions
from metagraph.safety import PURE, follows_from_inputs, takes_its_time

RESOURCE_VARIABLE = "VarHandleOp"
REF_VARIABLES = frozenset({"Variable", "VariableV2"})
VARIABLE_OPS = REF_VARIABLES | {RESOURCE_VARIABLE}
_TRAINABLE = "trainable_variables"
_LOCAL = "local_variables"
_MAX_NAMED = 10
ASSIGN_OPS = frozenset({"Assign", "AssignVariableOp"})
RESTORE_OPS = frozenset({"Restore", "RestoreSlice", "RestoreV2"})
_SLICE_SPEC = re.compile(r"\d{1,18}( \d{1,18})* (-|\d{1,18},\d{1,18})(:(-|\d{1,18},\d{1,18}))*")


class Part(NamedTuple):
    """A slice of a tensor: where it starts in each dimension, and how large it is there."""

    full_shape: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]


class Stored(NamedTuple):
    """Where a value is in a checkpoint."""

    key: str  # Of the tensor.
    part: Part | None = None  # The slice of it; None for all of it.
    cast: bool = False  # Whether the saver gives it the variable's dtype, whatever its own.


def checkpoint_keys(
    meta: MetaGraphFile, variables: Collection[str], held: Mapping[str, str]
) -> dict[str, Stored]:
    """Where the values of some variables are, in a checkpoint whose reader has the names `held`.

    What the file's saver says of a variable holds even where the checkpoint lacks it. Of one that
    it does not name, it is its shared name that counts where its own is not held.
    """
    own, keys = saver_keys(meta, others=True), dict[str, Stored]()
    shadows = averages(held, meta.prefix) if meta.averaged else {}
    for name in variables:
        shared = attribute_of(meta.nodes[name], "shared_name").s.decode("utf-8", "replace")
        stored = own.get(name, Stored(shared if name not in held and shared in held else name))
        key = shadows.get(stored.key, shadows.get(name, stored.key))
        keys[name] = stored._replace(key=held.get(key, key))
    return keys


def saver_keys(meta: MetaGraphFile, *, others: bool = False) -> dict[str, Stored]:
    """The places that the file's saver stores variables at; else all its restores agree on.

    With `others`, these are there also for variables that the saver leaves out.
    """
    saver = reachable(meta, [node_of(meta.proto.saver_def.restore_op_name)])
    own: dict[str, Stored] = {}
    found: dict[str, set[Stored]] = {}
    for root, variable, stored in _assignments(meta):
        if root in saver:
            own.setdefault(variable, stored)
        found.setdefault(variable, set()).add(stored)
    agreed = {name: places.pop() for name, places in found.items() if len(places) == 1}
    return agreed | own if others or not own else own


def _assignments(meta: MetaGraphFile) -> Iterator[tuple[str, str, Stored]]:
    """What is restored: the node of the graph that it runs in, the variable, the place."""
    for view in views(meta, RESTORE_OPS):
        for node in view.nodes.values():
            inputs = data_inputs(node) if node.op in ASSIGN_OPS else []
            stored = _stored(view, inputs[1]) if len(inputs) == 2 else None
            variable = source(view, inputs[0]) if stored else None
            if stored and variable and variable.view.caller is None:
                yield view.root_of(node), variable.node.name, stored


def _stored(view: View, text: str) -> Stored | None:
    """Where in a checkpoint a node's input is restored from; None where it is not, or damaged."""
    value = source(view, text)
    if value is None or value.node.op != "Cast" or not data_inputs(value.node):
        return value and _restored(value)
    before = source(value.view, data_inputs(value.node)[0])
    stored = before and _restored(before)
    return stored and stored._replace(cast=True)


def _restored(value: Output) -> Stored | None:
    """The place that a restore operation's output is read from."""
    inputs = data_inputs(value.node)
    if value.node.op not in RESTORE_OPS or len(inputs) < 2:
        return None
    # Of each of its inputs, the text that belongs to this output.
    constants = [source(value.view, text) for text in inputs[1:3]]
    texts = [None if c is None else text_at(c.node, value.position) for c in constants]
    key, spec = texts if len(texts) == 2 else (texts[0], "")
    part = _part(spec) if spec else None
    if not key or spec is None or (spec and part is None):
        return None
    return Stored(key, part)


def _part(spec: str) -> Part | None:
    """Parses `10 4 0,5:-`: the full shape, then start and size in each dimension, `-` for all.

    It gives None for a slice that is not inside of the tensor.
    Format: `TensorShape` and `TensorSlice` in `tensorflow/core/util/saved_tensor_slice_util.cc`.
    """
    if not _SLICE_SPEC.fullmatch(spec):
        return None
    *shape_texts, slices = spec.split(" ")
    shape = tuple(int(size) for size in shape_texts)
    extents = slices.split(":")
    if len(extents) != len(shape):
        return None
    pairs = [
        (0, full) if extent == "-" else tuple(int(number) for number in extent.split(","))
        for extent, full in zip(extents, shape, strict=True)
    ]
    if any(start + size > full for (start, size), full in zip(pairs, shape, strict=True)):
        return None
    return Part(shape, tuple(start for start, _ in pairs), tuple(size for _, size in pairs))


class Variable(TensorInfo):
    """A variable of a graph, by its node; never of a reference type, perhaps of unknown shape."""

    @property
    def is_defined(self) -> bool:
        """Whether all of its shape is known."""
        return self.shape is not None and None not in self.shape


def variable_of(meta: MetaGraphFile, node: NodeDef) -> Variable:
    """The variable that `node` makes; a CheckpointError where none can be so."""
    shape = attribute_of(node, "shape").shape
    dtype = dtype_of(meta, attribute_of(node, "dtype").type)
    if min((dim.size for dim in shape.dim), default=0) < -1:
        raise CheckpointError(f"{meta.path} is damaged: the shape of {node.name} is negative")
    # The oldest kind cannot tell a scalar from a shape that is not known.
    unknown = shape.unknown_rank or (node.op == "Variable" and not shape.dim)
    sizes = tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
    return Variable(node.name, dtype, None if unknown else sizes)


def dtype_of(meta: MetaGraphFile, number: int) -> DType:
    """The dtype of a number in the file, which may be damaged."""
    try:
        return as_dtype(number)
    except TypeError as error:
        raise CheckpointError(f"{meta.path} is damaged: there is no dtype {number}") from error


def graph_variables(meta: MetaGraphFile) -> list[Variable]:
    """All variables of a graph; raises as `variable_of` does."""
    return [variable_of(meta, node) for node in meta.nodes.values() if node.op in VARIABLE_OPS]


def trainable_names(meta: MetaGraphFile) -> set[str]:
    """The variables that the file says are to be trained."""
    told = {name for name, _ in variable_definitions(meta, _TRAINABLE)}
    return {name for name in told if meta.nodes[name].op in VARIABLE_OPS}


def unavailable(meta: MetaGraphFile, variables: Sequence[Variable]) -> list[str]:
    """Which of `variables` cannot have a value, a line each; CheckpointError where none can."""
    reader, places, _, missing, wrong = _looked_up(meta, variables)
    reader.check_sizes({place.key for place in places.values() if place.key in reader.shapes})
    if missing and meta.others:
        return wrong + unavailable(_next(meta), [v for v in variables if v.name in missing])
    return [f"{told} is missing" for told in missing.values()] + wrong


def read_values(meta: MetaGraphFile, variables: Sequence[Variable]) -> dict[str, Array]:
    """Reads the values of `variables` by name, each of exactly the variable's dtype and shape.

    A tensor that many variables are parts of is read once. Raises CheckpointError where a file is
    missing or damaged, or (seen before any value is read) a variable.
    """
    if not variables:
        return {}
    reader, places, initial, missing, wrong = _looked_up(meta, variables)
    if missing and not meta.others:
        is_part = len(missing) < len(variables)
        mend = "; a further --ckpt has what those before it lack" if is_part else ""
        raise CheckpointError(
            f"{meta.prefix} lacks {len(missing)} of the {len(variables)} variables that this "
            f"takes: {first_few([*missing.values()], _MAX_NAMED)}{mend}"
        )
    if wrong:
        line = first_few(wrong, _MAX_NAMED, "; ")
        raise CheckpointError(f"{meta.prefix} does not fit its graph: {line}")
    values = _initial_values(meta, initial, variables)
    if missing:
        values |= read_values(_next(meta), [v for v in variables if v.name in missing])
    by_key: dict[str, list[Variable]] = {}
    for variable in (variable for variable in variables if variable.name not in values):
        by_key.setdefault(places[variable.name].key, []).append(variable)
    reader.check_sizes(by_key)
    for key, sharing in by_key.items():
        full = reader.read(key)
        for variable in sharing:
            values[variable.name] = _value(full, variable, places[variable.name])
    return values


def _next(meta: MetaGraphFile) -> MetaGraphFile:
    """The file with the next of its checkpoints in the place of the first."""
    return replace(meta, prefix=meta.others[0], others=meta.others[1:])


def _looked_up(
    meta: MetaGraphFile, variables: Sequence[Variable]
) -> tuple[CheckpointReader, dict[str, Stored], dict[str, str], dict[str, str], list[str]]:
    """The checkpoint, the places in it, and by variable tensors of initial values, who is missing.

    Last a phrase for each variable that does not fit. An initial value stands in for a variable
    that no Saver stores, as it is local, where no checkpoint has it.
    """
    reader = CheckpointReader(meta.prefix)
    places = checkpoint_keys(meta, [variable.name for variable in variables], reader.names)
    local = {name for name, _ in variable_definitions(meta, _LOCAL)}
    missing, wrong = dict[str, str](), []
    for variable in variables:
        name, stored = variable.name, places[variable.name]
        named = name if stored.key == name else f"{name} (saved as {stored.key})"
        if stored.key not in reader.shapes:
            feed = f" (local: no Saver stores it; predict.py has --feed={name}=...)"
            missing[name] = named + feed * (name in local)
        elif misfit := _misfit(variable, stored, reader):
            wrong.append(f"{named} {misfit}")
    kept = local & missing.keys() if not meta.others else ()
    initial = initial_tensors(meta, kept, at_random=False)
    missing = {name: told for name, told in missing.items() if name not in initial}
    return reader, places, initial, missing, wrong


# The initial values of variables. Those of local ones are what a stock client has them begin with.


def _initial_values(
    meta: MetaGraphFile, tensors: Mapping[str, str], variables: Sequence[Variable]
) -> dict[str, Array]:
    """The initial values of some of the variables, given the tensors of these."""
    if not tensors:
        return {}
    told = first_few([*tensors], _MAX_NAMED)
    logging.info("%s: in no checkpoint, as it is local; the graph's initial value is taken", told)
    try:
        with tf.compat.v1.Session(graph=disarmed_graph(meta, tensors.values())) as session:
            found: dict[str, Array] = session.run(dict(tensors))
    except run_errors() as error:
        raise CheckpointError(f"{meta.path} cannot be run{reason_of_run(error)}") from error
    values = {name: np.asarray(value) for name, value in found.items()}
    for variable in (variable for variable in variables if variable.name in values):
        value, dtype = values[variable.name], variable.dtype.as_numpy_dtype
        if value.dtype != dtype or not fits_shape(variable.shape, value.shape):
            raise CheckpointError(
                f"{meta.path} is damaged: {variable.name} begins as {value.dtype} "
                f"{list(value.shape)}, and is {variable.dtype.name} {format_shape(variable.shape)}"
            )
    return values


def initial_tensors(
    meta: MetaGraphFile, variables: Collection[str], *, at_random: bool = True
) -> dict[str, str]:
    """Variable -> the tensor of its initial value in the file.

    Left out are those that no collection tells of, and those whose initial value does not follow
    from constants alone, or from these and random numbers.
    """
    found: dict[str, str] = {}
    for collection in meta.proto.collection_def:
        for name, entry in variable_definitions(meta, collection):
            tensor = _initial_tensor(meta, entry) if name in variables else None
            if tensor is not None and name not in found:
                operations = {meta.nodes[node].op for node in sub_graph(meta, [tensor]).names}
                is_pure = operations <= PURE - VARIABLE_OPS - INPUT_OPS
                is_constant = follows_from_inputs(operations) and not takes_its_time(operations)
                if is_pure and (at_random or is_constant):
                    found[name] = tensor
    return found


def _initial_tensor(meta: MetaGraphFile, entry: VariableDef) -> str | None:
    """What a variable is assigned by its initializer."""
    if entry.initial_value_name:
        return meta.find_tensor(entry.initial_value_name)
    node = meta.nodes.get(entry.initializer_name)
    inputs = data_inputs(node) if node is not None else []
    return meta.find_tensor(inputs[1]) if len(inputs) == 2 else None


def averages(keys: Collection[str], prefix: str) -> dict[str, str]:
    """The key of each moving average, by the key of its variable; CheckpointError without any."""
    found = {key.removesuffix(AVERAGE): key for key in keys if key.endswith(AVERAGE)}
    if not found:
        raise CheckpointError(
            f"--weights=ema: {prefix} has no moving averages (names that end in {AVERAGE})"
        )
    return found


def _value(full: Array, variable: Variable, stored: Stored) -> Array:
    value = full
    if stored.part is not None:
        pairs = zip(stored.part.starts, stored.part.sizes, strict=True)
        # A copy: a view would keep all of the tensor in memory.
        value = full[tuple(slice(start, start + size) for start, size in pairs)].copy()
    return value.astype(variable.dtype.as_numpy_dtype) if stored.cast else value


def _misfit(variable: Variable, stored: Stored, reader: CheckpointReader) -> str | None:
    """Why the checkpoint's tensor gives no value of the variable's dtype and shape, if so."""
    shape, dtype, part = reader.shapes[stored.key], reader.dtypes[stored.key], stored.part
    is_cast = stored.cast and dtype.is_floating and variable.dtype.is_floating
    is_whole = part is None or list(part.full_shape) == shape
    is_of_kind = (dtype == variable.dtype or is_cast) and is_whole
    if is_of_kind and fits_shape(variable.shape, part.sizes if part else shape):
        return None
    taken = f" (of which it takes {list(part.sizes)} at {list(part.starts)})" if part else ""
    has = f"{variable.dtype.name} {format_shape(variable.shape)}"
    return f"is {dtype.name} {shape}{taken}, the graph has {has}"


def slot_names(keys: Collection[str], meta: MetaGraphFile | None = None) -> frozenset[str]:
    """Which of all keys of a checkpoint only an optimizer needs.

    A graph's variables may be saved under other keys than their names; none that it says is to be
    trained is a slot, whatever it is called. A damaged graph raises CheckpointError.
    """
    held = frozenset(keys)
    slots = {key for key in held if is_slot(key, held)}
    if meta is not None:
        variables = {name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS}
        trained = trainable_names(meta)
        own = {name for name in variables if is_slot(name, variables)} - trained
        places = checkpoint_keys(meta, trained | own, {key: key for key in held})
        slots |= {places[name].key for name in own}
        slots -= {places[name].key for name in trained}
    return held & slots
