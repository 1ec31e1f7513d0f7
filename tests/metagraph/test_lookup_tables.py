"""Lookup tables of foreign graphs: filled as their own initializers would, no other file read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from errors import CheckpointError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.session import load_inference_graph
from tests.prediction import stock

v1 = tf.compat.v1

WORDS = np.array([b"b", b"zebra", b"a"], object)


def _look_up(
    path: Path, assets: Mapping[str, str] | None = None, fetch: str = "y:0"
) -> npt.NDArray[Any]:
    meta = read_meta_graph(str(path))
    with load_inference_graph(meta, [fetch], ["x:0"], assets=assets or {}) as graph:
        return graph.run(WORDS)[0]


def _table(initializer: Any) -> tf.Tensor:
    x = v1.placeholder(tf.string, [None], name="x")
    table = tf.lookup.StaticHashTable(initializer, -1)
    return tf.identity(table.lookup(x), name="y")


def test_a_table_of_constants_is_filled(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v = v1.get_variable("v", initializer=np.int64(100), use_resource=False)
        keys = tf.constant(["a", "b"])
        y = _table(tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1, 2], tf.int64)))
        tf.add(y, v, name="sum")
    assert _look_up(tmp_path / "m.meta").tolist() == [2, -1, 1]
    assert _look_up(tmp_path / "m.meta", fetch="sum:0").tolist() == [102, 99, 101]


def test_a_table_of_references_is_filled(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", initializer=np.int64(0), use_resource=False)
        x = v1.placeholder(tf.string, [None], name="x")
        table = tf.raw_ops.HashTable(key_dtype=tf.string, value_dtype=tf.int64)
        values = tf.constant([1, 2], tf.int64)
        tf.raw_ops.InitializeTable(table_handle=table, keys=["a", "b"], values=values)
        default = tf.constant(-1, tf.int64)
        found = tf.raw_ops.LookupTableFind(table_handle=table, keys=x, default_value=default)
        tf.identity(found, name="y")
    assert _look_up(tmp_path / "m.meta").tolist() == [2, -1, 1]


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """A checkpoint whose table is filled from a file, which is then moved to `elsewhere`."""
    path = tmp_path / "words.txt"
    path.write_text("a\nb\n")
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", initializer=np.int64(0), use_resource=False)
        initializer = tf.lookup.TextFileInitializer(
            str(path),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        _table(initializer)
    path.rename(tmp_path / "elsewhere")
    return tmp_path / "m.meta"


def _asset_tensor(path: Path) -> str:
    (name,) = read_meta_graph(str(path)).collection("asset_filepaths").node_list.value
    return str(name)


def test_a_vocabulary_is_read_where_it_is_named(vocabulary: Path) -> None:
    elsewhere = str(vocabulary.parent / "elsewhere")
    tensor = _asset_tensor(vocabulary)
    names = ["words.txt", str(vocabulary.parent / "words.txt"), tensor, tensor.split(":")[0]]
    for name in names:
        assert _look_up(vocabulary, {name: elsewhere}).tolist() == [1, -1, 0]


def test_a_vocabulary_is_not_read_unless_it_is_named(vocabulary: Path) -> None:
    (vocabulary.parent / "elsewhere").rename(vocabulary.parent / "words.txt")
    message = r"table \S+ needs its vocabulary file, .*/words\.txt .* --asset words\.txt=<path>"
    with pytest.raises(CheckpointError, match=message) as caught:
        _look_up(vocabulary)
    assert "\n" not in str(caught.value)


def test_an_asset_that_no_table_takes_is_named(vocabulary: Path) -> None:
    assets = {"words.txt": str(vocabulary.parent / "elsewhere"), "word.txt": "x"}
    with pytest.raises(CheckpointError, match=r"--asset word\.txt: .* it takes .*words\.txt"):
        _look_up(vocabulary, assets)


def test_a_path_of_windows_has_a_base_name(vocabulary: Path) -> None:
    def move(proto: MetaGraphDef) -> None:
        for node in proto.graph_def.node:
            if f"{node.name}:0" == tensor:
                node.attr["value"].tensor.string_val[0] = b"C:\\data\\words.txt"

    tensor = _asset_tensor(vocabulary)
    stock.edit_meta(vocabulary, move)
    assert _look_up(vocabulary, {"words.txt": str(vocabulary.parent / "elsewhere")})[0] == 1


def test_a_vocabulary_that_is_missing_is_named(vocabulary: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*/absent"):
        _look_up(vocabulary, {"words.txt": f"{vocabulary.parent}/absent"})


def test_equal_keys_of_a_vocabulary_are_one_line(vocabulary: Path) -> None:
    (vocabulary.parent / "elsewhere").write_text("a\nb\na\n")
    with pytest.raises(CheckpointError, match=r"cannot be run") as caught:
        _look_up(vocabulary, {"words.txt": str(vocabulary.parent / "elsewhere")})
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_needed_needs_no_file(vocabulary: Path) -> None:
    meta = read_meta_graph(str(vocabulary))
    with load_inference_graph(meta, ["v:0"]) as graph:
        assert graph.run()[0] == 0


def test_a_table_in_the_checkpoint_is_read_from_it(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.string, [None], name="x")
        table = tf.lookup.experimental.MutableHashTable(
            tf.string, tf.float32, [0.0, -1.0], name="t"
        )
        keys, values = table.export()
        tf.identity(table.lookup(x), name="y")
        insert = table.insert(["a", "b"], [[1.0, 2.0], [3.0, 4.0]])
        session.run(insert)
        names = ["t-keys", "t-values"]
        prefix = str(tmp_path / "m")
        save = tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=names, shape_and_slices=["", ""], tensors=[keys, values]
        )
        session.run(save)
        restored = tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=names,
            shape_and_slices=["", ""],
            dtypes=[tf.string, tf.float32],
        )
        tf.raw_ops.LookupTableImportV2(
            table_handle=table.resource_handle, keys=restored[0], values=restored[1]
        )
        v1.train.export_meta_graph(f"{prefix}.meta")
    expected = [[3, 4], [0, -1], [1, 2]]
    assert _look_up(tmp_path / "m.meta").tolist() == expected


def test_an_initializer_that_writes_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", initializer=np.int64(0), use_resource=False)
        with tf.control_dependencies([tf.io.write_file(str(victim), "owned", name="poison")]):
            keys = tf.identity(["a", "b"])
        _table(tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1, 2], tf.int64)))
    with pytest.raises(CheckpointError, match="node poison runs the operation WriteFile"):
        _look_up(tmp_path / "m.meta")
    assert not victim.exists()


def _saved_model(folder: Path) -> MetaGraphFile:
    """A model of TensorFlow 2 with a table of constants and one of an asset."""
    words = folder.parent / "words.txt"
    words.write_text("a\nb\n")

    index = tf.lookup.TextFileIndex
    constants = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([10, 20], tf.int64))
    file = tf.lookup.TextFileInitializer(
        str(words), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
    )
    model = tf.Module()
    model.constants = tf.lookup.StaticHashTable(constants, -10)
    model.file = tf.lookup.StaticHashTable(file, -1)
    model.v = tf.Variable(100, dtype=tf.int64)
    model.serve = tf.function(
        lambda x: {"y": model.constants.lookup(x) + model.file.lookup(x) + model.v},
        input_signature=[tf.TensorSpec([None], tf.string, name="x")],
    )
    tf.saved_model.save(model, str(folder), signatures=model.serve)
    words.unlink()
    path = folder / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    return MetaGraphFile(str(path), str(folder / "variables" / "variables"), saved.meta_graphs[0])


def _serve(meta: MetaGraphFile, assets: Mapping[str, str] | None = None) -> list[int]:
    signature = meta.proto.signature_def["serving_default"]
    x, y = signature.inputs["x"].name, signature.outputs["y"].name
    with load_inference_graph(meta, [y], [x], assets=assets or {}) as graph:
        return [int(value) for value in graph.run(WORDS)[0]]


def test_a_saved_model_reads_its_own_assets(tmp_path: Path) -> None:
    meta = _saved_model(tmp_path / "model")
    assert _serve(meta) == [20 + 1 + 100, -10 - 1 + 100, 10 + 0 + 100]
    other = tmp_path / "other.txt"
    other.write_text("zebra\n")
    assert _serve(meta, {"words.txt": str(other)}) == [20 - 1 + 100, -10 + 100, 10 - 1 + 100]


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", "a\\b", ""])
def test_an_asset_outside_of_its_folder_is_not_read(tmp_path: Path, name: str) -> None:
    meta = _saved_model(tmp_path / "model")
    (tmp_path / "secret").write_text("a\n")
    meta.proto.asset_file_def[0].filename = name
    with pytest.raises(CheckpointError, match="needs its vocabulary file"):
        _serve(meta)
