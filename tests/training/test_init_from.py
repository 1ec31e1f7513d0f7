"""A run that begins with the values of another checkpoint, by name."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import train_linear
from checkpoints.bundle import VariableSpec
from cli.fields import parse
from errors import CheckpointError, TrainingError
from tests.conftest import Log, Make
from tests.prediction import stock
from tests.runs import with_run
from train_linear import LinearConfig
from training.config import InitFrom
from training.resume import read_init_from
from training.task import NONE, InitialValues, log_origins

LAYERS = [f"layer{number}" for number in range(1, 7)]
SPECS = {
    "global_step": VariableSpec((), "int64"),
    **{f"new/{layer}/w": VariableSpec((3, 3), "float32") for layer in LAYERS},
    **{f"new/{layer}/w/Adam": VariableSpec((3, 3), "float32") for layer in LAYERS},
    "beta1_power": VariableSpec((), "float32"),
}


@pytest.fixture(scope="module")
def five_layers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of five layers, with slots and averages of old; layer n is filled with n."""
    prefix = tmp_path_factory.mktemp("five") / "m-9"
    with stock.checkpoint(prefix):
        v1 = tf.compat.v1
        v1.get_variable("global_step", initializer=np.int64(9))
        v1.get_variable("beta1_power", initializer=np.float32(0.5))
        for number, layer in enumerate(LAYERS[:5], 1):
            for slot, scale in (("", 1), ("/Adam", -1), ("/m", -2), ("/local_step", -3)):
                value = np.full((3, 3), scale * number, np.float32)
                v1.get_variable(f"old/{layer}/w{slot}", initializer=value)
    return str(prefix)


def _read(path: str, *rules: str, exclude: str | None = None) -> dict[str, npt.NDArray[Any]]:
    pairs = tuple((old, new) for old, _, new in (rule.partition("=") for rule in rules))
    return dict(read_init_from(InitFrom(path, pairs, exclude), SPECS).values)


def test_the_first_four_layers_of_five_go_into_a_network_of_six(five_layers: str) -> None:
    """Or one layer is left new, or a slot is taken by its name."""
    rules = tuple((f"old/{layer}/", f"new/{layer}/") for layer in LAYERS[:4])
    found = read_init_from(InitFrom(five_layers, rules), SPECS)
    expected = {f"new/layer{number}/w": number for number in range(1, 5)}
    assert {name: value[0, 0] for name, value in found.values.items()} == expected
    assert found.origins["new/layer1/w"] == f"{five_layers} as old/layer1/w"
    assert len(_read(five_layers, "old/=new/", exclude="new/layer6/.*")) == 5
    name = "layer1/w/Adam"
    assert [*_read(five_layers, f"old/{name}=new/{name}")] == [f"new/{name}"]


def test_objects_are_taken_by_the_names_of_their_variables(tmp_path: Path) -> None:
    """As another trainer saved them, with its optimizer."""
    net, optimizer = tf.Module(), tf.keras.optimizers.SGD(0.1, momentum=0.9)
    net.layers = [
        tf.Variable(np.full((3, 3), n, np.float32), name=f"new/layer{n}/w") for n in range(1, 7)
    ]
    optimizer.apply_gradients([(tf.zeros([3, 3]), net.layers[0])])
    path = tf.train.Checkpoint(net=net).save(f"{tmp_path}/objects")
    for asked in (path, str(tmp_path)):  # The state file that it writes names the newest.
        values = _read(asked)
        assert {name: value[0, 0] for name, value in values.items()} == {
            f"new/layer{n}/w": n for n in range(1, 7)
        }


