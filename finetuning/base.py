"""The graph that is trained: the part of a model that is built on, a new head, and the update.

Tensor names of what is new: `y_:0` (labels), `head/w:0`, `head/b:0`, `head/add:0` (logits),
`head/probabilities:0`, `head/classes:0`, `loss:0`, `acc:0`; the collection `predict` holds the
logits. A name that the part itself has gets a number: `head_1`, `y__1`. All of the part keeps its
names.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.variable_pb2 import VariableDef

from data.image_data import ImageData
from errors import CheckpointError, TrainingError, first_few
from finetuning import FinetuneConfig
from finetuning.base_plan import STEP, BasePlan
from metagraph.description import format_shape
from metagraph.graph import nodes_by_op, sub_graph
from metagraph.importing import import_graph, tensor_of
from metagraph.meta import node_of
from metagraph.safety import RANDOM_OPS
from metagraph.session import free_among, free_scope, placeholder
from metagraph.usage import mixing
from metagraph.variables import RESOURCE_VARIABLE
from models import blocks
from models.blocks import ModelGraph, Part, Recipe

# Random operations become functions of a key of two integers. A stateful one draws from a generator
# of the session, whose place nobody saves: a resumed run would draw other masks. The operations are
# those of `tensorflow/core/ops/random_ops.cc` and `stateless_random_ops.cc`.

_FIRST_STREAM = 1 << 30  # Streams below it are of the models of this project.
_INITIAL_STEP = -1  # Of what is drawn once, for an initial value.
_SHOWN = 3
# Operation -> its stateless kin, and which of that one's inputs is the key.
_STATELESS = {
    "Multinomial": ("StatelessMultinomial", 2),
    "RandomStandardNormal": ("StatelessRandomNormal", 1),
    "RandomUniform": ("StatelessRandomUniform", 1),
    "RandomUniformInt": ("StatelessRandomUniformInt", 1),
    "TruncatedNormal": ("StatelessTruncatedNormal", 1),
}


def make_stateless(graph_def: GraphDef) -> dict[str, str]:
    """Rewrites the random nodes of a graph, in place, but for those of its functions.

    Gives, by node, the name of the tensor that is its key from then on, int64 [2].
    """
    keys = {}
    for node in graph_def.node:
        if node.op not in _STATELESS:
            continue
        keys[str(node.name)] = f"{node.name}/key:0"
        if node.op == "RandomUniformInt":
            node.attr["dtype"].CopyFrom(node.attr["Tout"])
            del node.attr["Tout"]
        node.op, key_input = _STATELESS[node.op]
        inputs = list(node.input)
        inputs.insert(key_input, f"{node.name}/key")
        node.input[:] = inputs
        for name in ("seed", "seed2"):
            node.attr.pop(name, None)
        node.attr["Tseed"].type = tf.int64.as_datatype_enum
    return keys


def still_random(graph_def: GraphDef) -> list[str]:
    """The random nodes of a graph with the operation of each, those of functions included."""
    found = nodes_by_op(graph_def).items()
    return [f"{name} ({op})" for op, names in found if op in RANDOM_OPS for name in names]


def stream_of(node: str) -> int:
    """The stream of a node's draws, in [2**30, 2**31), from its name."""
    return _FIRST_STREAM | zlib.crc32(node.encode()) & (_FIRST_STREAM - 1)


# The part of a model that is built on, in the graph that trains.

_BASE_SCOPE = "base"  # Of what is added; all of the part keeps its own names.


class Base(NamedTuple):
    """What is built on."""

    images: tf.Tensor  # The placeholder that images are fed to.
    features: tf.Tensor  # What the head takes, [N, ...].
    variables: Mapping[str, tf.Variable]  # Of the part, by name, but for the step.
    step: tf.Variable  # int [], updates done.
    training_feeds: Mapping[tf.Tensor, Any]  # Beside the batch.
    updates: Sequence[tf.Operation]  # What runs with each step.


