"""A model of ONNX, which onnxruntime runs: TensorFlow is not needed, and not imported.

What tools.export knows of the model is in the file's metadata, as JSON. Another's file has none of
it: its inputs and outputs go by their own names.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import MappingProxyType
from typing import Any

import numpy as np
from absl import logging

from checkpoints.bundle import STRING, DType
from data import files
from errors import CheckpointError, PredictionError, first_few, nearest_names, reason
from metagraph.description import Array, Model, RunnableGraph, Signature, TensorInfo, as_classifier
from prediction.output import Record, tensor_record
from prediction.request import OWN, PredictConfig

SUFFIX = ".onnx"
_SERVING = "serving_default"
_OTHERS = (".meta", ".index", ".pb", ".pbtxt")  # A folder with one of these is of TensorFlow.
_KINDS = {"float": "float32", "double": "float64"}  # Other names are TensorFlow's, too.
_UNKNOWN_OP = re.compile(r"No Op registered for (\S+)|\b(\S+\(-?\d+\)) is not a registered")
_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_MAX_NAMED = 5
_YEAR_SECONDS = 31e6  # More counts as no limit.


def find_onnx(path: str) -> str | None:
    """The .onnx file that a path stands for, itself or the one in a folder; None for none.

    A folder in which TensorFlow has left a model is of that. Raises PredictionError for several.
    """
    if not os.path.isdir(path):
        return path if path.lower().endswith(SUFFIX) else None
    names: list[str] = []
    with suppress(OSError):  # Whoever looks for another model in it says why it cannot be read.
        names = sorted(os.listdir(path))
    found = [name for name in names if name.lower().endswith(SUFFIX)]
    if not found or any(name.endswith(_OTHERS) for name in names):
        return None
    if len(found) > 1:
        shown = first_few(found, _MAX_NAMED)
        raise PredictionError(f"{path} holds {len(found)} models; name one: {shown}")
    return os.path.join(path, found[0])


class OnnxFile:
    """One that is opened, and what a prediction asks of it, as of a `GraphFile`.

    Only its inputs can be fed, and only its outputs fetched.
    """

    checkpoint = None  # Its values are its own.

    def __init__(self, path: str, config: PredictConfig) -> None:
        """CheckpointError where it is no such file, or wants what onnxruntime has not."""
        self.path = path
        _check_flags(path, config)
        length = files.size(path)
        if length > config.max_meta_bytes:
            raise CheckpointError(f"{path}: holds {length:,} bytes; --max_meta_mb allows more")
        with _limited(config, "reading the model"):
            self._session = open_session(path, path, config.threads or 0)
        self._inputs = {one.name: _info(one) for one in self._session.get_inputs()}
        made = (one for one in self._session.get_outputs() if _dtype(one.type))
        self._outputs = {one.name: _info(one) for one in made}
        self._told = self._session.get_modelmeta().custom_metadata_map

    def model(self, _: PredictConfig) -> Model:
        """What the file says of its model."""
        names = self._read("class_names", _is_texts, [])
        sizes = self._read("image_shape", _is_sizes, None)
        inputs, outputs = self._keys("inputs", self._inputs), self._keys("outputs", self._outputs)
        pair = [outputs[key] for key in ("probabilities", "classes") if key in outputs]
        return Model(
            signature=Signature(_SERVING, inputs, outputs),
            signatures=(_SERVING,),
            predict=tuple(n for n in self._read("predict", _is_texts, []) if n in self._outputs),
            class_names=tuple(names),
            input_scale=self._read("input_scale", _is_number, None),
            trained_on=self._read("trained_on", lambda value: isinstance(value, str), None),
            classifier=as_classifier(*self.describe(pair)) if len(pair) == 2 else None,
            image_shape=None if sizes is None else (sizes[0], sizes[1], sizes[2]),
        )

    def _keys(self, kind: str, there: Collection[str]) -> dict[str, str]:
        """Key -> tensor, of the signature's inputs or outputs."""
        own = {name: name for name in there}
        told: dict[str, str] = self._read(
            kind, lambda told: isinstance(told, dict) and _is_texts([*told.values()]), own
        )
        return {key: name for key, name in sorted(told.items()) if name in there}

    def _read(self, key: str, fits: Callable[[Any], object], default: Any) -> Any:
        """An entry of the metadata; CheckpointError where it is not what it has to be."""
        if key not in self._told:
            return default
        try:
            value = json.loads(self._told[key])
            if fits(value):
                return value
        except (ValueError, RecursionError):
            pass
        raise CheckpointError(f"{self.path} is damaged: its metadata has no {key} that can be")

    def tensor_name(self, text: str, keys: Mapping[str, str] = MappingProxyType({})) -> str:
        """The tensor that is meant, by its name, with or without `:0`, or a key."""
        there = {**self._inputs, **self._outputs}
        for name in (text, f"{text}:0", keys.get(text, text)):
            if name in there:
                return name
        near = nearest_names(text, [*keys, *there]) or [*there][:_MAX_NAMED]
        raise CheckpointError(
            f"{self.path} has no input or output {text!r}; the nearest are {', '.join(near)}"
        )

    def listing(self, config: PredictConfig) -> tuple[Record, list[str], str]:
        """What it holds, as `chosen_model.listing` has it; it lacks no values."""
        model = self.model(config)
        record: Record = {
            "inputs": [tensor_record(info) for info in self._inputs.values()],
            "pipeline": [],
            "outputs": [tensor_record(info) for info in self._outputs.values()],
            "candidates": [],
            "variables": [],
            "signature": model.signature._asdict(),
            "signatures": list(model.signatures),
            "collections": {"class_names": list(model.class_names)} if model.class_names else {},
        }
        return record, [], ""

    def describe(
        self, names: Sequence[str], _: PredictConfig | None = None
    ) -> tuple[TensorInfo, ...]:
        """The dtype and shape of inputs and outputs."""
        return tuple(self._inputs.get(name) or self._outputs[name] for name in names)

    def unfed(self, _: Sequence[str], fed: Collection[str]) -> tuple[str, ...]:
        """The inputs beside what is fed: a run takes all."""
        return tuple(name for name in self._inputs if name not in fed)

    def depends(self, name: str, fed: Collection[str]) -> bool:
        """Whether a tensor may be another where something else is fed."""
        return name in self._outputs or name in fed

    def warn_of_feeds(self, fetches: Sequence[str], fed: Collection[str]) -> None:
        """Raises PredictionError where no input is fed, or no output fetched."""
        for names, there, what in ((fed, self._inputs, "fed"), (fetches, self._outputs, "fetched")):
            if wrong := [name for name in names if name not in there]:
                kind = "inputs" if what == "fed" else "outputs"
                raise PredictionError(
                    f"{wrong[0]} cannot be {what}: of an ONNX model only its {kind} can be, which "
                    f"are {first_few([*there], _MAX_NAMED)}"
                )

    def described(self, names: Sequence[str]) -> str:
        """Tensors with their types, for an error line."""
        return first_few([*map(str, self.describe(names))], _MAX_NAMED)

    def feedable(self, *_: object) -> str:
        """What could be fed, as the end of an error line."""
        return f", and the model has {self.described([*self._inputs])}"

    def fetchable(self, *_: object) -> str:
        """What could be fetched, as the end of an error line."""
        return f", such as --fetch={next(iter(self._outputs), '')}"

    def load(
        self, fetches: Sequence[str], feeds: Sequence[str], config: PredictConfig
    ) -> AbstractContextManager["OnnxGraph"]:
        """What runs it."""
        infos = self.describe(feeds), self.describe(fetches)
        return nullcontext(OnnxGraph(self._session, *infos, config))


