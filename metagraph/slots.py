"""Which tensors of a checkpoint only an optimizer needs: its slots, powers and counters.

A graph that trains says so itself: its training operations take a variable and its slots as inputs
of their own, whatever they are called. Of what no graph tells, the name has to tell, as the
optimizers of TensorFlow and of Keras make it, and Adafactor and AdamW as they have been copied from
project to project:

  conv1/w/Adam, train/conv1/w/Adam_1    slots of conv1/w
  beta1_power, train/beta2_power_1      of Adam and its kin
  training/Adam/conv1/w/m, Adam/iter    Keras in graph mode
  w/.OPTIMIZER_SLOT/optimizer/m/...     object-based, as is all of an object called optimizer
  w_slot_vr, w/adam_m                   Adafactor, AdamW

A moving average of a variable (`w/ExponentialMovingAverage`) is none of these: it predicts.

Sources: `tensorflow/python/training/slot_creator.py`,
`tensorflow/core/protobuf/trackable_object_graph.proto`.
"""

import re
from collections.abc import Collection, Iterator

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.framework.types_pb2 import DT_RESOURCE

from metagraph.graph import View, data_inputs, nodes_by_op, source, views
from metagraph.meta import MetaGraphFile
from metagraph.safety import op_definitions
from metagraph.variables import OBJECT_SUFFIX, VARIABLE_OPS, checkpoint_keys, trainable_names

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


_TRAINING_OP = re.compile(r"(Resource)?(Sparse)?Apply[A-Z]")
_READS = frozenset({"ReadVariableOp", "Enter", "RefEnter", "Switch", "RefSwitch", "Cast"})
_MAX_READS = 8  # Between a variable and what uses it, even in a loop of a conditional.
_POWER = "_power"  # The end of the names of the inputs that only accumulate: beta1_power.


def slot_names(keys: Collection[str], meta: MetaGraphFile | None = None) -> frozenset[str]:
    """Which of all keys of a checkpoint only an optimizer needs; its graph goes before the names.

    Raises:
      CheckpointError: the graph is damaged.
    """
    held = frozenset(keys)
    slots = {key for key in held if _is_slot_by_name(key, held)}
    if meta is not None:
        trained, own = _told_by_graph(meta)
        places = checkpoint_keys(meta, trained | own, held)
        slots |= {places[name].key for name in own}
        slots -= {places[name].key for name in trained}
    return held & slots


def _told_by_graph(meta: MetaGraphFile) -> tuple[set[str], set[str]]:
    """The variables that are trained, and those of their optimizer."""
    ops = {op for op in nodes_by_op(meta.proto.graph_def) if _TRAINING_OP.match(op)}
    definitions = op_definitions(GraphDef(node=[NodeDef(name=op, op=op) for op in sorted(ops)]))
    trained, slots = trainable_names(meta), set[str]()
    for view in views(meta, definitions) if definitions else ():
        for node in view.nodes.values():
            if node.op in definitions:
                changed, beside = _written(node, definitions[node.op])
                trained.update(_variables(view, changed))
                slots.update(_variables(view, beside))
    variables = {name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS}
    slots |= _called_alike(variables, trained, slots)
    slots |= {name for name in variables if _is_slot_by_name(name, variables)}
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


def _is_slot_by_name(key: str, held: Collection[str]) -> bool:
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
