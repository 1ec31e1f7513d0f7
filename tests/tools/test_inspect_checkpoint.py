"""tools.inspect_checkpoint as a user calls it; the names in a folder; statistics of tensors."""

import math
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

from checkpoints import layout
from checkpoints.folder import newest_of
from tests.checkpoints.index_files import table
from tests.checkpoints.test_stored_tensors import save, save_shards
from tests.prediction import stock
from tests.tools.conftest import Tool, document, refused
from tools.inspecting import Statistics, list_folder, statistics

v1 = tf.compat.v1
NAME = "inspect_checkpoint"
IO = Path("/proc/self/io")
MEGABYTE = 10**6


def _lines(tool: Tool, *arguments: object) -> list[str]:
    """What is printed, with one space wherever there are several."""
    ended = tool(NAME, *arguments)
    assert ended.code == 0, ended.err
    return [" ".join(line.split()) for line in ended.out.splitlines()]


def test_all_of_a_value_is_in_json_and_the_ends_of_a_large_one_in_text(
    tool: Tool, linear_run: Path, tmp_path: Path
) -> None:
    stored = tf.train.load_checkpoint(f"{linear_run}/my-model-300").get_tensor("w")
    (w,) = document(tool, NAME, linear_run, "--tensor=w:0")["values"]
    assert np.array(w["value"], np.float32).tobytes() == stored.tobytes()
    prefix = save(tmp_path / "m", {"x": np.arange(5000, dtype=np.int32)})
    assert document(tool, NAME, prefix, "--tensor=x")["values"][0]["value"] == [*range(5000)]
    assert _lines(tool, prefix, "--tensor=x")[1] == "[ 0 1 2 ... 4997 4998 4999]"


def test_values_that_json_and_terminals_do_not_take(tool: Tool, tmp_path: Path) -> None:
    half = tf.constant([1.5, np.nan, -np.inf], tf.bfloat16)
    text = tf.constant(b"a\x1b[31m\xff\0")
    prefix = save(tmp_path / "m", {"h": half, "t": text, "e\x1b\n": [1.0]})
    h, t = document(tool, NAME, prefix, "--tensor=h,t")["values"]
    assert h["value"] == [1.5, "NaN", "-Infinity"]
    assert t["value"] == "a\x1b[31m\\xff\0"
    for arguments in (["--tensor=t"], []):
        assert "\x1b" not in tool(NAME, prefix, *arguments).out
    assert r"e\u001b\u000a float32 [1] 1 4" in _lines(tool, prefix)
    tensors = document(tool, NAME, prefix, "--stats")["tensors"]
    stats = {tensor["key"]: tensor["stats"] for tensor in tensors}
    assert stats["h"] == {"min": 1.5, "max": 1.5, "mean": 1.5, "std": 0, "nan": 1, "inf": 1}
    assert stats["t"]["min"] is None


def test_a_variable_that_is_saved_under_another_name(tool: Tool, tmp_path: Path) -> None:
    names = dict[str, tf.Variable]()
    with stock.checkpoint(tmp_path / "m", var_list=names):
        names["b"] = v1.get_variable("a", initializer=1.0, use_resource=False)
        names["x"] = v1.get_variable("b", initializer=2.0, use_resource=False)
    found = document(tool, NAME, tmp_path / "m", "--tensor=a,b,x")["values"]
    assert [value["value"] for value in found] == [1.0, 1.0, 2.0]
    assert "b float32 [] 1 4 is the variable a" in _lines(tool, tmp_path / "m")


def test_slices_are_read_as_their_whole(tool: Tool, tmp_path: Path) -> None:
    shards, parts = save_shards(tmp_path / "m"), tmp_path / "n"
    with stock.checkpoint(parts):
        v1.get_variable("w", [4, 3], partitioner=v1.fixed_size_partitioner(2), use_resource=False)
    for prefix in (shards, parts):
        assert "w float32 [4, 3] 12 48 in 2 slices" in _lines(tool, prefix)
    (value,) = document(tool, NAME, shards, "--tensor=w")["values"]
    assert value["value"] == [[1.0] * 3] * 4
    assert "has no tensor 'w/part_1'" in tool(NAME, parts, "--tensor=w/part_1").err