class OnnxGraph(RunnableGraph):
    """Runs the fetched outputs of an ONNX model; texts are bytes."""

    is_pure = True

    def __init__(
        self,
        session: Any,
        feeds: tuple[TensorInfo, ...],
        fetches: tuple[TensorInfo, ...],
        config: PredictConfig,
    ) -> None:
        self.feeds, self.fetches = feeds, fetches
        self._session, self._config = session, config

    @contextmanager
    def _one_run(self) -> Iterator[None]:
        try:
            with _limited(self._config, "one run"):
                yield
        except Exception as error:  # Its errors have no class in common.
            raise CheckpointError(f"the model fails: {_why(error)}") from error

    def _run_batch(self, values: Sequence[Array]) -> list[Array]:
        names = [info.name for info in self.feeds]
        fed = dict(zip(names, map(as_texts, values), strict=True))
        results = self._session.run([info.name for info in self.fetches], fed)
        return [as_bytes(np.asarray(result)) for result in results]


def as_texts(value: Array) -> Array:
    """An array of bytes as onnxruntime takes texts, which have to be UTF-8; another as it is."""
    if value.dtype.kind not in "OS":
        return value
    return np.array([text.decode() for text in value.flat], object).reshape(value.shape)


def as_bytes(result: Array) -> Array:
    """An array of texts as TensorFlow has it; another as it is."""
    if result.dtype.kind not in "OU":
        return result
    return np.asarray(np.char.encode(result.astype(str)), object)