def free_batch(plan: BasePlan) -> bool:
    """Whether the part takes any number of images at once, whatever its placeholder says."""
    if plan.rows.shape is None or plan.rows.shape[0] is None:
        return True
    try:
        with tf.Graph().as_default():
            features = import_base(plan, (None, *plan.rows.shape[1:]), 0.0, 0).features
    except CheckpointError:
        return False
    return features.shape.rank is not None and features.shape[0] is None


def import_base(plan: BasePlan, shape: Sequence[int | None], offset: float, seed: int) -> Base:
    """Imports the part into the default graph, under the file's names.

    `shape` is that of the images that are fed, the batch first, also where the part takes them as
    rows; `offset` is added to them on their way in. What is drawn at random follows from `seed`, in
    [0, 2**32). CheckpointError where this TensorFlow cannot import it.
    """
    graph, graph_def = tf.compat.v1.get_default_graph(), tf.compat.v1.GraphDef()
    graph_def.CopyFrom(plan.graph_def)
    for node in graph_def.node:
        if node.op == "Variable":  # The oldest kind, whose scalars have no known shape.
            node.op = "VariableV2"
    scope = free_scope(plan.meta, _BASE_SCOPE)
    step = _make_step(plan, scope)
    images, stand_in = _images(plan, shape, offset, scope)
    settings = {}
    for setting in plan.settings:
        with tf.compat.v1.name_scope(f"{scope}/"):
            value = tf.constant(setting.otherwise, setting.dtype)
        # Its own name is free, as its node is not imported.
        settings[setting.name] = placeholder(
            plan.meta, setting.name, value.dtype, value.shape, scope, default=value
        )
    # What takes a variable takes its reference or its handle.
    mapped = {
        plan.rows.name: stand_in,
        **settings,
        f"{STEP}:0": graph.get_tensor_by_name(step.name),
    }
    mapped = {name: tensor for name, tensor in mapped.items() if name in plan.needed.feeds}
    with tf.compat.v1.name_scope(f"{scope}/"):
        keys = _draw_by_keys(plan, graph_def, seed, step)
    import_graph(plan.meta, graph_def, {**mapped, **keys})
    return Base(
        images=images,
        features=stand_in if plan.tensor == plan.rows.name else tensor_of(graph, plan.tensor),
        variables=dict(_adopted(plan, graph, scope)),
        step=step,
        training_feeds={settings[s.name]: s.training for s in plan.settings},
        updates=[graph.get_operation_by_name(node_of(name)) for name in plan.updates],
    )


def _make_step(plan: BasePlan, scope: str) -> tf.Variable:
    """The run's step, of the kind that the part takes; the file may have names beside its own."""
    dtype = tf.int64 if plan.step is None else plan.step.dtype
    if plan.step is not None and plan.meta.nodes[STEP].op == RESOURCE_VARIABLE:
        made = tf.raw_ops.VarHandleOp(shape=[], dtype=dtype, shared_name=STEP, name=STEP)
    else:
        made = tf.raw_ops.VariableV2(shape=[], dtype=dtype, name=STEP)
    with tf.compat.v1.name_scope(f"{scope}/"):
        zero = tf.zeros([], dtype)
    step = adopt(made.op, zero, scope, trainable=False)
    tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.GLOBAL_STEP, step)
    return step


