"""Which tensors of a checkpoint only an optimizer needs, told by their names.

As the optimizers of TensorFlow and of Keras make them, and Adafactor and AdamW as they have been
copied from project to project:

  conv1/w/Adam, train/conv1/w/Adam_1    slots of conv1/w
  beta1_power, train/beta2_power_1      of Adam and its kin
  training/Adam/conv1/w/m, Adam/iter    Keras in graph mode
  w/.OPTIMIZER_SLOT/optimizer/m/...     object-based, as is all of an object called optimizer
  w_slot_vr, w/adam_m                   Adafactor, AdamW

Sources: `tensorflow/python/training/slot_creator.py`,
`tensorflow/core/protobuf/trackable_object_graph.proto`.
"""

import re
from collections.abc import Collection, Iterator

from checkpoints.loading.saver_mapping import OBJECT_SUFFIX

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
