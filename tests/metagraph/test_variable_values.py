"""Reading variables from the checkpoints that stock Savers write, whole and broken."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import CheckpointReader
from errors import CheckpointError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.variables import Variable, read_values
from tests.prediction import stock

v1 = tf.compat.v1

VALUES: dict[str, npt.NDArray[Any]] = {
    "layer/w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(7, np.int64),
}
VARIABLES = [Variable(k, tf.as_dtype(v.dtype), tf.TensorShape(v.shape)) for k, v in VALUES.items()]


def _meta(prefix: Path | str) -> MetaGraphFile:
    """A file at `prefix` whose graph has the nodes and no saver."""
    names = [variable.name for variable in VARIABLES] + [f"n{i}" for i in range(12)]
    proto = MetaGraphDef()
    for name in names:
        proto.graph_def.node.add(name=name, op="VariableV2")
    return MetaGraphFile(f"{prefix}.meta", str(prefix), proto)


def _save(prefix: Path, **options: object) -> None:
    with stock.checkpoint(prefix, **options):
        for name, value in VALUES.items():
            v1.get_variable(name, initializer=value, use_resource=False)
        v1.get_variable("not/asked/for", [3], use_resource=False)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    _save(tmp_path / "m-7")
    return tmp_path / "m-7"


def _assert_read(prefix: Path | str) -> None:
    found = read_values(_meta(prefix), VARIABLES)
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert found[name].dtype == value.dtype
        assert found[name].tobytes() == value.tobytes()


def test_a_shape_that_is_not_known_takes_any(prefix: Path) -> None:
    variable = Variable("layer/w", tf.float32, tf.TensorShape(None))
    assert read_values(_meta(prefix), [variable])["layer/w"].shape == (2, 3)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the old format.
def test_the_format_of_2016_is_read(tmp_path: Path, sharded: bool) -> None:
    version = tf.compat.v1.train.SaverDef.V1
    _save(tmp_path / "m", write_version=version, sharded=sharded)
    assert not list(tmp_path.glob("*.index"))
    _assert_read(tmp_path / "m")


def test_the_state_file_and_folders_of_its_name_are_not_looked_at(prefix: Path) -> None:
    prefix.mkdir()  # tf.train.load_checkpoint would follow a state file in it.
    (prefix / "checkpoint").write_text('model_checkpoint_path: "other"\n')
    (prefix.parent / "checkpoint").write_text('model_checkpoint_path: "C:\\\\gone\\\\m-9"\n')
    _assert_read(prefix)


def test_a_file_at_the_bare_prefix_is_not_taken_for_the_old_format(prefix: Path) -> None:
    prefix.write_bytes(b"\x80\x04 a pickle")
    _assert_read(prefix)


def _refused(prefix: Path, variables: list[Variable], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_values(_meta(prefix), variables)
    assert "\n" not in str(caught.value)


def test_a_missing_shard_is_named(prefix: Path) -> None:
    data = Path(f"{prefix}.data-00000-of-00001")
    data.rename(f"{prefix}.data-00000-of-00002")
    _refused(prefix, VARIABLES, "lacks shard 00001 of its 2 data files")


def test_missing_files_are_named(tmp_path: Path) -> None:
    _refused(tmp_path / "m", VARIABLES, r"expected .*/m\.index and .*/m\.data-00000-of-00001")


def test_missing_variables_are_named(prefix: Path) -> None:
    missing = [Variable(f"n{i}", tf.float32, tf.TensorShape([])) for i in range(12)]
    _refused(prefix, [*VARIABLES, *missing], r"lacks 12 of the 14 .*: n0, n1, .*, n9 and 2 more$")


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (
            Variable("layer/w", tf.float32, tf.TensorShape([3, 2])),
            r"float32 \[2, 3\], the graph has float32 \[3, 2\]",
        ),
        (Variable("layer/w", tf.float32, tf.TensorShape([2])), r"layer/w is float32 \[2, 3\]"),
        (Variable("layer/w", tf.float32, tf.TensorShape([None, 4])), r"has float32 \[\?, 4\]"),
        (Variable("step", tf.int32, tf.TensorShape(None)), "has int32 of any shape"),
        (
            Variable("step", tf.int32, tf.TensorShape([])),
            r"step is int64 \[\], the graph has int32 \[\]",
        ),
    ],
)
def test_another_shape_or_dtype_is_refused(prefix: Path, variable: Variable, message: str) -> None:
    _refused(prefix, [variable], f"does not fit its graph: .*{message}")


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_damage_is_told(prefix: Path, suffix: str, how: str) -> None:
    path = Path(f"{prefix}.{suffix}")
    content = bytearray(path.read_bytes())
    content[8] ^= 0x10
    path.write_bytes(content[: len(content) // 2] if how == "cut" else content)
    _refused(prefix, VARIABLES, "m-7 is damaged")


def _save_sliced(prefix: Path, full_shape: str, parts: int) -> None:
    """A tensor `w` of float32, of which each part holds one element."""
    with tf.Graph().as_default(), v1.Session() as session:
        save = tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=["w"] * parts,
            shape_and_slices=[f"{full_shape} {i},1:0,1" for i in range(parts)],
            tensors=[tf.constant([[float(i)]]) for i in range(parts)],
        )
        session.run(save)


def test_a_shape_that_the_files_are_too_small_for_takes_no_memory(tmp_path: Path) -> None:
    _save_sliced(tmp_path / "m", "1000000 1000000", 2)
    variable = Variable("w", tf.float32, tf.TensorShape(None))
    proto = MetaGraphDef()
    proto.graph_def.node.add(name="w", op="VariableV2")
    meta = MetaGraphFile("m.meta", str(tmp_path / "m"), proto)
    with pytest.raises(CheckpointError, match=r"smaller than the values .* w float32 \[1000000, "):
        read_values(meta, [variable])


def test_a_tensor_of_many_parts_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable(
            "w",
            [10, 2],
            initializer=v1.random_normal_initializer(),
            partitioner=v1.fixed_size_partitioner(10),
            use_resource=False,
        )
        saver = v1.train.Saver()
        session.run(v1.global_variables_initializer())
        saver.save(session, str(tmp_path / "m"))
    keys: list[str] = []
    read = CheckpointReader.read

    def counted(self: CheckpointReader, key: str) -> npt.NDArray[Any]:
        keys.append(key)
        return read(self, key)

    monkeypatch.setattr(CheckpointReader, "read", counted)
    names = [f"w/part_{i}" for i in range(10)]
    variables = [Variable(name, tf.float32, tf.TensorShape([1, 2])) for name in names]
    values = read_values(read_meta_graph(str(tmp_path / "m.meta")), variables)
    assert keys == ["w"]
    assert all(value.base is None for value in values.values())  # None keeps all of `w` alive.
