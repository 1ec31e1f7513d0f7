"""The values of a graph's variables, from its checkpoint; which of them only an optimizer needs.

The graph's saver may store a variable under any name (of a dict, for moving averages) and as a
slice of a larger tensor (partitioned variables). What it does stands in its restore operations,
which are read here as data and never run:

  Assign(variable, [Identity or Cast of] RestoreV2(prefix, names, slices):k)
"""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.dtypes import DType, as_dtype
from checkpoints.naming import AVERAGE
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
    text_at,
    views,
)
from metagraph.meta import MetaGraphFile, node_of, variable_definitions

RESOURCE_VARIABLE = "VarHandleOp"
REF_VARIABLES = frozenset({"Variable", "VariableV2"})
VARIABLE_OPS = REF_VARIABLES | {RESOURCE_VARIABLE}
_TRAINABLE = "trainable_variables"
_MAX_NAMED = 10
ASSIGN_OPS = frozenset({"Assign", "AssignVariableOp"})
RESTORE_OPS = frozenset({"Restore", "RestoreSlice", "RestoreV2"})
OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # Of the keys that tf.train.Checkpoint writes.
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
    meta: MetaGraphFile, variables: Collection[str], held: Collection[str]
) -> dict[str, Stored]:
    """Where the values of some variables are, in a checkpoint that has the keys `held`.

    What the file's saver says of a variable holds even where the checkpoint lacks the key. Of one
    that it does not name, the first that is held counts of its own name, its shared name, and both
    as an object-based checkpoint has them; else its own name.
    """
    own, keys = saver_keys(meta), dict[str, Stored]()
    for name in variables:
        shared = attribute_of(meta.nodes[name], "shared_name").s.decode("utf-8", "replace")
        names = [name, shared or name]
        candidates = [*names, *(candidate + OBJECT_SUFFIX for candidate in names)]
        found = next((key for key in candidates if key in held), name)
        keys[name] = own.get(name, Stored(found))
    return keys


def saver_keys(meta: MetaGraphFile) -> dict[str, Stored]:
    """The places that the file's saver stores variables at; else all its restores agree on."""
    saver = reachable(meta, [node_of(meta.proto.saver_def.restore_op_name)])
    own: dict[str, Stored] = {}
    others: dict[str, set[Stored]] = {}
    for root, variable, stored in _assignments(meta):
        if root in saver:
            own.setdefault(variable, stored)
        others.setdefault(variable, set()).add(stored)
    return own or {name: found.pop() for name, found in others.items() if len(found) == 1}


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
    reader, keys, missing, wrong = _looked_up(meta, variables)
    reader.check_sizes({stored.key for stored in keys.values() if stored.key in reader.shapes})
    return [f"{name} is missing" for name in missing] + wrong


def read_values(meta: MetaGraphFile, variables: Sequence[Variable]) -> dict[str, Array]:
    """Reads the values of `variables` by name, each of exactly the variable's dtype and shape.

    A tensor that many variables are parts of is read once. Raises CheckpointError where a file is
    missing or damaged, or (seen before any value is read) a variable.
    """
    if not variables:
        return {}
    reader, keys, missing, wrong = _looked_up(meta, variables)
    if missing:
        raise CheckpointError(
            f"{meta.prefix} lacks {len(missing)} of the {len(variables)} variables that this "
            f"takes: {first_few(missing, _MAX_NAMED)}"
        )
    if wrong:
        line = first_few(wrong, _MAX_NAMED, "; ")
        raise CheckpointError(f"{meta.prefix} does not fit its graph: {line}")
    by_key: dict[str, list[Variable]] = {}
    for variable in variables:
        by_key.setdefault(keys[variable.name].key, []).append(variable)
    reader.check_sizes(by_key)
    values = {}
    for key, sharing in by_key.items():
        full = reader.read(key)
        for variable in sharing:
            values[variable.name] = _value(full, variable, keys[variable.name])
    return values


def _looked_up(
    meta: MetaGraphFile, variables: Sequence[Variable]
) -> tuple[CheckpointReader, dict[str, Stored], list[str], list[str]]:
    """The checkpoint, the places in it, who is missing, and a phrase for each that does not fit."""
    reader = CheckpointReader(meta.prefix)
    keys = checkpoint_keys(meta, [variable.name for variable in variables], reader.shapes)
    if meta.averaged:
        shadows = averages(reader.shapes, reader.prefix)
        for name, stored in keys.items():
            shadow = shadows.get(stored.key, shadows.get(name, stored.key))
            keys[name] = stored._replace(key=shadow)
    missing, wrong = [], []
    for variable in variables:
        stored = keys[variable.name]
        named = variable.name
        if stored.key != named:
            named += f" (saved as {stored.key})"
        if stored.key not in reader.shapes:
            missing.append(named)
        elif not _fits(variable, stored, reader):
            found = f"{reader.dtypes[stored.key].name} {reader.shapes[stored.key]}"
            if stored.part is not None:
                sizes, starts = list(stored.part.sizes), list(stored.part.starts)
                found += f" (of which it takes {sizes} at {starts})"
            has = f"{variable.dtype.name} {format_shape(variable.shape)}"
            wrong.append(f"{named} is {found}, the graph has {has}")
    return reader, keys, missing, wrong


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


