"""What a meta graph says of its model, or what could be fed and fetched where it does not.

Also which checkpoint the variables are in, and whether it has a value for each of them.
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints import layout
from checkpoints.layout import verify_checkpoint
from errors import CheckpointError, first_few
from metagraph import usage
from metagraph.description import (
    NO_SIGNATURE,
    Classifier,
    Model,
    as_classifier,
    fits_shape,
    format_shape,
)
from metagraph.graph import (
    Shape,
    View,
    attribute_of,
    data_inputs,
    is_source,
    joined,
    open_placeholders,
    reachable,
    remake,
    source,
    sub_graph,
)
from metagraph.meta import (
    INPUT_OPS,
    PLACEHOLDERS,
    MetaGraphFile,
    choose_signature,
    node_of,
    output_index,
    read_signatures,
)
from metagraph.session import demanded_shape, describe_tensors
from metagraph.variables import RESOURCE_VARIABLE, VARIABLE_OPS, graph_variables, unavailable

_MAX_OUTPUTS = 10
_MAX_NAMED = 5  # Tensors that an error line offers.
_MAX_SHOWN = 100  # Variables that a list says something of.


class Candidates(NamedTuple):
    """What could be fed to and fetched from a graph that does not say so itself, in full names."""

    inputs: tuple[str, ...]  # Placeholders: the signature's first, then those without a default.
    pipeline: tuple[str, ...]  # What a queue, an iterator or a parser hands out for the prediction.
    outputs: tuple[str, ...]  # What could be fetched, usual heads first.


def find_candidates(
    meta: MetaGraphFile, signed: Collection[str] = (), wanted: Sequence[str] = ()
) -> Candidates:
    """Looks through the whole graph for what could be fed and fetched, the inputs `signed` first.

    What is `wanted` is predicted; by default, the likely outputs.
    """
    left_out = usage.plumbing(meta)
    own = {name: node for name, node in meta.nodes.items() if name not in left_out}
    plain = [f"{name}:0" for name, node in own.items() if node.op in PLACEHOLDERS]
    optional = [f"{name}:0" for name, node in own.items() if node.op in INPUT_OPS - PLACEHOLDERS]
    inputs = tuple(dict.fromkeys([*signed, *plain, *optional]))
    sources = [name for name, node in meta.nodes.items() if is_source(node)]
    pipeline = [tensor for name in sources for tensor in _taken_of(meta, name, own)]
    needs = usage.dependence(meta, (*pipeline, *inputs), left_out)
    outputs = usage.likely_outputs(meta, needs)
    predicted = [node_of(name) for name in wanted] or outputs
    needed = set[str]().union(*(needs.get(name, ()) for name in predicted))
    return Candidates(
        inputs=inputs,
        pipeline=tuple(name for name in pipeline if name in needed),
        outputs=tuple(f"{name}:0" for name in outputs[:_MAX_OUTPUTS]),
    )


def _taken_of(meta: MetaGraphFile, name: str, takers: Collection[str]) -> list[str]:
    """The outputs of a node that some nodes take, in order."""
    found = (taker for taker in meta.takers.get(name, ()) if taker in takers)
    tensors = set[str]().union(*(meta.tensors_taken(taker, name) for taker in found))
    return sorted(tensors, key=lambda tensor: int(tensor.rpartition(":")[2]))


def handed_out(
    meta: MetaGraphFile, fetches: Sequence[str], fed: Collection[str], *, by_all: bool = False
) -> list[str]:
    """What `fetches` take, or are, of queues and iterators that hold no data of their own.

    With those that do, and parsers of examples, if `by_all`.
    """
    needed = sub_graph(meta, fetches, fed).names
    sources = [node for name, node in meta.nodes.items() if name in needed and is_source(node)]
    if not sources:
        return []
    found = list[str]()
    for node in sources:
        givers = {meta.nodes[giver].op for giver in meta.givers(node.name)}
        if by_all or not ("Parse" in node.op or "OneShotIterator" in givers):
            taken = [name for name in fetches if node_of(name) == node.name]
            taken += _taken_of(meta, node.name, needed)
            found += dict.fromkeys(name for name in taken if name not in fed)
    cut = sub_graph(meta, fetches, [*fed, *found]).feeds
    return [name for name in found if name in cut or name in fetches]


def with_shapes(
    meta: MetaGraphFile, said: Mapping[str, tuple[int | None, ...]], signature: str | None
) -> MetaGraphFile:
    """The same file with shapes that a user says, by tensor or key of its signature.

    Of placeholders that leave even their rank open, with those that their takers demand.
    """
    chosen = choose_signature(meta, read_signatures(meta), signature) if said else NO_SIGNATURE
    keys = {**chosen.outputs, **chosen.inputs}
    shapes: dict[str, Shape] = {meta.tensor_name(name, keys): s for name, s in said.items()}
    for info in describe_tensors(meta, [*shapes]) if shapes else ():
        shape = shapes[info.name]
        if not fits_shape(info.shape, shape or ()):
            raise CheckpointError(
                f"--shape: {info.name} is {format_shape(info.shape)}, which {format_shape(shape)} "
                "does not go with"
            )
    for name in open_placeholders(meta):
        with suppress(CheckpointError):  # What is wrong is said where the rest is read.
            shapes[f"{name}:0"] = joined(shapes.get(f"{name}:0"), demanded_shape(meta, name))
    return dataclasses.replace(meta, shapes=shapes) if shapes else meta


def read_model(meta: MetaGraphFile, signature: str | None = None, classifies: bool = True) -> Model:
    """What the file says, entries that name no tensor left out; see `choose_signature`.

    Whether it is a classifier is asked of TensorFlow, or not at all without `classifies`.
    """
    signatures = read_signatures(meta)
    chosen = choose_signature(meta, signatures, signature)
    scales = meta.collection(layout.INPUT_SCALE_COLLECTION).float_list.value
    trained_on = _texts(meta, layout.TRAINED_ON_COLLECTION)
    held = meta.collection(layout.PREDICT_COLLECTION).node_list.value
    predict = map(meta.find_tensor, held if signature is None else ())
    sizes = meta.collection(layout.IMAGE_SHAPE_COLLECTION).int64_list.value
    is_shape = len(sizes) == 3 and min(sizes) > 0
    return Model(
        signature=chosen,
        signatures=tuple(signatures),
        predict=tuple(filter(None, predict)),
        class_names=_texts(meta, layout.CLASS_NAMES_COLLECTION),
        input_scale=scales[0] if scales else None,
        trained_on=trained_on[0] if trained_on else None,
        classifier=_classifier(meta, chosen.outputs) if classifies else None,
        image_shape=(sizes[0], sizes[1], sizes[2]) if is_shape else None,
    )


def _classifier(meta: MetaGraphFile, outputs: Mapping[str, str]) -> Classifier | None:
    """The results `probabilities` and `classes`, where they are what their names say."""
    if not {"probabilities", "classes"} <= outputs.keys():
        return None
    try:
        names = (outputs["probabilities"], outputs["classes"])
        probabilities, classes = describe_tensors(meta, names)
    except CheckpointError:
        return None  # Whoever fetches them is told why they cannot be had.
    return as_classifier(probabilities, classes)


def _texts(meta: MetaGraphFile, key: str) -> tuple[str, ...]:
    values = meta.collection(key).bytes_list.value
    return tuple(value.decode("utf-8", errors="replace") for value in values)


def described(meta: MetaGraphFile, names: Sequence[str]) -> str:
    """Tensors with their types; without, where one has an operation that this TensorFlow lacks."""
    try:
        infos = map(str, describe_tensors(meta, names[:_MAX_NAMED]))
        return first_few([*infos, *names[_MAX_NAMED:]], _MAX_NAMED)
    except CheckpointError:
        return first_few(names, _MAX_NAMED)


def feedable(meta: MetaGraphFile, model: Model, fetches: Sequence[str]) -> str:
    """What could be fed for `fetches`, as the end of a line; empty where there is nothing."""
    found = find_candidates(meta, [*model.inputs.values()], fetches)
    names = (*found.inputs, *found.pipeline)
    return f", and the graph has {described(meta, names)}" if names else ""


def fetchable(meta: MetaGraphFile, model: Model) -> str:
    """What could be fetched, the likeliest as --fetch has it, as the end of a line."""
    if model.signatures and not model.signature.name:
        return f", or a signature with --signature: {first_few(model.signatures, _MAX_NAMED)}"
    names = find_candidates(meta).outputs
    if not names:
        return " (--list shows the graph)"
    others = f"; or {', '.join(names[1:_MAX_NAMED])}" if names[1:] else ""
    return f", such as --fetch={names[0]}{others}"


def checkpoint_of(meta: MetaGraphFile) -> str | None:
    """The prefix of the checkpoint that a graph's variables are in; None where it has none."""
    return meta.prefix if any(n.op in VARIABLE_OPS for n in meta.nodes.values()) else None


