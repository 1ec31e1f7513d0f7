"""tools.inspect_checkpoint as a user calls it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

from tests.checkpoints.index_files import table
from tests.checkpoints.test_stored_tensors import save, save_shards
from tests.prediction import stock
from tests.test_thirdparty import THIRD_PARTY
from tests.tools.conftest import Tool

v1 = tf.compat.v1


NAME = "inspect_checkpoint"


IO = Path("/proc/self/io")


MEGABYTE = 10**6


def _json(tool: Tool, *arguments: object) -> dict[str, Any]:
    ended = tool(NAME, *arguments, "--format=json")
    assert ended.code == 0, ended.err
    document: dict[str, Any] = json.loads(ended.out)
    return document


def _lines(tool: Tool, *arguments: object) -> list[str]:
    """What is printed, with one space wherever there are several."""
    ended = tool(NAME, *arguments)
    assert ended.code == 0, ended.err
    return [" ".join(line.split()) for line in ended.out.splitlines()]


@pytest.mark.parametrize("suffix", ["", ".meta", ".index", ".data-00000-of-00001", ".manifest"])
def test_a_checkpoint(suffix: str, tool: Tool, cnn_run: Path) -> None:
    document = _json(tool, f"{cnn_run}/my-model-200{suffix}")
    stored = tf.train.load_checkpoint(f"{cnn_run}/my-model-200")
    shapes = stored.get_variable_to_shape_map()
    assert {t["key"]: t["shape"] for t in document["tensors"]} == shapes
    totals = document["totals"]
    # 3*3*3*32 + 32, 3*3*32*64 + 64, 1024*128 + 128, 128*4 + 4
    assert totals["model"] == {
        "tensors": 8,
        "values": 151_108,
        "bytes": 604_432,
        "disk_bytes": 604_432,
    }
    assert totals["slot"]["values"] == 2 * 151_108 + 2
    assert totals["other"]["tensors"] == 1
    (file,) = document["files"]
    assert totals["all"]["disk_bytes"] == file["bytes"]
    assert document["manifest"]["step"] == 200
    assert document["manifest"]["config"]["model"] == "cnn"


def test_values(tool: Tool, linear_run: Path) -> None:
    stored = tf.train.load_checkpoint(f"{linear_run}/my-model-300")
    document = _json(tool, linear_run, "--tensor=w:0,global_step")
    w, step = document["values"]
    assert w["name"] == "w:0"
    assert (w["key"], w["dtype"], w["shape"]) == ("w", "float32", [1])
    assert np.array(w["value"], np.float32).tobytes() == stored.get_tensor("w").tobytes()
    assert step["value"] == 300
    lines = _lines(tool, linear_run, "--tensor=global_step")
    assert lines == ["global_step int64 []", "300"]


def test_all_of_a_large_value_only_in_json(tool: Tool, tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"x": np.arange(5000, dtype=np.int32)})
    assert _json(tool, prefix, "--tensor=x")["values"][0]["value"] == [*range(5000)]
    assert _lines(tool, prefix, "--tensor=x")[1] == "[ 0 1 2 ... 4997 4998 4999]"


def test_values_that_json_and_terminals_do_not_take(tool: Tool, tmp_path: Path) -> None:
    half = tf.constant([1.5, np.nan, -np.inf], tf.bfloat16)
    text = tf.constant(b"a\x1b[31m\xff\0")
    prefix = save(tmp_path / "m", {"h": half, "t": text, "e\x1b\n": [1.0]})
    h, t = _json(tool, prefix, "--tensor=h,t")["values"]
    assert h["value"] == [1.5, "NaN", "-Infinity"]
    assert t["value"] == "a\x1b[31m\\xff\0"
    for arguments in (["--tensor=t"], []):
        out = tool(NAME, prefix, *arguments).out
        assert "\x1b" not in out
    assert r"e\u001b\u000a float32 [1] 1 4" in _lines(tool, prefix)
    stats = {tensor["key"]: tensor["stats"] for tensor in _json(tool, prefix, "--stats")["tensors"]}
    assert stats["h"] == {"min": 1.5, "max": 1.5, "mean": 1.5, "std": 0, "nan": 1, "inf": 1}
    assert stats["t"]["min"] is None


def test_shards_and_slices(tool: Tool, tmp_path: Path) -> None:
    prefix = save_shards(tmp_path / "m")
    tensors = {tensor["key"]: tensor for tensor in _json(tool, prefix)["tensors"]}
    assert tensors["w"]["slices"] == 2
    assert tensors["w"]["files"] == [f"m.data-0000{n}-of-00002" for n in (0, 1)]
    note = "in 2 slices; in data-00000-of-00002, data-00001-of-00002"
    assert f"w float32 [4, 3] 12 48 {note}" in _lines(tool, prefix)
    (value,) = _json(tool, prefix, "--tensor=w")["values"]
    assert value["value"] == [[1.0] * 3] * 4


def test_a_part_by_its_variable(tool: Tool, tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        splits = v1.fixed_size_partitioner(2)
        v1.get_variable("w", [4, 3], partitioner=splits, use_resource=False)
    (part,) = _json(tool, tmp_path / "m", "--tensor=w/part_1:0")["values"]
    stored = tf.train.load_checkpoint(str(tmp_path / "m")).get_tensor("w")
    assert part["value"] == stored[2:].tolist()
    assert (part["key"], part["variable"]) == ("w", "w/part_1")


def test_a_variable_that_is_saved_under_another_name(tool: Tool, tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        a = v1.get_variable("a", initializer=1.0, use_resource=False)
        b = v1.get_variable("b", initializer=2.0, use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver({"b": a, "x": b}).save(session, str(tmp_path / "m"))
    found = _json(tool, tmp_path / "m", "--tensor=a,b,x")["values"]
    assert [value["value"] for value in found] == [1.0, 1.0, 2.0]
    assert "b float32 [] 1 4 is the variable a" in _lines(tool, tmp_path / "m")


@pytest.mark.parametrize("name", [".index", ".data-00000-of-00001", ""])
def test_an_empty_name(name: str, tool: Tool, tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"w": [1.0]})
    for suffix in (".index", ".data-00000-of-00001"):
        Path(prefix + suffix).rename(tmp_path / suffix)
    (value,) = _json(tool, f"{tmp_path}/{name}", "--tensor=w")["values"]
    assert value["value"] == [1.0]


def test_objects_by_path_and_by_name(tool: Tool, tmp_path: Path) -> None:
    variable = tf.Variable([1.0, 2.0], name="weights")
    prefix = tf.train.Checkpoint(net={"a/b": variable}).save(str(tmp_path / "c"))
    found = _json(tool, prefix, "--tensor=net/a/b,weights")["values"]
    assert [value["value"] for value in found] == [[1.0, 2.0]] * 2


def _bytes_read(tool: Tool, *arguments: str) -> int:
    before = int(re.findall(r"rchar: (\d+)", IO.read_text())[0])
    assert tool(NAME, *arguments).code == 0
    return int(re.findall(r"rchar: (\d+)", IO.read_text())[0]) - before


counts_bytes = pytest.mark.skipif(
    not IO.exists(), reason="needs /proc/self/io, which counts bytes read"
)


@counts_bytes
def test_only_what_is_needed_is_read(tool: Tool, tmp_path: Path) -> None:
    sizes = {"big": 64 * MEGABYTE, "small": 2 * MEGABYTE}
    prefix = save(tmp_path / "m", {name: np.zeros(size, np.uint8) for name, size in sizes.items()})

    def read(*arguments: str) -> int:
        return _bytes_read(tool, *arguments)

    read(prefix)  # Modules are imported once.
    assert read(prefix) < MEGABYTE
    assert read(str(tmp_path)) < MEGABYTE
    assert 2 * MEGABYTE <= read(prefix, "--tensor=small") < 4 * MEGABYTE
    assert 2 * MEGABYTE <= read(prefix, "--stats", "--filter=small") < 4 * MEGABYTE
    assert read(prefix, "--stats") >= 66 * MEGABYTE


@counts_bytes
def test_what_is_larger_than_memory_is_listed(tool: Tool, tmp_path: Path) -> None:
    """The file of values is one hole, which takes no space on the disk."""
    size = 5000 * MEGABYTE
    entry = BundleEntryProto(dtype=tf.float32.as_datatype_enum, size=size)
    entry.shape.dim.add(size=size // 4)
    entries = {b"": BundleHeaderProto(num_shards=1), b"w": entry}
    index = table({key: message.SerializeToString() for key, message in entries.items()})
    (tmp_path / "m.index").write_bytes(index)
    with open(tmp_path / "m.data-00000-of-00001", "wb") as file:
        file.truncate(size)
    totals = _json(tool, tmp_path / "m")["totals"]["all"]
    assert totals == {"tensors": 1, "values": size // 4, "bytes": size, "disk_bytes": size}
    for path in (f"{tmp_path}/m", str(tmp_path)):
        assert _bytes_read(tool, path) < MEGABYTE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{run}", "--tensor=ww"], r"has no tensor 'ww'; the nearest are w"),
        (["{run}", "--tensor=w:1"], r"has no tensor 'w:1'"),
        (["{run}", "--filter=zzz"], r"--filter=zzz matches none of the 3 tensors of"),
        (["{run}/my-model-310"], r"there is no .*my-model-310\.index; beside it there is"),
        (["{tmp}/nothing"], r"there is no .*nothing\.index"),
        (["{tmp}"], r"it holds no checkpoint"),
        (["{tmp}/text.index"], r"text"),
        (["{tmp}/lost.index"], r"its data file .*lost\.data-00000-of-00001 is missing"),
        (["{tmp}/short.index"], r"has 3 bytes, its index speaks of 4"),
        (["{tmp}/lfs.index"], r"a Git LFS pointer"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], expected: str, tool: Tool, linear_run: Path, tmp_path: Path
) -> None:
    if "{tmp}" not in arguments:
        _damaged(tmp_path)
    places = {"run": linear_run, "tmp": tmp_path}
    ended = tool(NAME, *(argument.format(**places) for argument in arguments))
    assert (ended.code, ended.out) == (1, "")
    assert re.search(expected, ended.err)
    assert "\n" not in ended.err


def _damaged(folder: Path) -> None:
    for name in ("lost", "short", "lfs", "text"):
        save(folder / name, {"w": np.float32(1)})
    (folder / "lost.data-00000-of-00001").unlink()
    (folder / "short.data-00000-of-00001").write_bytes(b"abc")
    (folder / "lfs.data-00000-of-00001").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    (folder / "text.index").write_text("hello")


def test_a_damaged_value_is_one_line(tool: Tool, tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"w": np.float32(1)})
    Path(f"{prefix}.data-00000-of-00001").write_bytes(b"abcd")
    assert tool(NAME, prefix).code == 0  # No value is read.
    for arguments in (["--stats"], ["--tensor=w"]):
        ended = tool(NAME, prefix, *arguments)
        assert (ended.code, ended.out) == (1, "")
        assert "m is damaged" in ended.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "missing: --ckpt"),
        (["model", "--filter=("], "regular expression"),
        (["model", "--tensor=a", "--filter=b"], "give one of them"),
        (["model", "--tensor=a,,b"], "must be names"),
        (["model", "other"], "unexpected argument"),
    ],
)
def test_usage(arguments: list[str], expected: str, tool: Tool) -> None:
    ended = tool(NAME, *arguments)
    assert ended.code == 2
    assert expected in ended.err


def test_a_folder_of_which_nothing_is_whole(tool: Tool, linear_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(linear_run, tmp_path / "model"))
    for path in folder.glob("*.manifest"):
        path.write_text("{}")
    lines = _lines(tool, folder)
    assert lines[2].endswith("damaged, my-model-270.manifest is damaged: 'sha256'")
    assert "the newest is" not in lines[-1]
    ended = tool(NAME, folder, "--stats")
    assert (ended.code, ended.err) == (1, f"--ckpt={folder}: none of its checkpoints is whole")


def _third_parties() -> list[Path]:
    return sorted(THIRD_PARTY.rglob("*.meta")) or [Path("absent")]


@pytest.mark.parametrize("meta", _third_parties(), ids=lambda path: "-".join(path.parts[-4:]))
def test_third_parties(meta: Path, tool: Tool) -> None:
    if not THIRD_PARTY.is_dir():
        pytest.skip("needs the checkpoints of public projects at ../shared/thirdparty")
    document = _json(tool, meta, "--stats")
    prefix = str(meta).removesuffix(".meta")
    if not v1.train.checkpoint_exists(prefix):  # Shards of the format V1.
        prefix += "-?????-of-00001"
    stored = v1.train.NewCheckpointReader(prefix)
    assert {t["key"]: t["shape"] for t in document["tensors"]} == (
        stored.get_variable_to_shape_map()
    )
    for tensor in document["tensors"]:
        exact = stored.get_tensor(tensor["key"])
        assert tensor["stats"]["max"] == exact.max()
        assert tensor["bytes"] == exact.nbytes
    listed = _json(tool, meta.parent)
    assert [entry["problem"] for entry in listed["checkpoints"]] == [None]
    assert f"{meta.parent}/{listed['newest']}" == str(meta).removesuffix(".meta")
