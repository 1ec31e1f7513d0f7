"""The graph of an edited checkpoint: pruned where variables are gone, with the new names.

What is left predicts and restores; it is run to see that it predicts what the original does.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.manifest import PREDICT_COLLECTION
from checkpoints.reader import Array
from errors import CheckpointError, ToolError, first_few
from metagraph.graph import reachable
from metagraph.meta import MetaGraphFile, node_of
from metagraph.safety import TimeLimit
from metagraph.session import InferenceGraph, load_inference_graph
from metagraph.values import is_node_name
from metagraph.variables import checkpoint_keys, graph_variables, saver_keys, unavailable
from prediction.plan import Feed, feed_value
from tools.edit_files import Tensor
from tools.edit_names import Names, drop_lost, message_of, rename, texts_of
from tools.edit_rules import NewNames
from tools.edit_saver import Saver, drop_nodes, find_saver, is_present_format, replace_saver
from tools.random_batch import try_batches

# The part of a meta graph that is left where some variables are not: what predicts, and restores.
#
# What trains goes, with all else that no output needs: gradients, slots, summaries, pipelines.

_SHOWN = 5
# Groups of operations that a client runs after it has restored, as they fill tables.
_INITIALIZERS = ("table_initializer", "legacy_init_op", "saved_model_main_op", "serving_init_op")
_CONTEXTS = ("cond_context", "while_context")
_ONLY_WAIT = "NoOp"


def nodes_to_keep(
    meta: MetaGraphFile,
    saver: Saver | None,
    outputs: Sequence[str],
    removed: Collection[str],
    kept: Collection[str],
) -> set[str]:
    """The names of the nodes that stay.

    Args:
      meta: the file.
      saver: its own, None where it has none.
      outputs: the tensors that have to stay.
      removed: the variables that are not in the new checkpoint.
      kept: those that are.

    Raises:
      ToolError: an output needs one of the removed variables.
    """
    for output in outputs:
        lost = sorted(reachable(meta, [node_of(output)]) & set(removed))
        if lost:
            raise ToolError(
                f"{output} needs {first_few(lost, _SHOWN)}, which the new checkpoint would lack; "
                "--fetch names other outputs to keep, and without --meta only the variables are "
                "written"
            )
    stays = reachable(meta, [*map(node_of, outputs), *kept])
    _add(meta, stays, _wanted(meta, saver, kept), removed)
    size = 0
    while len(stays) > size:
        size = len(stays)
        _add(meta, stays, [*_of_contexts(meta, stays)], removed)
    # What only waits for others stays for those of them that do.
    restoring = saver.restoring if saver else frozenset[str]()
    return stays | {name for name in restoring if meta.nodes[name].op == _ONLY_WAIT}


def _add(
    meta: MetaGraphFile, stays: set[str], roots: Iterable[str], removed: Collection[str]
) -> None:
    """Adds what some nodes stand on to `stays`, unless that is one of the removed variables."""
    for root in roots:
        if root in meta.nodes and root not in stays:
            below = reachable(meta, [root])
            if below.isdisjoint(removed):
                stays |= below


def _of_contexts(meta: MetaGraphFile, stays: Collection[str]) -> Iterator[str]:
    """All nodes of each loop and branch of which one stays: TensorFlow takes them as one."""
    for key in _CONTEXTS:
        for content in meta.collection(key).bytes_list.value:
            message = message_of(key, content, stays)
            if message is not None:
                values = message.values_def
                own = {*values.values} - {*values.external_values.values()}
                if any(node_of(text) in stays for text in own):
                    yield from (_node(text) for _, text in texts_of(message))


def _wanted(meta: MetaGraphFile, saver: Saver | None, kept: Collection[str]) -> Iterator[str]:
    """Nodes that are to stay unless they need a variable that does not."""
    for key, collection in meta.proto.collection_def.items():
        for content in collection.bytes_list.value:
            yield from _of_variable(key, content, kept)
    for key in _INITIALIZERS:
        yield from map(_node, meta.collection(key).node_list.value)
    for signature in meta.proto.signature_def.values():
        yield from (node_of(info.name) for info in signature.inputs.values())
    yield from (node_of(asset.tensor_info.name) for asset in meta.proto.asset_file_def)
    if saver is not None:
        yield node_of(meta.proto.saver_def.filename_tensor_name)
        yield from (node_of(piece.tensor) for piece in saver.saved)
        yield from _without(meta, saver.restoring, _ONLY_WAIT)


def _of_variable(key: str, content: bytes, kept: Collection[str]) -> Iterator[str]:
    """The nodes that the entry of a variable names: its initializer, its value, ..."""
    message = message_of(key, content, kept)
    if message is not None and node_of(getattr(message, "variable_name", "")) in kept:
        yield from (_node(text) for _, text in texts_of(message))


def _without(meta: MetaGraphFile, names: Iterable[str], op: str) -> Iterator[str]:
    return (name for name in names if meta.nodes[name].op != op)


def _node(text: str) -> str:
    return node_of(text.removeprefix("^"))


# The graph of an edited checkpoint: pruned where variables are gone, with the new names.


class EditedGraph(NamedTuple):
    """A new meta graph.

    Attributes:
      proto: the MetaGraphDef.
      names: the new names of its nodes, and of the keys of its checkpoint.
      nodes_before: how many nodes the old one had.
    """

    proto: MetaGraphDef
    names: Names
    nodes_before: int


def edit_graph(
    meta: MetaGraphFile,
    held: Sequence[str],
    tensors: Sequence[Tensor],
    new_names: NewNames,
    outputs: Sequence[str],
) -> EditedGraph:
    """The graph that goes with the new checkpoint; the file's own is left as it is.

    Args:
      meta: the file.
      held: all keys of the old checkpoint.
      tensors: those that the new one has.
      new_names: gives nodes their names.
      outputs: what has to stay where the graph is pruned.

    Raises:
      CheckpointError: the graph is damaged.
      ToolError: an output needs what is dropped, two nodes would be called the same, or the saver
        cannot be made anew.
    """
    proto = MetaGraphDef()
    proto.CopyFrom(meta.proto)
    saver = find_saver(meta)
    by_key = {tensor.old: tensor for tensor in tensors}
    variables = [variable.name for variable in graph_variables(meta)]
    removed, kept = _divide(meta, variables, held, by_key)
    if removed:
        keep = nodes_to_keep(meta, saver, outputs, removed, kept)
        drop_nodes(proto, meta.nodes.keys() - keep)
    _fit_saver(proto, meta, saver, by_key, bool(removed))
    left = [node.name for node in proto.graph_def.node]
    drop_lost(proto, meta.nodes.keys() - {*left})
    if removed:
        _name_prediction(proto, meta, outputs)
    nodes = new_names.of(left, {*variables} & {*left})
    names = Names(nodes, {tensor.old: tensor.new for tensor in tensors})
    _check_names(names)
    rename(proto, names)
    return EditedGraph(proto, names, len(meta.nodes))


def _divide(
    meta: MetaGraphFile,
    variables: Sequence[str],
    held: Sequence[str],
    kept: Mapping[str, Tensor],
) -> tuple[set[str], set[str]]:
    """The variables of the graph that the new checkpoint lacks, and those that it has.

    What no checkpoint of this graph ever had, as no saver saves it, is neither.
    """
    places = checkpoint_keys(meta, variables, held)
    saved = saver_keys(meta)
    has = {name for name in variables if places[name].key in kept}
    lacks = {n for n in variables if n not in has and (n in saved or places[n].key in held)}
    return lacks, has


def _fit_saver(
    proto: MetaGraphDef,
    meta: MetaGraphFile,
    saver: Saver | None,
    kept: Mapping[str, Tensor],
    pruned: bool,
) -> None:
    """Has the file's saver restore what the new checkpoint holds, as it is stored there."""
    cast = any(tensor.stored != tensor.dtype for tensor in kept.values())
    if saver is None:
        if cast:
            raise ToolError(
                f"{meta.path} has no saver, which would have to cast what it restores: leave out "
                "--cast or --meta"
            )
        return
    if pruned or cast or not is_present_format(meta, saver):
        stored = {key: tensor.stored.as_datatype_enum for key, tensor in kept.items()}
        replace_saver(proto, saver, kept.keys(), stored)