def missing_values(meta: MetaGraphFile, outputs: Sequence[str]) -> list[str]:
    """A line for each variable that `outputs`, or all, need without a value, or one for all."""
    if checkpoint_of(meta) is None:
        return []
    try:
        verify_checkpoint(meta.prefix, [layout.INDEX_SUFFIX])
        taken = reachable(meta, map(node_of, outputs)) if outputs else meta.nodes.keys()
        return unavailable(meta, [v for v in graph_variables(meta) if v.name in taken])
    except CheckpointError as error:
        return [str(error)]


def state_text(meta: MetaGraphFile, problems: Sequence[str]) -> str:
    """What `missing_values` found, for the end of a list; empty without variables."""
    prefix = checkpoint_of(meta)
    if prefix is None:
        return ""
    if not problems:
        return f"\ncheckpoint\n  {prefix} has a value for each variable that is needed"
    lines = first_few([f"\n  {text}" for text in problems], _MAX_SHOWN, "")
    return f"\ncheckpoint\n  {prefix} lacks values{lines}"


# The averages that training keeps of what it normalises a batch by, each in a variable:
#   variable -= (variable - statistic) * rate, and other ways to write it

_AVERAGING = usage.COPIES | {"Add", "AddV2", "Cast", "Mul", "Select", "SelectV2", "Sub"}
_MAX_AVERAGING = 64  # Operations between a statistic and the variable.


