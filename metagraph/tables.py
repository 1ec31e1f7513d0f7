"""What fills the lookup tables that some tensors need: constants of the graph, or a vocabulary.

An initializer that computes keys and values in the graph is run. Of one that reads a text file, it
is us who read it, where the user names it or it is an asset of the SavedModel itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef

import file_io
from checkpoints.reader import Array
from errors import CheckpointError, reason
from file_io import check_fetched, read_bounded
from metagraph.graph import (
    Output,
    SubGraph,
    View,
    attribute_of,
    data_inputs,
    source,
    sub_graph,
    text_at,
    views,
)
from metagraph.importing import reason_of_run
from metagraph.meta import MetaGraphFile, node_of
from metagraph.opening import GRAPH_SUFFIXES
from metagraph.variables import ASSIGN_OPS

MAX_BYTES = 1 << 27  # Of a vocabulary.
_FOLDER = "assets"
_FROM_TEXT = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
_FILLING = _FROM_TEXT | {
    *("InitializeTable", "InitializeTableV2", "LookupTableImport", "LookupTableImportV2")
}
_TABLE = re.compile(r"(Mutable|MutableDense)?HashTable(OfTensors)?(V2)?")
_READS = frozenset({"ReadVariableOp", "VarHandleOp", "Variable", "VariableV2"})
_ASSETS_OF_1 = "saved_model_assets"  # The collection of TensorFlow 1; later a field of its own.


class TextFormat(NamedTuple):
    """What a line of a vocabulary gives: by index, -2 all of it, -1 its number, else a column.

    There are `vocab_size` lines, -1 for all; the offset is added to a line's number. Source:
    `InitializeTableFromTextFile` in `tensorflow/core/ops/lookup_ops.cc`.
    """

    key_index: int
    value_index: int
    vocab_size: int = -1
    delimiter: str = "\t"
    offset: int = 0


class Filling(NamedTuple):
    """A table, and what fills it: a node of the graph that is run, or else a text file."""

    table: str
    node: str | None = None
    text: TextFormat = TextFormat(0, 0)  # What a line of the file gives.
    names: Sequence[str] = ()  # Its path where the graph was made, its tensor, its base name.
    bundled: str | None = None  # The file of the SavedModel, if there is one.


def with_tables(
    meta: MetaGraphFile, fetches: Collection[str], feeds: Collection[str]
) -> tuple[SubGraph, list[Filling]]:
    """What `fetches` need, and what fills the tables among it, which may need more nodes."""
    needed, fillings = sub_graph(meta, fetches, feeds), list[Filling]()
    tables, before = _tables(meta, needed), set[str]()
    all_fillings = list(_fillings(meta)) if tables else []
    while tables != before:
        fillings = _chosen(meta, all_fillings, tables)
        runs = [f"{filling.node}:0" for filling in fillings if filling.node is not None]
        needed = sub_graph(meta, [*fetches, *runs], feeds)
        tables, before = _tables(meta, needed), tables
    return needed, fillings


def vocabulary_path(filling: Filling, assets: Mapping[str, str]) -> str:
    """The file that a table is filled from: that of `assets`, by any of its names, or its own.

    CheckpointError where there is none, or its own is a link elsewhere, perhaps to a secret.
    """
    for name in filling.names:
        if name in assets:
            return assets[name]
    names = filling.names or [filling.table]
    bundled = filling.bundled
    if bundled is None:
        raise CheckpointError(
            f"table {filling.table} needs its vocabulary file, {names[0]} where the graph was "
            f"made: name it with --asset {names[-1]}=<path>"
        )
    if _is_inside(bundled):
        return bundled
    target = os.path.realpath(bundled)
    raise CheckpointError(
        f"{bundled} is a link out of the model's folder, to {target}: if that is the file, "
        f"name it with --asset {names[-1]}={target}"
    )


def read_vocabulary(
    path: str, text: TextFormat, key_dtype: tf.DType, value_dtype: tf.DType
) -> tuple[Array, Array]:
    """Keys, sorted, and their values, as TensorFlow itself reads the file; or CheckpointError."""
    check_fetched(path)
    read_bounded(path, MAX_BYTES)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            table = tf.raw_ops.HashTableV2(key_dtype=key_dtype, value_dtype=value_dtype)
            fill = tf.raw_ops.InitializeTableFromTextFileV2(
                table_handle=table, filename=path, **text._asdict()
            )
            with tf.control_dependencies([fill]):
                held = tf.raw_ops.LookupTableExportV2(
                    table_handle=table, Tkeys=key_dtype, Tvalues=value_dtype
                )
            keys, values = session.run(held)
        except tf.errors.OpError as error:
            raise CheckpointError(f"{path} does not fit its table{reason_of_run(error)}") from error
        except ValueError as error:
            raise CheckpointError(f"{path} does not fit its table: {reason(error)}") from error
    order = np.argsort(keys)
    return keys[order], values[order]


def _tables(meta: MetaGraphFile, needed: SubGraph) -> set[str]:
    return {name for name in needed.names if _TABLE.fullmatch(meta.nodes[name].op)}


def _chosen(
    meta: MetaGraphFile, fillings: Iterable[Filling], tables: Collection[str]
) -> list[Filling]:
    """One filling for each of the tables that has any; two nodes of one shared name are one table.

    What the graph's collection of initializers names goes first.
    """
    listed = set(meta.collection("table_initializer").node_list.value)
    by_table: dict[str, Filling] = {}
    for filling in sorted(fillings, key=lambda f: f.node not in listed):
        by_table.setdefault(_identity(meta.nodes[filling.table]), filling)
    found = (
        (name, by_table.pop(_identity(meta.nodes[name]), None))
        for name in meta.nodes
        if name in tables
    )
    return [filling._replace(table=table) for table, filling in found if filling is not None]


def _identity(table: NodeDef) -> str:
    """What two nodes of the same table have in common."""
    shared = attribute_of(table, "shared_name").s.decode("utf-8", errors="replace")
    return f"shared {shared}" if shared else f"node {table.name}"


def _fillings(meta: MetaGraphFile) -> Iterator[Filling]:
    """Whatever in the graph, or in a function that it calls, fills a table."""
    for view in views(meta, _FILLING):
        for node in view.nodes.values():
            inputs = data_inputs(node) if node.op in _FILLING else []
            found = source(view, inputs[0]) if len(inputs) > 1 else None
            if found is None or found.view.caller or not _TABLE.fullmatch(found.node.op):
                continue
            table = found.node.name
            if node.op in _FROM_TEXT:
                yield _by_file(meta, view, node, table)
            elif len(inputs) == 3:  # Keys and values come as tensors.
                yield Filling(table, view.root_of(node))


def _by_file(meta: MetaGraphFile, view: View, node: NodeDef, table: str) -> Filling:
    text = TextFormat(
        key_index=attribute_of(node, "key_index").i,
        value_index=attribute_of(node, "value_index").i,
        vocab_size=attribute_of(node, "vocab_size").i if "vocab_size" in node.attr else -1,
        delimiter=attribute_of(node, "delimiter").s.decode("utf-8", errors="replace") or "\t",
        offset=attribute_of(node, "offset").i,
    )
    found = _file_name(meta, source(view, data_inputs(node)[1]))
    if found is None or found.name is None:
        return Filling(table, text=text)
    names = [found.name, node_of(found.name)]
    path = text_at(found.node, 0)
    bundled = None
    for asset in _assets(meta):
        if asset.tensor_info.name == found.name:
            path = path or asset.filename
            bundled = bundled_asset(meta, asset.filename)
    if path:
        names = [path, *names, re.split(r"[/\\]", path)[-1]]
    return Filling(table, text=text, names=names, bundled=bundled)


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
    yield from meta.proto.asset_file_def
    for content in meta.collection(_ASSETS_OF_1).any_list.value:
        try:
            yield AssetFileDef.FromString(content.value)
        except DecodeError:
            continue


def bundled_asset(meta: MetaGraphFile, name: str) -> str | None:
    """The path of an asset in a SavedModel's own folder; None of a name that leads out of it.

    A link out of it is for `vocabulary_path` to refuse. Format: `AssetFileDef`.
    """
    if name != re.split(r"[/\\]", name)[-1] or name in ("", ".", "..") or "\0" in name:
        return None
    folder, file = os.path.split(meta.path)
    path = os.path.join(folder, _FOLDER, name)
    if not file.endswith(GRAPH_SUFFIXES):
        return None
    # Of a file that a link leads to elsewhere, not even whether it exists is asked.
    return path if not _is_inside(path) or file_io.exists(path) else None


def _is_inside(path: str) -> bool:
    model = os.path.dirname(os.path.dirname(path))
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(model), ""))