def _name_prediction(proto: MetaGraphDef, meta: MetaGraphFile, outputs: Sequence[str]) -> None:
    """Makes the outputs the prediction, where the file's own is no longer there, or never was."""
    collection = proto.collection_def[PREDICT_COLLECTION]
    if not collection.node_list.value or collection != meta.collection(PREDICT_COLLECTION):
        collection.node_list.value[:] = outputs


def _check_names(names: Names) -> None:
    """Raises ToolError where TensorFlow would not take a new name."""
    wrong = [
        f"{new} for {old}"
        for old, new in names.nodes.items()
        if old != new and not is_node_name(new)
    ]
    if wrong:
        raise ToolError(f"no names of nodes: {first_few(wrong, 3)}")


# Sees that an edited checkpoint with its graph predicts what the original does.

# The distance from 1 to the next number, by the name of a dtype.
_EPSILON = {"bfloat16": 2**-7, "float16": 2**-10, "float32": 2**-23, "float64": 2**-52}
_EPSILONS = 16
_FEED = "--feed gives inputs of your own in place of random ones"


class Question(NamedTuple):
    """What both are asked.

    Attributes:
      outputs: the tensors that are compared, by their old names.
      inputs: those that are fed, likewise.
      feeds: values for some of the inputs; the others are random.
      assets: files for lookup tables, as `load_inference_graph` takes them; by old names.
      trust_graph: as it takes it.
      time_limit: likewise.
      tolerance: the largest difference that is allowed after a cast, as a part of the largest
        number of an output; None for 16 epsilons of the dtype.
    """

    outputs: Sequence[str]
    inputs: Sequence[str]
    feeds: Mapping[str, Feed]
    assets: Mapping[str, str]
    trust_graph: bool
    time_limit: TimeLimit
    tolerance: float | None = None


