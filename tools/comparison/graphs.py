"""Two graphs, compared as data: nodes, functions, signatures, collections. Nothing is imported."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, SignatureDef

from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.op_definitions import op_definitions
from tools.comparison.nodes import NodeDifference, NodesDifference, compare_nodes


class GraphsDifference(NamedTuple):
    """How two graphs differ; of each kind of part, which are added, removed and changed."""

    nodes: NodesDifference
    functions: NodesDifference
    signatures: NodesDifference
    collections: NodesDifference

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return any(self)


def compare_graphs(
    a: MetaGraphFile, b: MetaGraphFile, pattern: re.Pattern[str]
) -> GraphsDifference:
    """Compares two graphs by the names of their parts.

    Args:
      a: the one.
      b: the other.
      pattern: only nodes in whose name it is found; other parts are compared all.

    Raises:
      CheckpointError: two nodes of a graph have the same name.
    """
    definitions = {**_definitions(a), **_definitions(b)}

    def of_functions(one: FunctionDef, other: FunctionDef) -> Iterator[str]:
        return _function_changes(one, other, definitions)

    return GraphsDifference(
        nodes=compare_nodes(_chosen(a, pattern), _chosen(b, pattern), definitions),
        functions=_parts(_functions(a), _functions(b), of_functions),
        signatures=_parts(a.proto.signature_def, b.proto.signature_def, _signature_changes),
        collections=_parts(a.proto.collection_def, b.proto.collection_def, _collection_changes),
    )


def _definitions(meta: MetaGraphFile) -> Mapping[str, OpDef]:
    """Of this TensorFlow; of an operation that it does not have, what the file says."""
    own = {op.name: op for op in meta.proto.meta_info_def.stripped_op_list.op}
    return {**own, **op_definitions(meta.proto.graph_def)}


def _chosen(meta: MetaGraphFile, pattern: re.Pattern[str]) -> Mapping[str, NodeDef]:
    return {name: node for name, node in meta.nodes.items() if pattern.search(name)}


def _functions(meta: MetaGraphFile) -> Mapping[str, FunctionDef]:
    return {f.signature.name: f for f in meta.proto.graph_def.library.function}


def _parts(
    a: Mapping[str, Any], b: Mapping[str, Any], changes: Callable[[Any, Any], Iterator[str]]
) -> NodesDifference:
    """Compares parts that have names; those of a protobuf map are sorted, as it has no order."""
    found = {name: [*changes(a[name], b[name])] for name in sorted(a) if name in b}
    return NodesDifference(
        added=sorted(name for name in b if name not in a),
        removed=sorted(name for name in a if name not in b),
        changed=[NodeDifference(name, lines) for name, lines in found.items() if lines],
    )


def _function_changes(
    a: FunctionDef, b: FunctionDef, definitions: Mapping[str, OpDef]
) -> Iterator[str]:
    nodes = compare_nodes(
        {node.name: node for node in a.node_def},
        {node.name: node for node in b.node_def},
        definitions,
    )
    yield from (f"node {name} added" for name in nodes.added)
    yield from (f"node {name} removed" for name in nodes.removed)
    for changed in nodes.changed:
        yield from (f"node {changed.name}: {change}" for change in changed.changes)
    if _bytes(a.signature) != _bytes(b.signature):
        yield "its arguments, results or attributes"
    if dict(a.ret) != dict(b.ret) or dict(a.control_ret) != dict(b.control_ret):
        yield "which of its nodes give its results"


def _signature_changes(a: SignatureDef, b: SignatureDef) -> Iterator[str]:
    for what, one, other in (("input", a.inputs, b.inputs), ("output", a.outputs, b.outputs)):
        for key in sorted({*one, *other}):
            if key not in other:
                yield f"{what} {key} removed"
            elif key not in one:
                yield f"{what} {key} added"
            elif one[key].name != other[key].name:
                yield f"{what} {key}: {one[key].name or '?'} -> {other[key].name or '?'}"
            elif _bytes(one[key]) != _bytes(other[key]):
                yield f"{what} {key}: its dtype or shape"
    if a.method_name != b.method_name:
        yield f"method: {a.method_name or 'none'} -> {b.method_name or 'none'}"


def _collection_changes(a: CollectionDef, b: CollectionDef) -> Iterator[str]:
    if _bytes(a) == _bytes(b):
        return
    one, other = _size(a), _size(b)
    yield f"{one} -> {other} entries" if one != other else f"its {one} entries differ"


def _size(collection: CollectionDef) -> int:
    kind = collection.WhichOneof("kind")
    return 0 if kind is None else len(getattr(collection, kind).value)


def _bytes(message: Any) -> bytes:
    content: bytes = message.SerializeToString(deterministic=True)
    return content
