"""The tools that read files: without TensorFlow's runtime, and where it is not installed at all."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format
from packaging.requirements import Requirement
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tests.conftest import PROJECT, run_python

v1 = tf.compat.v1
PROGRAM = "tf-graph-trainer"
PROTO_PARTS = "--part=info,collections,signatures,functions,safety"


def _commands(run: Path, to: Path) -> dict[str, list[str]]:
    """What each tool is asked, by its name."""
    newest = f"{run}/my-model-200"
    return {
        "list": ["inspect_checkpoint", str(run)],
        "tensors": ["inspect_checkpoint", newest],
        "stats": ["inspect_checkpoint", newest, "--stats", "--tensor=conv1/b,global_step"],
        "verify": ["verify", str(run)],
        "diff": ["diff", f"{run}/my-model-190", newest],
        "edit": ["edit", newest, f"--output={to}/half", "--without_slots", "--cast=bfloat16"],
        "graph": ["inspect_graph", f"{newest}.meta", PROTO_PARTS],
    }


@pytest.fixture(scope="module")
def expected(cnn_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command prints where TensorFlow is installed, which its runtime has no part in."""
    to = tmp_path_factory.mktemp("expected")
    found = {}
    for name, command in _commands(cnn_run, to).items():
        ended = run_python("-X", "importtime", "-m", f"tools.{command[0]}", *command[1:])
        assert ended.returncode == (name == "diff"), ended.stderr[-500:]
        loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
        assert "checkpoints.bundle" in loaded
        assert not [module for module in loaded if module.startswith("tensorflow.python")]
        found[name] = ended.stdout.replace(str(to), "TO")
    reader = v1.train.NewCheckpointReader(f"{to}/half")
    assert reader.get_tensor("conv1/b").dtype == tf.bfloat16.as_numpy_dtype
    return found


def test_a_part_of_a_graph_that_takes_tensorflow_loads_it(cnn_run: Path) -> None:
    ended = run_python(
        *("-X", "importtime", "-m", "tools.inspect_graph", f"{cnn_run}/my-model-200.meta"),
        *("--part=cost", "--format=json"),
        check=True,
    )
    assert "tensorflow.python" in ended.stderr
    assert '"flops"' in ended.stdout


def test_the_true_tensorflow_takes_the_protos_that_came_before_it(cnn_run: Path) -> None:
    """In a process of its own: whoever asks for more than a proto has it, Keras as well."""
    code = f"""
        import sys
        from cli.terminal import postpone_tensorflow
        postpone_tensorflow()
        import tensorflow as tf
        from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
        from checkpoints.reader import CheckpointReader
        meta = MetaGraphDef.FromString(open(r"{cnn_run}/my-model-200.meta", "rb").read())
        assert CheckpointReader(r"{cnn_run}/my-model-200").read("conv1/b").shape == (32,)
        assert not [name for name in sys.modules if name.startswith("tensorflow.python")]
        bare = tf
        postpone_tensorflow()
        assert tf.__version__ == bare.__version__ and "tensorflow.python" in sys.modules
        import tensorflow as tf
        assert tf is not bare and tf.constant is bare.constant
        assert isinstance(meta, tf.compat.v1.MetaGraphDef)
        with tf.Graph().as_default() as graph:
            tf.compat.v1.import_graph_def(meta.graph_def, name="")
            assert graph.get_tensor_by_name("conv1/w:0") is not None
        import tensorflow.core.framework.graph_pb2
        assert tensorflow.core.framework.graph_pb2.GraphDef is type(meta.graph_def)
        assert tf.keras.Sequential
    """
    run_python("-c", textwrap.dedent(code), check=True)


# An installed package, in an environment that has what it asks for and nothing else.