class Answer(NamedTuple):
    """How far the two are apart.

    Attributes:
      largest: the largest difference, as a part of the largest number of its output.
      tolerance: the largest that is allowed; 0 where the bytes have to be equal.
    """

    largest: float
    tolerance: float


def check_same(
    old: MetaGraphFile,
    new: MetaGraphFile,
    names: Names,
    question: Question,
    cast: str | None,
) -> Answer:
    """Runs both on the same values.

    Without a cast, each output has to have the very same bytes. With one, its numbers may differ by
    so much of the largest of them: by default 16 epsilons of the dtype, which are 1.6 percent for
    float16 and 13 for bfloat16. Whole numbers, such as classes, may be any, as what was nearly the
    largest may become the largest.

    Args:
      old: the original.
      new: the edited one, as it was written.
      names: the names of its nodes, without those that it no longer has.
      question: by old names.
      cast: the name of the dtype that values were rounded to, None where they were not.

    Raises:
      CheckpointError, PredictionError: the original cannot be run.
      ToolError: the other cannot, or they differ.
    """
    lost = unavailable(new, graph_variables(new))
    if len(lost) > len(unavailable(old, graph_variables(old))):
        raise ToolError(f"nothing is written, as the result could not be restored: {lost[0]}")
    values, expected = _ask_original(old, question)
    found = _ask_result(new, names, question, values)
    tolerance = 0.0
    if cast is not None:
        tolerance = _EPSILONS * _EPSILON[cast] if question.tolerance is None else question.tolerance
    return _compare(question.outputs, expected, found, tolerance)


def _ask_original(meta: MetaGraphFile, question: Question) -> tuple[list[Array], list[Array]]:
    """The values of the inputs, and what the original makes of them, which has to be certain."""
    with _load(meta, question, question.outputs, question.inputs) as graph:
        values, expected = _try(meta, graph, question.feeds)
        again = graph.run(*values)
    for name, first, second in zip(question.outputs, expected, again, strict=True):
        if not _equal(first, second):
            raise ToolError(
                f"{name} of {meta.path} is another at each run on the same input, so that nothing "
                f"can be compared: {_FEED}, such as for what switches dropout off"
            )
    return values, expected


