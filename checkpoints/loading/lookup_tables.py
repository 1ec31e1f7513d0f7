"""What fills the lookup tables that some tensors need: constants, a vocabulary, the checkpoint.

A table is empty until its initializer has run. One that computes keys and values in the graph is
run; one that reads a text file is not: its file may be read only where the user names it, or
where it is an asset of the SavedModel itself, and then it is us who read it.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from google.protobuf.message import DecodeError
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef

from checkpoints.errors import CheckpointError
from checkpoints.loading.bundled_assets import bundled_asset, check_inside
from checkpoints.loading.graph_view import Output, View, attribute, data_inputs, source, views
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.saver_mapping import ASSIGN_OPS, Stored, stored_source
from checkpoints.loading.string_const import text_at
from checkpoints.loading.sub_graph import SubGraph, sub_graph
from checkpoints.loading.vocabulary import TextFormat

_COMPUTED = frozenset(
    {"InitializeTable", "InitializeTableV2", "LookupTableImport", "LookupTableImportV2"}
)
_FROM_TEXT = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
_FILLING = _COMPUTED | _FROM_TEXT
_TABLE = re.compile(r"(Mutable|MutableDense)?HashTable(OfTensors)?(V2)?")
_READS = frozenset({"ReadVariableOp", "VarHandleOp", "Variable", "VariableV2"})
_ASSETS_OF_1 = "saved_model_assets"  # The collection of TensorFlow 1; later a field of its own.


class ByRun(NamedTuple):
    """A table that is filled by running a node of the graph.

    Attributes:
      table: its node.
      node: what to run.
    """

    table: str
    node: str


class ByFile(NamedTuple):
    """A table that is filled from a text file.

    Attributes:
      table: its node.
      names: what the file goes by: its tensor, its path where the graph was made, its base name.
      bundled: the file of the SavedModel; None where there is none.
      text: what a line of it gives.
    """

    table: str
    names: Sequence[str]
    bundled: str | None
    text: TextFormat


class ByCheckpoint(NamedTuple):
    """A table whose keys and values are in the checkpoint.

    Attributes:
      table: its node.
      keys: where its keys are.
      values: where their values are.
    """

    table: str
    keys: Stored
    values: Stored


Filling: TypeAlias = ByRun | ByFile | ByCheckpoint


def with_tables(
    meta: MetaGraphFile, fetches: Collection[str], feeds: Collection[str]
) -> tuple[SubGraph, list[Filling]]:
    """What `fetches` need, and what fills the tables among it, which may need more.

    Raises:
      CheckpointError: a node's input does not exist.
    """
    needed = sub_graph(meta, fetches, feeds)
    tables = _tables(meta, needed)
    if not tables:
        return needed, []
    all_fillings = list(_fillings(meta))
    while True:
        fillings = _chosen(meta, all_fillings, tables)
        runs = [f"{filling.node}:0" for filling in fillings if isinstance(filling, ByRun)]
        needed = sub_graph(meta, [*fetches, *runs], feeds)
        more = _tables(meta, needed)
        if more == tables:
            return needed, fillings
        tables = more


def vocabulary_path(filling: ByFile, assets: Mapping[str, str]) -> str:
    """The file that a table is filled from: the one the user gave, or the SavedModel's own.

    Args:
      filling: of the table.
      assets: the user's files, by any of `filling.names`.

    Raises:
      CheckpointError: there is none.
    """
    for name in filling.names:
        if name in assets:
            return assets[name]
    names = filling.names or [filling.table]
    if filling.bundled is not None:
        check_inside(filling.bundled, names[-1])
        return filling.bundled
    raise CheckpointError(
        f"table {filling.table} needs its vocabulary file, {names[0]} where the graph was made: "
        f"name it with --asset {names[-1]}=<path>"
    )


def _tables(meta: MetaGraphFile, needed: SubGraph) -> set[str]:
    return {name for name in needed.names if _TABLE.fullmatch(meta.nodes[name].op)}


def _chosen(
    meta: MetaGraphFile, fillings: Iterable[Filling], tables: Collection[str]
) -> list[Filling]:
    """One filling for each of the tables that has any.

    The checkpoint goes first, then what the graph's collection of initializers names. Two nodes of
    one shared name are one table.
    """
    listed = set(meta.collection("table_initializer").node_list.value)
    by_table: dict[str, list[Filling]] = {}
    for filling in fillings:
        by_table.setdefault(_identity(meta.nodes[filling.table]), []).append(filling)
    chosen: list[Filling] = []
    seen = set[str]()
    for table in (name for name in meta.nodes if name in tables):
        identity = _identity(meta.nodes[table])
        if identity in by_table and identity not in seen:
            seen.add(identity)
            best = min(by_table[identity], key=lambda filling: _rank(filling, listed))
            chosen.append(best._replace(table=table))
    return chosen


def _rank(filling: Filling, listed: Collection[str]) -> int:
    if isinstance(filling, ByCheckpoint):
        return 0
    return 1 if isinstance(filling, ByRun) and filling.node in listed else 2


def _identity(table: NodeDef) -> str:
    """What two nodes of the same table have in common."""
    shared = attribute(table, "shared_name").s.decode("utf-8", errors="replace")
    return f"shared {shared}" if shared else f"node {table.name}"


def _fillings(meta: MetaGraphFile) -> Iterator[Filling]:
    """Whatever in the graph, or in a function that it calls, fills a table."""
    for view in views(meta, _FILLING):
        for node in view.nodes.values():
            inputs = data_inputs(node) if node.op in _FILLING else []
            if len(inputs) < 2:
                continue
            table = source(view, inputs[0])
            if table is None or table.view.caller is not None:
                continue
            if not _TABLE.fullmatch(table.node.op):
                continue
            if node.op in _FROM_TEXT:
                yield _by_file(meta, view, node, table.node.name)
            elif len(inputs) == 3:
                yield _computed(view, node, table.node.name)


def _computed(view: View, node: NodeDef, table: str) -> ByRun | ByCheckpoint:
    """A table whose keys and values come as tensors, which a saver may have restored."""
    _, keys_input, values_input = data_inputs(node)
    keys, values = stored_source(view, keys_input), stored_source(view, values_input)
    if keys is not None and values is not None:
        return ByCheckpoint(table, keys, values)
    return ByRun(table, view.root_of(node))


def _by_file(meta: MetaGraphFile, view: View, node: NodeDef, table: str) -> ByFile:
    text = TextFormat(
        key_index=attribute(node, "key_index").i,
        value_index=attribute(node, "value_index").i,
        vocab_size=attribute(node, "vocab_size").i if "vocab_size" in node.attr else -1,
        delimiter=attribute(node, "delimiter").s.decode("utf-8", errors="replace") or "\t",
        offset=attribute(node, "offset").i,
    )
    found = _file_name(meta, source(view, data_inputs(node)[1]))
    if found is None or found.name is None:
        return ByFile(table, (), None, text)
    names = [found.name, node_of(found.name)]
    path = text_at(found.node, 0)
    bundled = None
    for asset in _assets(meta):
        if asset.tensor_info.name == found.name:
            path = path or asset.filename
            bundled = bundled_asset(meta, asset.filename)
    if path:
        names = [path, *names, re.split(r"[/\\]", path)[-1]]
    return ByFile(table, tuple(names), bundled, text)


def _file_name(meta: MetaGraphFile, found: Output | None) -> Output | None:
    """The tensor that a file's name comes from: SavedModels keep it in a variable."""
    if found is None or found.node.op not in _READS:
        return found
    if found.node.op == "ReadVariableOp":
        found = source(found.view, data_inputs(found.node)[0])
    if found is None or found.view.caller is not None:
        return None
    for node in meta.nodes.values():
        inputs = data_inputs(node) if node.op in ASSIGN_OPS else []
        if len(inputs) == 2 and node_of(inputs[0]) == found.node.name:
            return source(found.view, inputs[1])
    return None


def _assets(meta: MetaGraphFile) -> Iterator[AssetFileDef]:
    """The files that a SavedModel says it has."""
    yield from meta.proto.asset_file_def
    for content in meta.collection(_ASSETS_OF_1).any_list.value:
        try:
            yield AssetFileDef.FromString(content.value)
        except DecodeError:
            continue
