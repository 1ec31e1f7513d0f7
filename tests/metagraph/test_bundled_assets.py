"""Only what lies in a SavedModel's own folder of assets is read without being asked for."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from errors import CheckpointError
from metagraph.meta import MetaGraphFile
from metagraph.opening import open_model
from metagraph.session import load_inference_graph
from metagraph.tables import bundled_asset

v1 = tf.compat.v1

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


def test_a_link_within_the_model_is_followed(tmp_path: Path) -> None:
    path = _save(tmp_path, "words.txt")
    (path / "assets" / "words.txt").rename(path / "blob")
    (path / "assets" / "words.txt").symlink_to("../blob")
    assert _ids(path, [b"one"]) == [1]


def test_only_a_saved_model_has_assets(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "words.txt").touch()
    paths = [f"{tmp_path}/{name}" for name in ("m.meta", "saved_model.pb")]
    found = [bundled_asset(MetaGraphFile(p, p, MetaGraphDef()), "words.txt") for p in paths]
    assert found == [None, f"{tmp_path}/assets/words.txt"]
    meta = MetaGraphFile(paths[1], paths[1], MetaGraphDef())
    assert bundled_asset(meta, "absent.txt") is None
    assert bundled_asset(meta, "words.txt\0") is None