def _images(
    plan: BasePlan, shape: Sequence[int | None], offset: float, scope: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """The placeholder for images, float32, and what the part takes of it."""
    rows = plan.rows
    is_row = rows.shape is not None and len(rows.shape) != len(shape)
    if not offset and not is_row and rows.dtype == tf.float32:
        images = placeholder(plan.meta, rows.name, rows.dtype, shape, scope)
        return images, images
    images = tf.compat.v1.placeholder(tf.float32, shape, name=free_scope(plan.meta, "pixels"))
    with tf.compat.v1.name_scope(f"{scope}/"):
        taken = tf.cast(images + offset, rows.dtype)
        if rows.shape is not None and is_row:
            taken = tf.reshape(taken, [-1, *rows.shape[1:]])
    return images, taken


def _draw_by_keys(
    plan: BasePlan, graph_def: tf.compat.v1.GraphDef, seed: int, step: tf.Variable
) -> dict[str, tf.Tensor]:
    """Makes random operations stateless, in place; returns their keys, by the names they have."""
    initial = sub_graph(plan.meta, list(plan.initial.values())).names
    keys = {
        name: blocks.key(seed, stream_of(node), _INITIAL_STEP if node in initial else step)
        for node, name in make_stateless(graph_def).items()
    }
    if left := still_random(graph_def):
        logging.warning(
            "%s draws anew whenever it runs: %s; an interrupted run will not end as an unbroken "
            "one, and predictions may differ",
            plan.meta.path,
            first_few(left, _SHOWN),
        )
    return keys


def _adopted(plan: BasePlan, graph: tf.Graph, scope: str) -> Iterator[tuple[str, tf.Variable]]:
    """The part's variables; CheckpointError where the initial value of one does not fit it."""
    for name, variable in plan.variables.items():
        node = graph.get_operation_by_name(name)
        initial = tensor_of(graph, plan.initial[name]) if name in plan.initial else None
        if initial is not None and not (
            initial.dtype == variable.dtype and initial.shape.is_compatible_with(variable.shape)
        ):
            raise CheckpointError(
                f"{plan.meta.path} is damaged: {name} is {variable.dtype.name} "
                f"{format_shape(variable.shape)}, its initial value {initial.dtype.name} "
                f"{format_shape(initial.shape)}"
            )
        yield name, adopt(node, initial, scope, trainable=name in plan.trainable)


def adopt(
    node: tf.Operation, initial: tf.Tensor | None, scope: str, *, trainable: bool
) -> tf.Variable:
    """Makes a variable of TensorFlow's own, which can be trained and saved, of an imported node.

    The node is a VariableV2 or VarHandleOp of known shape. What gives it a value and reads it is
    ours, in `scope`. Without an initial value it is to be restored: NaN, or 0 for integers.
    """
    is_resource = node.outputs[0].dtype == tf.resource
    dtype = tf.as_dtype(node.get_attr("dtype")).base_dtype
    shape = tf.TensorShape(node.get_attr("shape"))
    with tf.compat.v1.name_scope(f"{scope}/"):
        if initial is None:
            nothing = np.nan if dtype.is_floating or dtype.is_complex else 0
            initial = tf.fill(shape.as_list(), tf.constant(nothing, dtype))
        value = tf.identity(initial)  # A tensor of its own: whoever assigns a variable feeds it.
        if is_resource:
            assign = tf.raw_ops.AssignVariableOp(resource=node.outputs[0], value=value)
            read = tf.raw_ops.ReadVariableOp(resource=node.outputs[0], dtype=dtype)
        else:
            assign = tf.raw_ops.Assign(ref=node.outputs[0], value=value).op
            read = tf.identity(node.outputs[0])
    definition = VariableDef(
        variable_name=node.outputs[0].name,
        initial_value_name=value.name,
        initializer_name=assign.name,
        snapshot_name=read.name,
        is_resource=is_resource,
        trainable=trainable,
    )
    variable = tf.compat.v1.Variable(variable_def=definition, use_resource=is_resource)
    keys = [tf.compat.v1.GraphKeys.GLOBAL_VARIABLES]
    keys += [tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES] if trainable else []
    node.graph.add_to_collections(keys, variable)
    return variable


# The head and the update.

_HEAD_SCOPE = "head"
_OLD_CONTROL_FLOW = frozenset({"Enter", "RefEnter", "RefSwitch", "Switch"})


def build(plan: BasePlan, config: FinetuneConfig, data: ImageData, batch: int | None) -> ModelGraph:
    """Builds the training graph: a head on the part, which takes so many images, None for any.

    Raises CheckpointError where the part cannot be imported into this TensorFlow, TrainingError
    where the head does not fit the features, or an operation has no gradient.
    """
    graph, kind, seed = tf.Graph(), config.head, config.run.seed
    recipe = Recipe.of(config.added(), data.train.labels, data.num_classes)
    with graph.as_default():
        base = import_base(plan, (batch, *data.train.row_shape), config.input_offset, seed)
        if mixed := mixing([base.images], base.features):
            logging.warning("%s: each image's depend on the others': %s", plan.tensor, mixed)
        features = _features(plan, base, kind)
        labels = tf.compat.v1.placeholder(tf.int64, [batch], name="y_")
        with tf.compat.v1.variable_scope(free_among(plan.needed.names, _HEAD_SCOPE)):
            results, new = blocks.head(kind, features, data.num_classes, seed)
        loss = blocks.cross_entropy(results["logits"], labels, recipe)
        # What predict.py, and whoever fine-tunes the result, look for.
        tf.compat.v1.add_to_collection("predict", results["logits"])
        for operation in base.updates:
            tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.UPDATE_OPS, operation)
        accuracy = blocks.accuracy(results["classes"], labels)
        unfrozen = [base.variables[name] for name in plan.unfrozen]
        gradients = _gradients(loss, [*new, *unfrozen])
        count, parts, adam = len(new), list[Part](), tf.compat.v1.train.AdamOptimizer
        if unfrozen:
            rate = config.rate_of_scopes
            parts.append(Part(adam(rate), rate, gradients[count:], unfrozen, "train_unfrozen"))
        rate = config.learning_rate
        parts.append(Part(adam(rate), rate, gradients[:count], new))
        return ModelGraph(
            graph=graph,
            inputs=(base.images, labels),
            training_feeds=base.training_feeds,
            loss=loss,
            accuracy=accuracy,
            train_op=blocks.update(parts, base.step, recipe, base.updates),
            gradients=tuple(gradients),
            signature_inputs={"x": base.images},
            signature_outputs=results,
        )