def _roles(tool: Tool, prefix: object) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for tensor in document(tool, NAME, prefix)["tensors"]:
        found.setdefault(tensor["role"], set()).add(tensor["path"])
    return found


def test_roles_by_the_graph(tool: Tool, tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        w = v1.get_variable("w", [3, 2], use_resource=False)
        v1.get_variable("bn/moving_mean", [2], trainable=False, use_resource=False)
        v1.get_variable("is_training", initializer=True, trainable=False, use_resource=False)
        step = v1.train.get_or_create_global_step()
        v1.get_variable("w/ExponentialMovingAverage", [3, 2], trainable=False, use_resource=False)
        v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_sum(w), step)
    assert _roles(tool, tmp_path / "m") == {
        "model": {"w", "bn/moving_mean"},
        "slot": {"w/Momentum"},
        "other": {"is_training", "global_step", "w/ExponentialMovingAverage"},
    }


def test_roles_and_sizes_by_the_names(tool: Tool, tmp_path: Path) -> None:
    """An average alone is the model; nobody knows the size of texts in memory."""
    average = "w/ExponentialMovingAverage"
    values = {"t": tf.constant(["abc", ""]), "x": np.zeros([3, 0, 2]), average: np.zeros(4, "f2")}
    prefix = save(tmp_path / "m", values)
    assert _roles(tool, prefix) == {"model": {average, "x"}, "other": {"t"}}
    sizes = {t["key"]: (t["values"], t["bytes"]) for t in document(tool, NAME, prefix)["tensors"]}
    assert sizes == {"t": (2, None), "x": (0, 0), average: (4, 8)}


@pytest.mark.parametrize("keras", [False, True], ids=["v1", "keras"])
def test_objects_go_by_their_paths(keras: bool, tool: Tool, tmp_path: Path) -> None:
    variable = tf.Variable([1.0, 2.0], name="weights")
    kind = tf.keras.optimizers.SGD if keras else v1.train.MomentumOptimizer
    optimizer = kind(0.1, momentum=0.9)
    optimizer.apply_gradients([(tf.zeros([2]), variable)])
    checkpoint = tf.train.Checkpoint(net={"a/b.c": variable}, optimizer=optimizer)
    prefix = checkpoint.save(str(tmp_path / "c"))
    slots = {"net/a/b.c (optimizer/momentum)"}
    if keras:
        slots = {f"optimizer/{n}" for n in ("_iterations", "_learning_rate", "_variables/2")}
    roles = _roles(tool, prefix)
    (path,) = roles.pop("model")
    assert path == "net/a/b.c" or (keras and path == "optimizer/_trainable_variables/0")
    assert roles == {"slot": slots, "other": {"_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter"}}
    (found,) = document(tool, NAME, prefix, f"--tensor={path}")["values"]
    assert found["value"] == [1.0, 2.0]


def test_a_damaged_graph_is_said_and_done_without(
    tool: Tool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("w", [3], use_resource=False)
    (tmp_path / "m.meta").write_bytes(b"\xff\xff\xff")
    found = document(tool, NAME, tmp_path / "m")
    assert found["graph"] is None
    assert [tensor["key"] for tensor in found["tensors"]] == ["w"]
    assert "read without its graph" in caplog.text


def test_a_saved_model_has_its_graph(tool: Tool, tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [2], name="x")
        y = x * v1.get_variable("scope/w", [2], use_resource=True)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "s"), {"x": x}, {"y": y})
    for path in (tmp_path / "s", tmp_path / "s" / "variables" / "variables"):
        found = document(tool, NAME, path)
        assert found["graph"] == f"{tmp_path}/s/saved_model.pb"
        assert [tensor["variables"] for tensor in found["tensors"]] == [["scope/w"]]


