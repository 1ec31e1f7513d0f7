"""Which tensors of a checkpoint only an optimizer needs: its slots, powers and counters.

The graph says so, or else their names.
"""

import re
from collections.abc import Collection, Iterator

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.framework.types_pb2 import DT_RESOURCE

from metagraph.graph import View, data_inputs, source, views
from metagraph.meta import MetaGraphFile
from metagraph.safety import op_definitions
from metagraph.variables import OBJECT_SUFFIX, VARIABLE_OPS, checkpoint_keys, trainable_names

# Which tensors of a checkpoint only an optimizer needs, told by their names.
#
# As the optimizers of TensorFlow and of Keras make them, and Adafactor and AdamW as they have been
# copied from project to project:
#
#   conv1/w/Adam, train/conv1/w/Adam_1    slots of conv1/w
#   beta1_power, train/beta2_power_1      of Adam and its kin
#   training/Adam/conv1/w/m, Adam/iter    Keras in graph mode
#   w/.OPTIMIZER_SLOT/optimizer/m/...     object-based, as is all of an object called optimizer
#   w_slot_vr, w/adam_m                   Adafactor, AdamW
#
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


def is_slot_by_name(key: str, held: Collection[str]) -> bool:
    """Whether only an optimizer needs what is under a key.

    Args:
      key: one of `held`.
      held: all keys of the checkpoint, as a slot is known by its variable.
    """
    if len(key) > _MAX_LENGTH:
        return False
    if _UNMISTAKABLE.fullmatch(key):
        return True
    if key.endswith(OBJECT_SUFFIX):
        path = key.removesuffix(OBJECT_SUFFIX)
        return bool(_OBJECT.fullmatch(path)) and not _TRAINED.fullmatch(path)
    adafactor = _ADAFACTOR.fullmatch(key)
    return bool(adafactor and adafactor[1] in held) or _goes_with_another(key, held)


def _goes_with_another(key: str, held: Collection[str]) -> bool:
    """Whether a key is an optimizer's by its last part and what stands before that."""
    before, _, last = key.rpartition("/")
    if _OF_KERAS.fullmatch(last) and _is_optimizer(before):
        return True
    if _OPTIMIZER.search(last) and any(inner in held for _, inner in _cuts(before)):
        return True
    return _SLOT_OF_KERAS.fullmatch(last) is not None and any(
        inner in held and _is_optimizer(outer) for outer, inner in _cuts(before)
    )


def _is_optimizer(scope: str) -> bool:
    return _OPTIMIZER.search(scope.rpartition("/")[2]) is not None


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """A name cut in two before each of its parts: the scopes in front, and the rest."""
    parts = name.split("/")
    yield from (("/".join(parts[:i]), "/".join(parts[i:])) for i in range(len(parts)))


# Which tensors of a checkpoint only an optimizer needs: its slots, powers and counters.
#
# A graph that trains says so itself: its training operations take a variable and its slots as
# inputs of their own, whatever they are called. Of what no graph tells, the name has to tell. A
# moving average of a variable (`w/ExponentialMovingAverage`) is none of these: it predicts.

_TRAINING_OP = re.compile(r"(Resource)?(Sparse)?Apply[A-Z]")
_READS = frozenset({"ReadVariableOp", "Enter", "RefEnter", "Switch", "RefSwitch", "Cast"})
_MAX_READS = 8  # Between a variable and what uses it, even in a loop of a conditional.
_POWER = "_power"  # The end of the names of the inputs that only accumulate: beta1_power.


def slot_names(keys: Collection[str], meta: MetaGraphFile | None = None) -> frozenset[str]:
    """Which keys of a checkpoint only an optimizer needs.

    Args:
      keys: all keys of the checkpoint.
      meta: the graph that it belongs to, which goes before the names; None where there is none.

    Returns:
      Some of `keys`.

    Raises:
      CheckpointError: the graph is damaged.
    """
    held = frozenset(keys)
    slots = _by_name(held)
    if meta is not None:
        trained, own = _told_by_graph(meta)
        places = checkpoint_keys(meta, trained | own, held)
        slots |= {places[name].key for name in own}
        slots -= {places[name].key for name in trained}
    return held & slots


def _by_name(names: Collection[str]) -> set[str]:
    return {name for name in names if is_slot_by_name(name, names)}


def _told_by_graph(meta: MetaGraphFile) -> tuple[set[str], set[str]]:
    """The variables that are trained, and those of their optimizer."""
    ops = {op for op in _operations(meta) if _TRAINING_OP.match(op)}
    definitions = op_definitions(GraphDef(node=[NodeDef(name=op, op=op) for op in sorted(ops)]))
    trained, slots = trainable_names(meta), set[str]()
    for view in views(meta, definitions) if definitions else ():
        for node in view.nodes.values():
            if node.op in definitions:
                changed, beside = _written(node, definitions[node.op])
                trained.update(_variables(view, changed))
                slots.update(_variables(view, beside))
    variables = {name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS}
    slots |= _called_alike(variables, trained, slots) | _by_name(variables)
    return trained, slots - trained


def _called_alike(
    variables: Collection[str], trained: Collection[str], slots: Collection[str]
) -> set[str]:
    """The variables that are to a trained one, by name, what one of `slots` is to another.

    Of a variable of which only some rows are trained, no training operation may have the slots.
    """
    beside: dict[str, set[str]] = {}  # Of a trained one: `Adam`, `Adam_1`, and what else there is.
    for name in variables:
        variable, _, last = name.rpartition("/")
        if variable in trained:
            beside.setdefault(last, set()).add(name)
    return {name for names in beside.values() if not names.isdisjoint(slots) for name in names}


def _operations(meta: MetaGraphFile) -> Iterator[str]:
    """The operations of the graph and of its functions."""
    yield from (node.op for node in meta.nodes.values())
    for function in meta.proto.graph_def.library.function:
        yield from (node.op for node in function.node_def)


def _written(node: NodeDef, definition: OpDef) -> tuple[list[str], list[str]]:
    """The inputs that a training operation changes: its variable, and what it keeps beside it.

    By its definition: of those that it writes to, the first is the variable. Powers that it only
    reads are the optimizer's as well; a learning rate is not.
    """
    arguments = [*zip(definition.input_arg, data_inputs(node), strict=False)]
    written = [text for arg, text in arguments if arg.is_ref or arg.type == DT_RESOURCE]
    powers = [text for arg, text in arguments if arg.name.endswith(_POWER)]
    return written[:1], [*written[1:], *powers]


def _variables(view: View, texts: Collection[str]) -> Iterator[str]:
    """The names of the variables of the graph that some inputs stand for."""
    for text in texts:
        found = source(view, text)
        for _ in range(_MAX_READS):
            if found is None or found.node.op not in _READS or not data_inputs(found.node):
                break
            found = source(found.view, data_inputs(found.node)[0])
        if found is not None and found.view.caller is None and found.node.op in VARIABLE_OPS:
            yield found.node.name
