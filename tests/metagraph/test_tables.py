"""Lookup tables of foreign graphs: filled as their own initializers would, no other file read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from errors import CheckpointError
from metagraph import tables
from metagraph.meta import MetaGraphFile
from metagraph.opening import open_model
from metagraph.tables import TextFormat, read_vocabulary
from tests.metagraph.made import refused, run, saved

v1 = tf.compat.v1

WORDS = np.array([b"b", b"zebra", b"a"], object)


def _look_up(
    meta: MetaGraphFile,
    assets: Mapping[str, str] | None = None,
    fetch: str = "y:0",
    feed: str = "x:0",
    words: Any = WORDS,
) -> Any:
    return run(meta, [fetch], {feed: np.asarray(words, object)}, assets=assets or {})[0].tolist()


def _table(initializer: Any) -> tf.Tensor:
    x = v1.placeholder(tf.string, [None], name="x")
    table = tf.lookup.StaticHashTable(initializer, -1)
    return tf.identity(table.lookup(x), name="y")


def _text_file(path: Path) -> Any:
    index = v1.lookup.TextFileIndex
    return v1.lookup.TextFileInitializer(
        str(path), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
    )


def test_a_table_of_references_is_filled(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.string, [None], name="x")
        table = tf.raw_ops.HashTable(key_dtype=tf.string, value_dtype=tf.int64)
        values = tf.constant([1, 2], tf.int64)
        tf.raw_ops.InitializeTable(table_handle=table, keys=["a", "b"], values=values)
        default = tf.constant(-1, tf.int64)
        found = tf.raw_ops.LookupTableFind(table_handle=table, keys=x, default_value=default)
        tf.identity(found, name="y")

    assert _look_up(saved(tmp_path, build)) == [2, -1, 1]


@pytest.fixture
def vocabulary(tmp_path: Path) -> MetaGraphFile:
    """A checkpoint whose table is filled from `words.txt`, which is then moved to `elsewhere`."""
    path = tmp_path / "words.txt"
    path.write_text("a\nb\n")
    meta = saved(tmp_path, lambda: _table(_text_file(path)))
    path.rename(tmp_path / "elsewhere")
    return meta


def _asset_tensor(meta: MetaGraphFile) -> str:
    (name,) = meta.collection("asset_filepaths").node_list.value
    return str(name)


def test_a_vocabulary_is_read_where_it_is_named_and_only_there(
    vocabulary: MetaGraphFile, tmp_path: Path
) -> None:
    elsewhere, tensor = f"{tmp_path}/elsewhere", _asset_tensor(vocabulary)
    for name in ("words.txt", f"{tmp_path}/words.txt", tensor, tensor.split(":")[0]):
        assert _look_up(vocabulary, {name: elsewhere}) == [1, -1, 0]
    with refused(r"--asset word\.txt: .* it takes .*words\.txt"):
        _look_up(vocabulary, {"words.txt": elsewhere, "word.txt": "x"})
    Path(elsewhere).write_text("a\nb\na\n")
    with refused("elsewhere does not fit its table at .*: HashTable has different value for same"):
        _look_up(vocabulary, {"words.txt": elsewhere})
    Path(elsewhere).rename(tmp_path / "words.txt")
    with refused(r"table \S+ needs its vocabulary file, .*/words\.txt .*--asset words\.txt=<path>"):
        _look_up(vocabulary)
    run(vocabulary, ["v:0"])  # It needs no table.


def test_a_path_of_windows_has_a_base_name(vocabulary: MetaGraphFile, tmp_path: Path) -> None:
    path = vocabulary.nodes[_asset_tensor(vocabulary).removesuffix(":0")].attr["value"].tensor
    path.string_val[0] = b"C:\\data\\words.txt"
    assert _look_up(vocabulary, {"words.txt": f"{tmp_path}/elsewhere"}) == [1, -1, 0]


def test_a_table_in_the_checkpoint_is_refused(tmp_path: Path) -> None:
    """Its keys and values would be read by the file's own operation."""

    def build() -> None:
        x = v1.placeholder(tf.string, [None], name="x")
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, 0.0, name="t")
        tf.identity(table.lookup(x), name="y")
        kinds, names = [tf.string, tf.float32], ["t-keys", "t-values"]
        keys, values = v1.raw_ops.RestoreV2(
            prefix=f"{tmp_path}/m", tensor_names=names, shape_and_slices=["", ""], dtypes=kinds
        )
        handle = table.resource_handle
        tf.raw_ops.LookupTableImportV2(table_handle=handle, keys=keys, values=values)

    with refused("runs the operation RestoreV2"):
        _look_up(saved(tmp_path, build))