def _needed(asked: Iterator[str]) -> set[str]:
    """The packages that requirements name, and those that these need, by name."""
    found = set[str]()
    left = [*asked]
    while left:
        requirement = Requirement(left.pop())
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name not in found:
            found.add(requirement.name)
            left += importlib.metadata.requires(requirement.name) or ()
    return found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed program; the packages that it needs are links to those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns(".*", "tests", "docs", "benchmarks", "__pycache__")
    source = shutil.copytree(PROJECT, folder / "source", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(source)]
    subprocess.run([*pip, *build], check=True, capture_output=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=600
    )
    python = folder / "venv" / "bin" / "python"
    install = ["--python", str(python), "install", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([*pip, *install], check=True, capture_output=True, timeout=600)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (installed,) = importlib.metadata.distributions(name=PROGRAM, path=[str(site)])
    needed = _needed(iter(installed.requires or ()))
    assert "tensorflow" not in needed
    for name in needed:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            target = site / file.parts[0]
            if file.parts[0] != ".." and not target.exists():
                target.symlink_to(Path(str(distribution.locate_file(file.parts[0]))))
    return python.with_name(PROGRAM)


def _ask(program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=600, env=alone, check=False
    )


def test_every_command_says_the_same_where_tensorflow_is_not_installed(
    program: Path, cnn_run: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    python = program.with_name("python")
    missing = subprocess.run([python, "-c", "import tensorflow"], capture_output=True, check=False)
    assert b"No module named 'tensorflow'" in missing.stderr
    for name, command in _commands(cnn_run, tmp_path).items():
        ended = _ask(program, *command)
        assert (name, ended.stdout.replace(str(tmp_path), "TO")) == (name, expected[name])
        assert ended.returncode == (name == "diff"), ended.stderr


def test_the_help_and_the_list_name_the_installed_program(program: Path) -> None:
    listed = _ask(program)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert re.search(rf"{PROGRAM} <name>.*\n\n  inspect_checkpoint  Shows", listed.stdout)
    told = _ask(program, "verify", "--help").stdout
    assert f"usage: {PROGRAM} verify CKPT" in told
    assert "python" not in told
    assert f"usage: {PROGRAM} predict" in _ask(program, "predict", "--help").stdout
    assert _ask(program, "no_such_tool").returncode == 2


@pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.
def test_what_takes_tensorflow_says_so(program: Path, cnn_run: Path, tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", [2], use_resource=False)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1)
        saver.save(session, f"{tmp_path}/old", write_meta_graph=False)
    newest = f"{cnn_run}/my-model-200"
    for arguments, told in (
        (["inspect_checkpoint", "gs://bucket/model"], r"gs://bucket/model is on no local disk"),
        (["inspect_checkpoint", f"{tmp_path}/old"], r"old is of the format V1, .* only TensorFlow"),
        (["verify", newest, "--deep"], "TensorFlow cannot be imported"),
        (["inspect_graph", f"{newest}.meta", "--part=cost"], "this needs TensorFlow"),
        (["edit", f"--meta={newest}", f"--output={tmp_path}/new"], "TensorFlow"),
        (["predict", f"--meta={newest}.meta"], "TensorFlow cannot be imported"),
    ):
        ended = _ask(program, *arguments)
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert re.search(told, line), line


def test_of_a_saved_model_and_a_text(program: Path, cnn_run: Path, tmp_path: Path) -> None:
    """TensorBoard's protos lack the first; the second names fields."""
    meta = MetaGraphDef.FromString(Path(f"{cnn_run}/my-model-200.meta").read_bytes())
    meta.meta_info_def.tags.append("serve")
    saved = SavedModel(saved_model_schema_version=1, meta_graphs=[meta])
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    (tmp_path / "graph.pbtxt").write_text(text_format.MessageToString(meta))
    for path in (tmp_path, tmp_path / "graph.pbtxt"):
        ended = _ask(program, "inspect_graph", str(path), "--part=signatures")
        assert "input x = x:0  float32 [?, 32, 32, 3]" in ended.stdout, ended


def test_of_a_graph_all_that_the_file_tells(program: Path, cnn_run: Path) -> None:
    ended = _ask(program, "inspect_graph", f"{cnn_run}/my-model-200.meta")
    assert ended.returncode == 0, ended.stderr
    assert "x:0  unknown here" in ended.stdout
    assert "serving_default" in ended.stdout
    assert re.search("warning: without the part cost: .*pip install tensorflow", ended.stderr)