def _check_flags(path: str, config: PredictConfig) -> None:
    """PredictionError where a flag is given that only a graph of TensorFlow has a use for."""
    given = {
        "ckpt": ",".join(config.checkpoint),
        "tags": config.tags,
        "signature": config.signature != _SERVING and config.signature,
        "weights": config.weights != OWN and config.weights,
        "asset": ",".join(config.asset),
        "shape": ",".join(config.shapes),
        "use_moving_averages": config.use_moving_averages,
    }
    for name, value in given.items():
        if value:
            raise PredictionError(f"--{name}={value}: {path} is an ONNX model, which has none")


@contextmanager
def _limited(config: PredictConfig, what: str) -> Iterator[None]:
    """Has the process ended where `what` takes longer than --time_limit."""
    if config.end_after is None or not 0 < config.time_limit < _YEAR_SECONDS:
        yield
        return
    took = f"{what} took longer than --time_limit={config.time_limit:g} seconds"
    config.end_after(config.time_limit, f"{took}: give it more (0 is no limit)")
    try:
        yield
    finally:
        config.end_after(0.0, "")


def open_session(model: str | bytes, path: str, threads: int = 0, *, optimize: bool = True) -> Any:
    """What runs a file or its content; an operation has so many threads, 0 for one a processor.

    Where it runs only without onnxruntime's optimizations, that is warned of. PredictionError where
    onnxruntime is not installed, CheckpointError where it cannot run the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise PredictionError(f"{path}: to run it: pip install onnxruntime ({error})") from error
    options, levels = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # Its warnings are for its makers; what it raises is told.
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # Its errors have no class in common.
        if unknown := _UNKNOWN_OP.search(str(error)):
            name = unknown[1] or unknown[2]
            raise CheckpointError(f"{path} wants {name}, which onnxruntime has not") from error
        why = _why(error)
        if not optimize:
            raise CheckpointError(f"{path} is no ONNX model that can be run: {why}") from error
        session = open_session(model, path, threads, optimize=False)
        logging.warning("%s: run without onnxruntime's optimizations, as with them: %s", path, why)
        return session


def _why(error: Exception) -> str:
    return _STATUS.sub("", reason(error))


def _info(one: Any) -> TensorInfo:
    """An input or output; a size that has a name in place of a number is not known."""
    dtype = _dtype(one.type)
    if dtype is None:
        raise CheckpointError(f"{one.name} is a {one.type}, which cannot be fed")
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in one.shape)
    return TensorInfo(one.name, dtype, shape)


def _dtype(kind: str) -> DType | None:
    """That of `tensor(float)`; None of what is no tensor, or of no dtype of NumPy's."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    dtype = DType(_KINDS.get(name, name))
    with suppress(TypeError, ValueError):
        if dtype == STRING or np.dtype(dtype.as_numpy_dtype).kind != "O":
            return dtype
    return None


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)


def _is_sizes(value: Any) -> bool:
    is_list = isinstance(value, list) and len(value) == 3
    return is_list and all(isinstance(size, int) and size > 0 for size in value)