def _fits(variable: Variable, stored: Stored, reader: CheckpointReader) -> bool:
    """Whether the checkpoint's tensor gives a value of the variable's dtype and shape."""
    shape, dtype, part = reader.shapes[stored.key], reader.dtypes[stored.key], stored.part
    is_cast = stored.cast and dtype.is_floating and variable.dtype.is_floating
    if (dtype != variable.dtype and not is_cast) or (part and list(part.full_shape) != shape):
        return False
    return fits_shape(variable.shape, part.sizes if part else shape)


# Which tensors of a checkpoint only an optimizer needs: its slots, powers and counters. The name
# tells, as the optimizers of TensorFlow and of Keras make it, and copies of Adafactor and AdamW:
#
#   conv1/w/Adam, train/conv1/w/Adam_1    slots of conv1/w
#   beta1_power, train/beta2_power_1      of Adam and its kin
#   training/Adam/conv1/w/m, Adam/iter    Keras in graph mode
#   w/.OPTIMIZER_SLOT/optimizer/m/...     object-based, as is all of an object called optimizer
#   w_slot_vr, w/adam_m                   Adafactor, AdamW
#
# A moving average of a variable (`w/ExponentialMovingAverage`) is none of these: it predicts.
# Sources: `tensorflow/python/training/slot_creator.py`,
# `tensorflow/core/protobuf/trackable_object_graph.proto`.

_MAX_LENGTH = 1000  # Of a name that is looked into; a hostile one may have any.
_OPTIMIZER = re.compile(
    r"ada(m|grad|delta|factor|shift|bound)|momentum|rms_?prop|ftrl|optimi[sz]er|nesterov|yogi"
    r"|(power|add)sign|(^|_)(lamb|lars|sgd|lion|shampoo)(_|$)",
    re.IGNORECASE,
)
_UNMISTAKABLE = re.compile(
    r"(.+/)?beta[12]_power(_\d+)?"
    r"|.+/(Adam|AdaMax|Nadam|Momentum|RMSProp|Adagrad|AdagradDA|Adadelta|Ftrl)(_\d+)?"
    r"|.*/\.OPTIMIZER_SLOT/.*"
)
_OBJECT = re.compile(r"(.+/)?(\w*optimi[sz]er\w*|opt)/.+", re.IGNORECASE)
# An optimizer of Keras 3 lists the model's variables too; the shortest path is what they go by.
_TRAINED = re.compile(r"(.+/)?_trainable_variables/.+")
_ADAFACTOR = re.compile(r"(.+)_slot_(v|vr|vc|m)")
_OF_KERAS = re.compile(
    r"(iter|iterations|beta_[12]|decay|learning_rate|lr|momentum|rho|Variable(_\d+)?)"
)
_SLOT_OF_KERAS = re.compile(
    r"m|v|vhat|momentum|rms|mg|accumulator|accum_grad|accum_var|linear|velocity"
)


def slot_names(keys: Collection[str], meta: MetaGraphFile | None = None) -> frozenset[str]:
    """Which of all keys of a checkpoint only an optimizer needs.

    A graph's variables may be saved under other keys than their names; none that it says is to be
    trained is a slot, whatever it is called. A damaged graph raises CheckpointError.
    """
    held = frozenset(keys)
    slots = {key for key in held if _is_slot(key, held)}
    if meta is not None:
        variables = {name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS}
        trained = trainable_names(meta)
        own = {name for name in variables if _is_slot(name, variables)} - trained
        places = checkpoint_keys(meta, trained | own, held)
        slots |= {places[name].key for name in own}
        slots -= {places[name].key for name in trained}
    return held & slots


def _is_slot(key: str, held: Collection[str]) -> bool:
    """Whether a key, one of those that are held, is an optimizer's by its name."""
    if len(key) > _MAX_LENGTH:
        return False
    before, _, last = key.rpartition("/")
    adafactor = _ADAFACTOR.fullmatch(key)
    if (
        _UNMISTAKABLE.fullmatch(key)
        or (adafactor and adafactor[1] in held)
        or (_OF_KERAS.fullmatch(last) and _is_optimizer(before))
    ):
        return True
    if key.endswith(OBJECT_SUFFIX):
        path = key.removesuffix(OBJECT_SUFFIX)
        return bool(_OBJECT.fullmatch(path)) and not _TRAINED.fullmatch(path)
    parts = before.split("/")  # Cut in two before each: the scopes in front, and a variable.
    scopes = ["/".join(parts[:i]) for i in range(len(parts)) if "/".join(parts[i:]) in held]
    if _OPTIMIZER.search(last):
        return bool(scopes)
    return bool(_SLOT_OF_KERAS.fullmatch(last)) and any(map(_is_optimizer, scopes))


def _is_optimizer(scope: str) -> bool:
    return _OPTIMIZER.search(scope.rpartition("/")[2]) is not None