def with_kept_averages(meta: MetaGraphFile) -> MetaGraphFile:
    """The same file, which normalises by averages that it keeps, and does not change them."""
    found, proto = _kept_averages(meta), MetaGraphDef()
    proto.CopyFrom(meta.proto)
    nodes, is_kept = {node.name: node for node in proto.graph_def.node}, False
    for statistic, (variable, writer) in found.items():
        node, dtype = nodes[node_of(statistic)], nodes[variable].attr["dtype"].type
        if not node.op.startswith(usage.NORMALISES):
            remake(node, "Identity", [writer], {"T": dtype})
        elif {f"{node.name}:1", f"{node.name}:2"} <= found.keys():
            node.input[2 + output_index(statistic)] = writer
            node.attr["is_training"].b = False
        else:  # Such a node takes the mean and the variance together.
            continue
        is_kept = True
        is_handle = nodes[variable].op == RESOURCE_VARIABLE  # What wrote it, reads it now.
        read, key = ("ReadVariableOp", "dtype") if is_handle else ("Identity", "T")
        remake(nodes[writer], read, [variable], {key: dtype})
    if not is_kept:
        raise CheckpointError(
            f"--use_moving_averages: {meta.path} keeps none of what it normalises a batch by"
        )
    return dataclasses.replace(meta, proto=proto)


def _kept_averages(meta: MetaGraphFile) -> dict[str, tuple[str, str]]:
    """What is computed of a batch -> the variable that follows it, and the node that writes it."""
    view, found = View(meta.nodes), dict[str, tuple[str, str]]()
    for node in meta.nodes.values():
        inputs = data_inputs(node) if node.op.startswith("Assign") else []
        kept = source(view, inputs[0]) if len(inputs) == 2 else None
        if kept is None or kept.node.op not in VARIABLE_OPS:
            continue
        waiting, statistics = [inputs[1]], set[str]()
        for text in itertools.islice(waiting, _MAX_AVERAGING):  # It grows.
            given = meta.nodes.get(node_of(text))
            if given is not None and _is_statistic(meta, given, output_index(text)):
                statistics.add(f"{given.name}:{output_index(text)}")
            elif given is not None and given.op in _AVERAGING:
                waiting += data_inputs(given)
        # An average of one number is that of a loss.
        if len(statistics) == 1 and attribute_of(kept.node, "shape").shape.dim:
            found[statistics.pop()] = (kept.node.name, node.name)
    return found


def _is_statistic(meta: MetaGraphFile, node: NodeDef, output: int) -> bool:
    """Whether an output is the mean or the variance of a batch."""
    if node.op.startswith(usage.NORMALISES):
        return output in (1, 2) and len(data_inputs(node)) == 5
    if node.op in ("Reshape", "Squeeze") and data_inputs(node):
        node = meta.nodes.get(node_of(data_inputs(node)[0]), node)
    return str(node.op) == "Mean"
