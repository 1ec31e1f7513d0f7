"""Lookup tables of foreign graphs: filled as their own initializers would, no other file read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from errors import CheckpointError
from metagraph import tables
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.opening import open_model
from metagraph.session import load_inference_graph
from metagraph.tables import TextFormat, read_vocabulary
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


# Only what lies in a SavedModel's own folder of assets is read without being asked for.


SECRET = "root:x:0:0\n"


def _save(folder: Path, name: str) -> Path:
    """A SavedModel with a table of words, whose file goes by `name` in the graph."""
    (folder / "words.txt").write_text("zero\none\n")
    path = folder / "saved"
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None], name="words")
        index = v1.lookup.TextFileIndex
        table = v1.lookup.StaticHashTable(
            v1.lookup.TextFileInitializer(
                f"{folder}/words.txt", tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
            ),
            -1,
        )
        tf.identity(table.lookup(words), name="ids")
        session.run(v1.tables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    proto = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    (entry,) = proto.meta_graphs[0].collection_def["saved_model_assets"].any_list.value
    asset = AssetFileDef.FromString(entry.value)
    asset.filename = name
    entry.value = asset.SerializeToString()
    (path / "saved_model.pb").write_bytes(proto.SerializeToString())
    return path


def _ids(path: Path, words: list[bytes], assets: Mapping[str, str] | None = None) -> list[int]:
    meta = open_model(str(path))
    with load_inference_graph(meta, ["ids:0"], ["words:0"], assets=assets or {}) as graph:
        found: list[int] = graph.run(np.array(words, object))[0].tolist()
        return found


def test_an_asset_in_the_folder_is_read(tmp_path: Path) -> None:
    path = _save(tmp_path, "words.txt")
    (tmp_path / "words.txt").unlink()
    assert _ids(path, [b"one", b"two"]) == [1, -1]
    renamed = tmp_path / "model"
    path.rename(renamed)
    moved = tmp_path / "link"
    moved.symlink_to(renamed)  # All of the model may be elsewhere.
    assert _ids(moved, [b"one"]) == [1]


@pytest.mark.parametrize(
    "name", ["{secret}", "../secret.txt", "../../secret.txt", "a/../../../secret.txt", "..", "."]
)
def test_a_name_that_leads_out_is_no_asset(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text(SECRET)
    path = _save(tmp_path, name.format(secret=tmp_path / "secret.txt"))
    (path / "secret.txt").write_text(SECRET)
    with pytest.raises(CheckpointError, match=r"needs its vocabulary file.*--asset"):
        _ids(path, [SECRET.strip().encode()])


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    path = _save(tmp_path, "words.txt")
    (path / "assets" / "words.txt").unlink()
    (path / "assets" / "words.txt").symlink_to("../../secret.txt")
    line = SECRET.strip().encode()
    with pytest.raises(
        CheckpointError, match=rf"link out of .* to {secret}: .* --asset words\.txt={secret}$"
    ):
        _ids(path, [line])
    assert _ids(path, [line], assets={"words.txt": str(secret)}) == [0]


def test_nothing_is_asked_of_a_file_that_a_link_leads_to(tmp_path: Path) -> None:
    """The answer would tell a stranger what there is: both end in the same words."""
    path = _save(tmp_path, "words.txt")
    (path / "assets" / "words.txt").unlink()
    (path / "assets" / "words.txt").symlink_to(tmp_path / "absent.txt")
    with pytest.raises(CheckpointError, match=r"is a link out of the model's folder"):
        _ids(path, [b"one"])


def test_the_folder_of_assets_as_a_link(tmp_path: Path) -> None:
    path = _save(tmp_path, "words.txt")
    (path / "assets").rename(tmp_path / "elsewhere")
    (path / "assets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link out of the model's folder"):
        _ids(path, [b"one"])


# Vocabulary files, read as TensorFlow's own text initializer reads them.


WHOLE, NUMBER = -2, -1


def _stock(
    path: Path, text: TextFormat, key_dtype: tf.DType, value_dtype: tf.DType
) -> dict[object, object]:
    """What a table holds that TensorFlow has filled from the file."""
    with tf.Graph().as_default(), v1.Session() as session:
        table = tf.raw_ops.HashTableV2(key_dtype=key_dtype, value_dtype=value_dtype)
        fill = tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename=str(path), **text._asdict()
        )
        session.run(fill)
        exported = tf.raw_ops.LookupTableExportV2(
            table_handle=table, Tkeys=key_dtype, Tvalues=value_dtype
        )
        keys, values = session.run(exported)
        return dict(zip(keys.tolist(), values.tolist(), strict=True))


@pytest.mark.parametrize(
    ("content", "text", "key_dtype", "value_dtype"),
    [
        (b"a\nb\nc\n", TextFormat(WHOLE, NUMBER), tf.string, tf.int64),
        (b"a\r\nb\r\nc", TextFormat(WHOLE, NUMBER), tf.string, tf.int64),
        (b"a\nb\nc\n", TextFormat(NUMBER, WHOLE, 2), tf.int64, tf.string),
        (b"a\nb\n", TextFormat(WHOLE, NUMBER, offset=5), tf.string, tf.int64),
        (b"x\t1\ny\t-22\n", TextFormat(0, 1), tf.string, tf.int64),
        (b"x,1.5,p q\ny,2,\n", TextFormat(2, 1, delimiter=","), tf.string, tf.float32),
        (b"7 a\n8 b\n", TextFormat(0, 1, delimiter=" "), tf.int64, tf.string),
        (b"\xff\xfe \xc3\xa9\n", TextFormat(WHOLE, NUMBER), tf.string, tf.int64),
    ],
)
def test_keys_and_values_are_those_of_tensorflow(
    tmp_path: Path, content: bytes, text: TextFormat, key_dtype: tf.DType, value_dtype: tf.DType
) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    keys, values = read_vocabulary(str(path), text, key_dtype, value_dtype)
    assert (keys.dtype, values.dtype) == (key_dtype.as_numpy_dtype, value_dtype.as_numpy_dtype)
    found = dict(zip(keys.tolist(), values.tolist(), strict=True))
    assert found == _stock(path, text, key_dtype, value_dtype)


@pytest.mark.parametrize("content", [b"", b"\r\r"])
def test_an_empty_file_is_refused_as_tensorflow_refuses_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    text = TextFormat(WHOLE, NUMBER)
    if not content:
        with pytest.raises(tf.errors.OpError):
            _stock(path, text, tf.string, tf.int64)
    with pytest.raises(CheckpointError, match=r"vocabulary\.txt is empty: .* at least one line"):
        read_vocabulary(str(path), text, tf.string, tf.int64)


@pytest.mark.parametrize(
    ("content", "text", "message"),
    [
        (b"a\n\nb\n", TextFormat(WHOLE, NUMBER), r"line 2: it is empty"),
        (b"a\n", TextFormat(WHOLE, NUMBER, 2), r"has 1 lines, its table is made for 2"),
        (b"a\t1\nb\n", TextFormat(0, 1), r"line 2: expected int64 in column 1 .* found b'b'"),
        (b"a\tx\n", TextFormat(0, 1), r"line 1: expected int64 in column 1"),
        (b"a\t99999999999999999999\n", TextFormat(0, 1), r"line 1: expected int64"),
        (b"a\n", TextFormat(WHOLE, WHOLE), r"cannot give int64 values by the index -2"),
        (b"a\n", TextFormat(-3, NUMBER), r"cannot give string values by the index -3"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, content: bytes, text: TextFormat, message: str
) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_vocabulary(str(path), text, tf.string, tf.int64)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TextFormat(WHOLE, NUMBER)
    with pytest.raises(CheckpointError, match="there is no file"):
        read_vocabulary(str(tmp_path / "absent"), text, tf.string, tf.int64)
    with pytest.raises(CheckpointError, match="no regular file"):
        read_vocabulary(str(tmp_path), text, tf.string, tf.int64)
    with pytest.raises(CheckpointError, match="no regular file"):
        read_vocabulary("/dev/zero", text, tf.string, tf.int64)
    path = tmp_path / "long"
    path.write_bytes(b"0123456789")
    monkeypatch.setattr(tables, "MAX_BYTES", 9)
    with pytest.raises(CheckpointError, match="more than the limit"):
        read_vocabulary(str(path), text, tf.string, tf.int64)