def test_hostile_facts_of_a_manifest(tool: Tool, run: Path) -> None:
    """What JSON has not becomes text; a time that no clock has, its number."""
    hostile = {"rate": math.nan, "more": [math.inf, "a\nb"]}
    _change_manifest(run, 300, saved_at=1e300, config=hostile)
    found = document(tool, NAME, run / "my-model-300")["manifest"]["config"]
    assert found == {"rate": "NaN", "more": ["Infinity", "a\nb"]}
    lines = _lines(tool, run / "my-model-300")
    assert r'config more ["Infinity", "a\nb"], rate NaN' in lines
    assert "step 300, saved 1e+300" in lines
    assert "1e+300" in tool(NAME, run).out


def _change_manifest(run: Path, step: int, **changes: Any) -> None:
    said = layout.read_manifest(str(run), step)
    assert said is not None
    content = layout.encode_manifest(said._replace(**changes))
    (run / f"my-model-{step}.manifest").write_bytes(content)


@pytest.mark.parametrize("name", [".index", ".data-00000-of-00001", ""])
def test_an_empty_name(name: str, tool: Tool, tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"w": [1.0]})
    for suffix in (".index", ".data-00000-of-00001"):
        Path(prefix + suffix).rename(tmp_path / suffix)
    (value,) = document(tool, NAME, f"{tmp_path}/{name}", "--tensor=w")["values"]
    assert value["value"] == [1.0]
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "./"')
    assert _newest_and_named(document(tool, NAME, tmp_path)) == ("", "", True)


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
    read = partial(_bytes_read, tool)
    read(prefix)  # Modules are imported once.
    assert read(prefix) < MEGABYTE
    assert read(str(tmp_path)) < MEGABYTE
    assert 2 * MEGABYTE <= read(prefix, "--tensor=small") < 4 * MEGABYTE
    assert 2 * MEGABYTE <= read(prefix, "--stats", "--filter=small") < 4 * MEGABYTE
    assert read(prefix, "--stats") >= 66 * MEGABYTE