def test_an_initializer_that_writes_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"

    def build() -> None:
        with tf.control_dependencies([tf.io.write_file(str(victim), "owned", name="poison")]):
            keys = tf.identity(["a", "b"])
        _table(tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1, 2], tf.int64)))

    with refused("node poison runs the operation WriteFile"):
        _look_up(saved(tmp_path, build))
    assert not victim.exists()


def test_a_saved_model_of_today_reads_its_own_assets(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")
    constants = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([10, 20], tf.int64))
    model = tf.Module()
    model.constants = tf.lookup.StaticHashTable(constants, -10)
    model.file = tf.lookup.StaticHashTable(_text_file(words), -1)
    model.v = tf.Variable(100, dtype=tf.int64)
    model.serve = tf.function(
        lambda x: {"y": model.constants.lookup(x) + model.file.lookup(x) + model.v},
        input_signature=[tf.TensorSpec([None], tf.string, name="x")],
    )
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.serve)
    words.write_text("zebra\n")
    meta = open_model(str(tmp_path / "model"))
    signature = meta.proto.signature_def["serving_default"]
    names = signature.outputs["y"].name, signature.inputs["x"].name
    assert _look_up(meta, {}, *names) == [20 + 1 + 100, -10 - 1 + 100, 10 + 0 + 100]
    assert _look_up(meta, {"words.txt": str(words)}, *names) == [119, 90, 109]


# Only what lies in a SavedModel's own folder of assets is read without being asked for.

