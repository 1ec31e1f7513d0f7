"""The variables of another checkpoint than the graph's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from errors import CheckpointError
from metagraph.opening import find_variables, open_model
from metagraph.session import load_inference_graph

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph saved once, and variables saved twice, in both formats; `w` is the step."""
    folder = tmp_path_factory.mktemp("trained")
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=np.float32(1), use_resource=False)
        savers = v1.train.Saver(), v1.train.Saver(write_version=v1.train.SaverDef.V1)
        session.run(w.initializer)
        savers[0].save(session, f"{folder}/ckpt", 1)
        session.run(w.assign(2))
        savers[0].save(session, f"{folder}/ckpt", 2, write_meta_graph=False)
        session.run(w.assign(3))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(v1.logging, "warning", lambda *_: None)
            savers[1].save(session, f"{folder}/old", write_meta_graph=False)
    return folder


def _w(meta: Path, checkpoint: Path | str) -> Any:
    with load_inference_graph(open_model(str(meta), checkpoint=str(checkpoint)), ["w:0"]) as graph:
        return graph.run()[0].tolist()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ckpt-1", 1.0),
        ("ckpt-2", 2.0),
        ("ckpt-2.index", 2.0),
        ("ckpt-2.data-00000-of-00001", 2.0),
        ("old", 3.0),
    ],
)
def test_a_graph_with_any_variables(trained: Path, name: str, value: float) -> None:
    assert _w(trained / "ckpt-1.meta", trained / name) == value


def test_a_graph_that_was_moved_and_renamed(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "graph.meta").write_bytes((trained / "ckpt-1.meta").read_bytes())
    assert _w(tmp_path / "graph.meta", trained / "ckpt-2") == 2.0


def test_beside_the_working_folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    assert _w(Path("ckpt-1.meta"), "ckpt-2") == 2.0


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def test_a_folder_is_its_newest_checkpoint(tmp_path: Path) -> None:
    _touch(tmp_path, "one/m.index", "m.index")
    assert find_variables(f"{tmp_path}/one") == f"{tmp_path}/one/m"
    _touch(tmp_path, "one/my-model-9.index", "one/my-model-10.index")
    assert find_variables(f"{tmp_path}/one") == f"{tmp_path}/one/my-model-10"
    _touch(tmp_path, "saved/saved_model.pb", "saved/x.index")
    assert find_variables(f"{tmp_path}/saved") == f"{tmp_path}/saved/variables/variables"
    _touch(tmp_path, "m/x")  # A folder called as a checkpoint is.
    assert find_variables(f"{tmp_path}/m") == f"{tmp_path}/m"


def test_a_base_without_a_name(tmp_path: Path) -> None:
    _touch(tmp_path, "empty/.index", "empty/.data-00000-of-00001")
    for path in ("empty/.index", "empty/.data-00000-of-00001", "empty/", "empty"):
        assert find_variables(f"{tmp_path}/{path}") == f"{tmp_path}/empty/"


def test_the_state_file_chooses_among_several(tmp_path: Path) -> None:
    _touch(tmp_path, "a-1.index", "a-2.index")
    with pytest.raises(CheckpointError, match="it holds 2 checkpoints; name one: a-1, a-2"):
        find_variables(str(tmp_path))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/a-2"')
    assert find_variables(str(tmp_path)) == f"{tmp_path}/a-2"


def test_shards_of_the_format_v1(tmp_path: Path) -> None:
    _touch(tmp_path, "m-00000-of-00002", "m-00001-of-00002")
    for name in ("m", "m-00001-of-00002"):
        assert find_variables(f"{tmp_path}/{name}") == f"{tmp_path}/m"


def test_what_is_not_there(tmp_path: Path) -> None:
    _touch(tmp_path, "ckpt-100.index", "ckpt-200.index", "empty/x")
    with pytest.raises(
        CheckpointError,
        match=r"^--ckpt=.*/ckpt-20: there is no .*/ckpt-20\.index; beside it there is "
        r"ckpt-200\.index, ckpt-100\.index$",
    ):
        find_variables(f"{tmp_path}/ckpt-20")
    with pytest.raises(CheckpointError, match="empty: it holds no checkpoint"):
        find_variables(f"{tmp_path}/empty")
    with pytest.raises(CheckpointError, match=r"there is no folder .*/emtpy, there is .*/empty"):
        find_variables(f"{tmp_path}/emtpy/m")