@pytest.mark.parametrize(
    ("rules", "exclude", "line"),
    [
        (["old/=new/"], None, "lacks old/layer6/w for new/layer6/w .*--exclude"),
        (["none/=new/"], None, "--assign=none/=new/: .* has nothing of none/"),
        (["old/layer1/=new/layer9/"], None, "no place here for its old/layer1/w as new/layer9/w"),
        (["old/layer1/w=new/nothing"], None, "no place here for its old/layer1/w as new/nothing"),
        (["global_step=global_step"], None, "the run counts its own steps"),
        (["old/layer1/=new/layer1/"] * 2, None, "another rule gives it, too"),
        (["old/layer1/=new/layer1/"], "zz", "--exclude=zz matches none"),
        ([], None, "lacks new/layer1/w.*no place here for its old/layer1/w"),
    ],
)
def test_bad_rules(five_layers: str, rules: list[str], exclude: str | None, line: str) -> None:
    with pytest.raises(CheckpointError, match=line) as raised:
        _read(five_layers, *rules, exclude=exclude)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("spec", [VariableSpec((9,), "float32"), VariableSpec((3, 3), "float64")])
def test_another_shape_or_dtype_is_told(five_layers: str, spec: VariableSpec) -> None:
    request = InitFrom(five_layers, (("old/layer1/", "x/"),))
    with pytest.raises(CheckpointError, match=r"old/layer1/w is float32 \[3, 3\], x/w here is"):
        read_init_from(request, {"x/w": spec})


@pytest.fixture
def from_other(linear_run: Path, linear_config: Make, tmp_path: Path) -> Any:
    """Three steps that begin at the end of another run."""
    source = InitFrom(f"{shutil.copytree(linear_run, tmp_path / 'source')}/my-model-300")
    return linear_config(tmp_path / "run", train_steps=3, init_from=source)


def test_it_begins_there(from_other: LinearConfig, tmp_path: Path, caplog: Log) -> None:
    """The line is found already; a rerun needs the file no more, but minds another."""
    variables = train_linear.train(from_other).variables
    there = tf.train.load_variable(f"{tmp_path}/source/my-model-300", "w")
    np.testing.assert_allclose(variables["w"], there, atol=1e-4)
    assert variables["global_step"] == 3

    with stock.checkpoint(tmp_path / "other"):
        for name in ("w", "b"):
            tf.compat.v1.get_variable(name, initializer=np.ones([1], np.float32))
    longer = with_run(from_other, train_steps=5)
    with pytest.raises(TrainingError, match="initial_values was"):
        train_linear.train(with_run(longer, init_from=InitFrom(str(tmp_path / "other"))))
    with pytest.raises(TrainingError, match=r"initial_values was .* not given"):
        train_linear.train(with_run(longer, init_from=None))
    shutil.rmtree(tmp_path / "source")
    assert train_linear.train(longer).step == 5
    assert "what the run began with is not compared" in caplog.text
    assert train_linear.train(with_run(longer, train_steps=7)).step == 7


def test_the_flags_become_rules() -> None:
    config = parse(LinearConfig, ["s", "--init_from=p", "--assign=a/=b/", "--assign=c=d"])
    assert config.run.init_from == InitFrom("p", (("a/", "b/"), ("c", "d")))


def _initial(*names: str) -> InitialValues:
    return InitialValues(dict.fromkeys(names, np.zeros(2)), dict.fromkeys(names, "m/my-model-1"))


def test_the_log_tells_each_origin_or_each_scopes(caplog: Log) -> None:
    caplog.set_level("INFO", "absl")
    log_origins(["a", "b"], NONE)
    log_origins(["a/w", "b/w"], _initial("a/w"))
    names = [f"a/{number}" for number in range(100)] + ["step", "b/0", "b/1"]
    log_origins(names, _initial(*names[:99]))
    assert caplog.messages == [
        "a/w: restored from m/my-model-1",
        "b/w: new",
        "a/0 and 98 more of a: restored from m/my-model-1",
        "a/99: new",
        "step: new",
        "b/0 and 1 more of b: new",
    ]


def test_the_digest_tells_names_shapes_dtypes_and_values() -> None:
    kinds = itertools.product("ab", ((4,), (2, 2)), (np.float32, np.int32), (0, 1))
    digests = {
        InitialValues({name: np.full(shape, value, dtype)}, {}).digest()
        for name, shape, dtype, value in kinds
    }
    assert len(digests) == 16
    assert _initial("a", "b").digest() == _initial("b", "a").digest()