SECRET = "root:x:0:0\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A SavedModel of TensorFlow 1 with a table of the words zero and one; a secret beside it."""
    (tmp_path / "secret.txt").write_text(SECRET)
    words = tmp_path / "words.txt"
    words.write_text("zero\none\n")
    path = tmp_path / "saved"
    with tf.Graph().as_default(), v1.Session() as session:
        _table(_text_file(words))
        session.run(v1.tables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    words.unlink()
    return path


def _ids(path: Path, words: list[str], assets: Mapping[str, str] | None = None) -> Any:
    return _look_up(open_model(str(path)), assets, words=words)


def test_an_asset_in_the_folder_is_read(model: Path, tmp_path: Path) -> None:
    assert _ids(model, ["one", "two"]) == [1, -1]
    model.rename(tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "model")  # All of the model may be elsewhere.
    assert _ids(tmp_path / "link", ["one"]) == [1]


@pytest.mark.parametrize(
    "name", ["{secret}", "../secret.txt", "../../secret.txt", "a/../../../secret.txt", "..", "."]
)
def test_a_name_that_leads_out_is_no_asset(model: Path, tmp_path: Path, name: str) -> None:
    proto = SavedModel.FromString((model / "saved_model.pb").read_bytes())
    (entry,) = proto.meta_graphs[0].collection_def["saved_model_assets"].any_list.value
    asset = AssetFileDef.FromString(entry.value)
    asset.filename = name.format(secret=tmp_path / "secret.txt")
    entry.value = asset.SerializeToString()
    (model / "saved_model.pb").write_bytes(proto.SerializeToString())
    (model / "secret.txt").write_text(SECRET)
    with refused(r"needs its vocabulary file.*--asset"):
        _ids(model, [SECRET.strip()])


@pytest.mark.parametrize("target", ["secret.txt", "absent.txt"])
def test_a_link_out_of_the_folder_is_not_followed(model: Path, tmp_path: Path, target: str) -> None:
    """Nor is asked what there is: that would tell a stranger."""
    path = tmp_path / target
    (model / "assets" / "words.txt").unlink()
    (model / "assets" / "words.txt").symlink_to(f"../../{target}")
    with refused(rf"link out of .* to {path}: .* --asset words\.txt={path}$"):
        _ids(model, [SECRET.strip()])
    if path.exists():
        assert _ids(model, [SECRET.strip()], {"words.txt": str(path)}) == [0]


def test_the_folder_of_assets_as_a_link(model: Path, tmp_path: Path) -> None:
    (model / "assets").rename(tmp_path / "elsewhere")
    (model / "assets").symlink_to(tmp_path / "elsewhere")
    with refused("is a link out of the model's folder"):
        _ids(model, ["one"])


# Vocabulary files, which TensorFlow's own operation reads.

WHOLE, NUMBER = -2, -1


@pytest.mark.parametrize(
    ("content", "text", "dtypes", "expected"),
    [
        (b"a\r\nb\r\nc", TextFormat(WHOLE, NUMBER), "string int64", {b"a": 0, b"b": 1, b"c": 2}),
        (b"b\na\nc\n", TextFormat(NUMBER, WHOLE, 2), "int64 string", {0: b"b", 1: b"a"}),
        (b"a\nb\n", TextFormat(WHOLE, NUMBER, offset=5), "string int64", {b"a": 5, b"b": 6}),
        (b"x\t1\ny\t-22\n", TextFormat(0, 1), "string int64", {b"x": 1, b"y": -22}),
        (b"p,1.5,q r\n", TextFormat(2, 1, -1, ","), "string float32", {b"q r": 1.5}),
        (b"\xff \xc3\xa9\n", TextFormat(WHOLE, NUMBER), "string int64", {b"\xff \xc3\xa9": 0}),
    ],
)
def test_keys_and_values(
    tmp_path: Path, content: bytes, text: TextFormat, dtypes: str, expected: dict[Any, Any]
) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    kinds = [tf.as_dtype(name) for name in dtypes.split()]
    keys, values = read_vocabulary(f"{tmp_path}/v.txt", text, *kinds)
    assert [keys.dtype, values.dtype] == [kind.as_numpy_dtype for kind in kinds]
    assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == expected
    assert keys.tolist() == sorted(expected)


@pytest.mark.parametrize(
    ("content", "text", "message"),
    [
        (b"", TextFormat(WHOLE, NUMBER), "Read less bytes"),
        (b"a\n\nb\n", TextFormat(WHOLE, NUMBER), "empty line found"),
        (b"a\n", TextFormat(WHOLE, NUMBER, 2), "expected 2 but got 1"),
        (b"a\t1\nb\n", TextFormat(0, 1), r"line 1 \(b\) : expected at least 2 got 1"),
        (b"a\tx\n", TextFormat(0, 1), "Field x in line 0 is not a valid int64"),
        (b"a\n", TextFormat(WHOLE, WHOLE), "Field a in line 0"),
        (b"a\n", TextFormat(-3, NUMBER), "-3 less than minimum"),
        (b"a\n", TextFormat(WHOLE, NUMBER, -1, ",,"), "delimiter should be only 1 char"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, content: bytes, text: TextFormat, message: str
) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    with refused(rf"v\.txt does not fit its table.*: .*{message}", CheckpointError):
        read_vocabulary(f"{tmp_path}/v.txt", text, tf.string, tf.int64)


def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long").write_bytes(b"0123456789")
    monkeypatch.setattr(tables, "MAX_BYTES", 9)
    for path, message in {
        f"{tmp_path}/absent": "there is no file",
        str(tmp_path): "no regular file",
        "/dev/zero": "no regular file",
        f"{tmp_path}/long": "more than the limit",
    }.items():
        with refused(message, CheckpointError):
            read_vocabulary(path, TextFormat(WHOLE, NUMBER), tf.string, tf.int64)