def _ask_result(
    meta: MetaGraphFile, names: Names, question: Question, values: Sequence[Array]
) -> list[Array]:
    """What the edited graph makes of the same values."""
    outputs = [*map(names.of_node, question.outputs)]
    assets = {names.of_node(name): path for name, path in question.assets.items()}
    pairs = zip(question.inputs, values, strict=True)
    fed = {names.of_node(name): value for name, value in pairs if _is_in(name, names)}
    try:
        with _load(meta, question._replace(assets=assets), outputs, [*fed]) as graph:
            return graph.run(*fed.values())
    except CheckpointError as error:
        raise ToolError(f"nothing is written, as the result does not run: {error}") from error


def _is_in(tensor: str, names: Names) -> bool:
    """Whether the edited graph still has an input, which no output may need."""
    return node_of(tensor) in names.nodes


def _load(
    meta: MetaGraphFile, question: Question, outputs: Sequence[str], inputs: Sequence[str]
) -> InferenceGraph:
    return load_inference_graph(
        meta,
        outputs,
        inputs,
        trust_graph=question.trust_graph,
        assets=question.assets,
        time_limit=question.time_limit,
    )


def _try(
    meta: MetaGraphFile, graph: InferenceGraph, feeds: Mapping[str, Feed]
) -> tuple[list[Array], list[Array]]:
    """The values that are given, and others made up that the graph takes; and what it computes."""
    given = {i.name: feed_value(feeds[i.name], i) for i in graph.feeds if i.name in feeds}
    unfed = [info for info in graph.feeds if info.name not in feeds]

    def all_values(made_up: Sequence[Array]) -> list[Array]:
        rest = iter(made_up)
        return [given[i.name] if i.name in given else next(rest) for i in graph.feeds]

    try:
        made_up, expected = try_batches(meta, unfed, lambda v: graph.run(*all_values(v)))
    except CheckpointError as error:
        raise ToolError(f"the original cannot be run, to compare with: {error}; {_FEED}") from error
    return all_values(made_up), expected


def _compare(
    names: Sequence[str], expected: Sequence[Array], found: Sequence[Array], tolerance: float
) -> Answer:
    largest = 0.0
    for name, one, other in zip(names, expected, found, strict=True):
        apart = 0.0 if _equal(one, other) else _distance(one, other, tolerance)
        if not apart <= tolerance:
            hint = " (--tolerance allows another part)" if tolerance else ""
            raise ToolError(
                f"nothing is written, as {name} would be another: it differs by {apart:.3g} of its "
                f"largest number, more than {tolerance:.3g}{hint}"
            )
        largest = max(largest, apart)
    return Answer(largest, tolerance)


def _equal(one: Array, other: Array) -> bool:
    if one.dtype.kind == "O":
        return np.array_equal(one, other)
    same_kind = one.shape == other.shape and one.dtype == other.dtype
    return same_kind and one.tobytes() == other.tobytes()


def _distance(one: Array, other: Array, tolerance: float) -> float:
    """The largest difference of two that are not equal, by the largest number; or infinity."""
    if one.shape != other.shape or one.dtype != other.dtype or one.dtype.kind == "O":
        return float("inf")
    if one.dtype.kind in "biu":
        return 0.0 if tolerance else float("inf")
    kind = np.complex128 if one.dtype.kind == "c" else np.float64
    first, second = one.astype(kind), other.astype(kind)
    both = np.isfinite(first) & np.isfinite(second)
    if not _equal(first[~both], second[~both]) and not np.array_equal(
        first[~both], second[~both], equal_nan=True
    ):
        return float("inf")
    if not both.any():
        return 0.0
    scale = float(np.abs(first[both]).max())
    apart = float(np.abs(first[both] - second[both]).max())
    return apart / scale if scale else float("inf")