def _features(plan: BasePlan, base: Base, kind: str) -> tf.Tensor:
    """What the head takes, float32; no gradient goes beyond it where all of the base is frozen."""
    found = base.features
    kind_found = f"{found.dtype.base_dtype.name} {format_shape(found.shape)}"
    what = f"{plan.tensor} of {plan.meta.path} is {kind_found}"
    if not found.dtype.is_floating or found.shape.rank in (None, 0):
        raise TrainingError(f"{what}; a head takes floats with a row for each image")
    known = found.shape[-1:] if kind == blocks.CONV else found.shape[1:]
    if kind == blocks.CONV and found.shape.rank != 4:
        raise TrainingError(f"{what}; --head=conv takes [N, H, W, C], --head=dense any other")
    if not known.is_fully_defined():
        hint = "" if kind == blocks.CONV or found.shape.rank != 4 else "; --head=conv may do"
        raise TrainingError(f"{what}; the head's weights need its sizes{hint}")
    features = tf.cast(found, tf.float32)
    return features if plan.unfrozen else tf.stop_gradient(features)


def _gradients(loss: tf.Tensor, trained: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """The gradient by each of the variables.

    They are all computed before any variable changes: some of them follow from its value.
    """
    try:
        found = tf.compat.v1.gradients(loss, list(trained), gate_gradients=True)
    except LookupError as error:  # TensorFlow's message names the operation and its type.
        raise TrainingError(
            f"--train_scopes: an operation between them and the loss has no gradient: {error}; "
            "choose scopes behind it"
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        if not any(op.type in _OLD_CONTROL_FLOW for op in loss.graph.get_operations()):
            raise
        raise TrainingError(
            "--train_scopes: between them and the loss is a loop of TensorFlow 1, or a conditional "
            "of it that reads resource variables, and no gradient passes one; choose scopes behind "
            "it"
        ) from error
    if missing := [v.op.name for v, by in zip(trained, found, strict=True) if by is None]:
        raise TrainingError(
            f"--train_scopes: no gradient reaches {', '.join(missing)}, as an operation between "
            "and the loss passes none on"
        )
    return [tf.convert_to_tensor(gradient) for gradient in found]
