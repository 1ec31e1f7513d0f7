"""Which tensors of a checkpoint only an optimizer needs: its slots, powers and counters.

The name tells, as the optimizers of TensorFlow and of Keras make it, and Adafactor and AdamW as
they have been copied from project to project:

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
from collections.abc import Collection

from metagraph.meta import MetaGraphFile
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


def slot_names(keys: Collection[str], meta: MetaGraphFile | None = None) -> frozenset[str]:
    """Which of all keys of a checkpoint only an optimizer needs.

    Where there is a graph, its variables may be saved under other keys than their names; and none
    that it says is to be trained is a slot, whatever it is called.

    Raises:
      CheckpointError: the graph is damaged.
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