@counts_bytes
def test_what_is_larger_than_memory_is_listed(tool: Tool, tmp_path: Path) -> None:
    """The file of values is one hole, which takes no space on the disk, and no value is read."""
    size = 5000 * MEGABYTE
    entry = BundleEntryProto(dtype=tf.float32.as_datatype_enum, size=size)
    entry.shape.dim.add(size=size // 4)
    entries = {b"": BundleHeaderProto(num_shards=1), b"w": entry}
    index = table({key: message.SerializeToString() for key, message in entries.items()})
    (tmp_path / "m.index").write_bytes(index)
    with open(tmp_path / "m.data-00000-of-00001", "wb") as file:
        file.truncate(size)
    totals = document(tool, NAME, tmp_path / "m")["totals"]["all"]
    assert totals == {"tensors": 1, "values": size // 4, "bytes": size, "disk_bytes": size}
    for path in (f"{tmp_path}/m", str(tmp_path)):
        assert _bytes_read(tool, path) < MEGABYTE


# The list of a folder.


def _states(found: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in found["checkpoints"]}


def _newest_and_named(found: dict[str, Any]) -> tuple[str | None, str | None, bool]:
    state = found["state_file"]
    return found["newest"], state["names"], state["right"]


def test_a_run_of_ours(tool: Tool, linear_run: Path) -> None:
    """Its size and time; the rest is in tests/transcripts."""
    newest = document(tool, NAME, linear_run)["checkpoints"][-1]
    sizes = [path.stat().st_size for path in linear_run.glob("my-model-300.*")]
    assert (newest["bytes"], len(sizes)) == (sum(sizes), 4)
    said = layout.read_manifest(str(linear_run), 300)
    assert said is not None
    assert newest["saved_at"] == said.saved_at


def test_the_best_is_the_earliest_of_equals(tool: Tool, run: Path) -> None:
    for step, accuracy in ((270, 0.5), (280, 0.75), (290, 0.75)):
        _change_manifest(run, step, test_accuracy=accuracy)
    assert document(tool, NAME, run)["best"] == "my-model-280"


def test_strangers(tool: Tool, tmp_path: Path) -> None:
    """Of several runs in a folder, no step is the newest but by the state file."""
    names = ("model--1", "other-100", "run.ckpt-20", "plain")
    for age, name in enumerate(names):
        save(tmp_path / name, {"w": [1.0]})
        os.utime(tmp_path / f"{name}.index", (1e9 + age, 1e9 + age))
    (tmp_path / "lost-5.data-00000-of-00002").write_bytes(b"")
    found = document(tool, NAME, tmp_path)
    assert _states(found) == {**dict.fromkeys(names, "no manifest"), "lost-5": "damaged"}
    steps = {entry["name"]: entry["step"] for entry in found["checkpoints"]}
    assert [steps[name] for name in (*names, "lost-5")] == [1, 100, 20, None, 5]
    assert (found["newest"], found["state_file"]) == ("plain", None)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/run.ckpt-20"')
    assert _newest_and_named(document(tool, NAME, tmp_path)) == ("run.ckpt-20", "run.ckpt-20", True)


@pytest.mark.parametrize(
    ("content", "named", "right"),
    [
        (b"\xff\0", None, False),
        (b'model_checkpoint_path: "gone-1"', "gone-1", False),
        (b'model_checkpoint_path: "m-1"', "m-1", False),
        (b'model_checkpoint_path: "m-2"', "m-2", True),
    ],
)
def test_what_a_state_file_names(
    content: bytes, named: str | None, right: bool, tool: Tool, tmp_path: Path
) -> None:
    save(tmp_path / "m-1", {"w": [1.0]})
    save(tmp_path / "m-2", {"w": [1.0]})
    (tmp_path / "checkpoint").mkdir()
    assert document(tool, NAME, tmp_path)["state_file"] is None
    (tmp_path / "checkpoint").rmdir()
    (tmp_path / "checkpoint").write_bytes(content)
    assert _newest_and_named(document(tool, NAME, tmp_path)) == ("m-2", named, right)


def test_a_checkpoint_that_goes_while_it_is_looked_at(
    tool: Tool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that train delete older ones."""
    read = layout.read_manifest

    def read_late(folder: str, step: int) -> layout.Manifest | None:
        for path in run.glob("my-model-270.*"):
            path.unlink()
        return read(folder, step)

    monkeypatch.setattr(layout, "read_manifest", read_late)
    found = document(tool, NAME, run)
    assert _states(found) == {f"my-model-{step}": "committed" for step in (280, 290, 300)}


def test_third_parties(third_party: Path, tool: Tool) -> None:
    for meta in sorted(third_party.rglob("*.meta")):
        found = document(tool, NAME, meta, "--stats")
        prefix = str(meta).removesuffix(".meta")
        if not v1.train.checkpoint_exists(prefix):  # Shards of the format V1.
            prefix += "-?????-of-00001"
        stored = v1.train.NewCheckpointReader(prefix)
        shapes = stored.get_variable_to_shape_map()
        assert {t["key"]: t["shape"] for t in found["tensors"]} == shapes
        for tensor in found["tensors"]:
            exact = stored.get_tensor(tensor["key"])
            assert (tensor["stats"]["max"], tensor["bytes"]) == (exact.max(), exact.nbytes)
        listed = document(tool, NAME, meta.parent)
        assert [entry["problem"] for entry in listed["checkpoints"]] == [None]
        assert f"{meta.parent}/{listed['newest']}.meta" == str(meta)


# What is told from the names in a folder: checkpoints and their order.


DATA = ".data-00000-of-00001"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["m.index", f"m{DATA}", "m.meta"], ["m"]),
        (["m.index"], ["m"]),
        ([f"m{DATA}"], ["m"]),
        (["m", "m.meta"], ["m"]),
        (["m-00000-of-00002", "m-00001-of-00002", "m.meta"], ["m-?????-of-00002"]),
        (["rows-00000-of-00002", "rows-00001-of-00002"], []),
        (["m.meta", "m/"], []),
        (["m.manifest", "my-model-7.meta", "my-model-8.manifest.tmp"], []),
        (["my-model-7.manifest"], ["my-model-7"]),
        (["my-model-7.manifest.tmp", "my-model-7.index", f"my-model-7{DATA}"], []),
        ([f"my-model-7{DATA}", "my-model-7.meta"], ["my-model-7"]),
        ([".index", DATA, ".meta"], ["./"]),
        (["readme.md", "checkpoint", "checkpoint.tmp", ".lock", "events.out.tfevents.1"], []),
    ],
)
def test_what_counts_as_a_checkpoint(names: list[str], found: list[str], tmp_path: Path) -> None:
    """By the name that a state file calls it."""
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    assert [entry.state_name for entry in list_folder(str(tmp_path))] == found


AB, OURS = ["a-20", "b-9", "a-9"], ["my-model-30", "my-model-4", "b"]


@pytest.mark.parametrize(
    ("written", "seconds", "ordered", "named", "newest"),
    [
        (["a-20", "a-100", "a-9"], 1, "a-9 a-20 a-100", "a-9", "a-100"),
        (["a-20", "a-100", "a-9"], 0, "a-9 a-20 a-100", None, "a-100"),
        (["a-20", "a-9", "a"], 1, "a-9 a-20 a", None, "a"),
        (["a-20", "a-9", "a"], 0.4, "a-9 a-20 a", None, "a-20 a"),
        (AB, 1, "b-9 a-9 a-20", "b-9", "b-9"),
        (AB, 1, "b-9 a-9 a-20", "a-9", "a-20"),
        (AB, 1, "b-9 a-9 a-20", "gone", "a-20"),
        (AB, 1, "b-9 a-9 a-20", None, "a-20"),
        (AB, 0.9, "b-9 a-9 a-20", None, "b-9 a-20"),
        (["a", "b", "c-2", "c-10"], 0.6, "a b c-2 c-10", None, "c-10"),
        (["cnn.v1.0-acc0.92-200", "cnn.v1.0-acc0.92-30"], 1, "", None, "cnn.v1.0-acc0.92-200"),
        (OURS, 1, "b my-model-4 my-model-30", "b", "my-model-30"),
        (OURS, 0, "b my-model-4 my-model-30", None, "my-model-30"),
        ([], 0, "", "a", ""),
    ],
)
def test_the_order_and_the_newest(
    written: list[str], seconds: float, ordered: str, named: str | None, newest: str, tmp_path: Path
) -> None:
    """Within a run the step decides; among runs the state file, then time that is no copy's."""
    for age, name in enumerate(written):
        (tmp_path / f"{name}.index").touch()
        os.utime(tmp_path / f"{name}.index", (1e9 + age * seconds, 1e9 + age * seconds))
    if named is not None:
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "/gone/{named}"')
    found = [entry.name for entry in list_folder(str(tmp_path))]
    assert found == (ordered.split() or sorted(written, reverse=True))
    assert newest_of(str(tmp_path), found) == newest.split()


def test_runs_that_tie_are_named_by_every_command(tool: Tool, tmp_path: Path) -> None:
    for name in ("best", "m-9", "m-10"):
        with stock.checkpoint(tmp_path / name):
            v1.get_variable("w", initializer=[1.0], use_resource=False)
    (tmp_path / "checkpoint").unlink()
    for path in tmp_path.iterdir():
        os.utime(path, (1e9, 1e9))
    found = document(tool, NAME, tmp_path)
    assert (found["newest"], found["may_be_newest"]) == (None, ["best", "m-10"])
    for command in (
        [NAME, tmp_path, "--tensor=w"],
        ["diff", tmp_path, tmp_path],
        ["edit", tmp_path, f"--output={tmp_path}/out"],
        ["freeze", tmp_path, f"--output={tmp_path}/out.pb"],
        ["export", tmp_path, "--to=npz", f"--output={tmp_path}/out.npz"],
        ["report", tmp_path, f"--output={tmp_path}/out.html"],
    ):
        line = refused(tool, *command)
        assert re.search(r"name one: best(\.meta)?, m-10", line), line
    assert (
        "nothing tells which is the newest, best, m-10" in tool("verify", tmp_path, "--repair").out
    )


def test_what_a_mac_and_a_browser_leave_is_no_checkpoint(
    tool: Tool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A copy is said; who names it gets it."""
    caplog.set_level("INFO", logger="absl")
    with stock.checkpoint(tmp_path / "m-10"):
        v1.get_variable("w", initializer=[1.0], use_resource=False)
    marks = ["{} (1).{}", "{}(2).{}", "{} - Copy.{}", "{} copy 2.{}", "Copy of {}.{}", "{}.{} (1)"]
    marks += [
        "{}.sync-conflict-20200101-101010-ABCDEFG.{}",
        "{} (my conflicted copy 2020-01-01).{}",
    ]
    for suffix in ("index", DATA[1:], "meta"):
        (tmp_path / f"._m-10.{suffix}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
        for mark in marks:
            copied = tmp_path / mark.format("m-10", suffix)
            shutil.copyfile(tmp_path / f"m-10.{suffix}", copied)
    assert list(_states(document(tool, NAME, tmp_path))) == ["m-10"]
    assert "as copies: Copy of m-10.data-00000-of-00001, Copy of m-10.index" in caplog.text
    assert tool("verify", tmp_path).code == 0
    assert tool("diff", tmp_path, tmp_path / "m-10").code == 0
    assert document(tool, NAME, tmp_path / "m-10 (1).index")["tensors"][0]["key"] == "w"
    (tmp_path / "m-10.index").unlink()  # Without what it is a copy of, it is none.
    assert "m-10 (1)" in _states(document(tool, NAME, tmp_path))


# The statistics of a tensor, against NumPy's own in as many bits as it has.


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint16", "int64", "bool", "bfloat16"]
)
@pytest.mark.parametrize("size", [1, 1000, 200_003])  # Of one block, and of more.
def test_as_numpy_says(dtype: str, size: int) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(3, 10, size) * 4).clip(0, 100)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    array: npt.NDArray[Any] = values.astype(kind).reshape(1, -1, 1)
    found, exact = statistics(array), array.astype(np.longdouble)
    assert (found.min, found.max) == (exact.min(), exact.max())
    assert found.mean == pytest.approx(float(exact.mean()), rel=1e-14)
    assert found.std == pytest.approx(float(exact.std()), rel=1e-12)
    assert (found.nan, found.inf) == (0, 0)


def test_nan_and_infinities_are_counted_and_left_out() -> None:
    array = np.arange(100_000, dtype=np.float32)
    array[[5, 70_000]] = np.nan
    array[[6, 7, 99_999]] = [np.inf, -np.inf, np.inf]
    finite = array[np.isfinite(array)].astype(np.float64)
    found = statistics(array)
    assert (found.nan, found.inf) == (2, 3)
    assert (found.min, found.max) == (0, 99_998)
    assert found.mean == pytest.approx(finite.mean(), rel=1e-14)
    assert found.std == pytest.approx(finite.std(), rel=1e-12)


def test_a_large_mean_costs_no_digits() -> None:
    """The sum of squares less the square of the sum would give 0 or worse."""
    array = 1e9 + np.tile([0.0, 1.0], 100_000)
    assert statistics(array).std == pytest.approx(0.5, rel=1e-12)


def test_whole_numbers_are_exact() -> None:
    found = statistics(np.array([2**63, 2**64 - 1], np.uint64))
    assert (found.min, found.max) == (2**63, 2**64 - 1)
    assert math.isclose(found.mean or 0, 1.5 * 2**63)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros([0, 3]), Statistics()),
        (np.array(np.nan), Statistics(nan=1)),
        (np.array([b"a", b""], object), Statistics()),
        (np.array([1j, complex(np.nan, np.inf), np.nan]), Statistics(nan=1, inf=1)),
        (np.array(True), Statistics(1, 1, 1.0, 0.0)),
        (np.array([-1.5e308, 1.5e308]), Statistics(-1.5e308, 1.5e308, 0.0, None)),
    ],
    ids=["empty", "nan", "texts", "complex", "flag", "beyond float64"],
)
def test_where_there_is_none(array: npt.NDArray[Any], expected: Statistics) -> None:
    found = statistics(array)
    assert found == expected
    assert type(found.max) is type(expected.max)
