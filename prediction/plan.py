"""What is fetched and fed: which tensors, told from the graph before it is imported, and with what.

What does not go together is a PredictionError of one line, a file that cannot be read a DataError.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from absl import logging

import file_io
from checkpoints.bundle import STRING
from data import RAMP, SHAPES, files, named
from data.arrays import read_npy, read_npz
from data.images import fit_images
from errors import CheckpointError, PredictionError, first_few
from metagraph.description import Array, Model, TensorInfo, fit
from prediction.file_inputs import RowInputs, Rows, Target, array_rows, numbered, open_files
from prediction.onnx_file import OnnxFile
from prediction.request import MEGABYTE, PredictConfig

if TYPE_CHECKING:
    from metagraph.meta import MetaGraphFile
    from prediction.chosen_model import GraphFile

_PATTERN = re.compile(r"[*?[]")
ModelFile: TypeAlias = "MetaGraphFile | OnnxFile"


def answers(file: ModelFile) -> "GraphFile | OnnxFile":
    """What answers questions on a file; that of a graph needs TensorFlow, imported only here."""
    if isinstance(file, OnnxFile):
        return file
    from prediction.chosen_model import GraphFile

    return GraphFile(file)


def choose_fetches(meta: ModelFile, model: Model, asked: Sequence[str]) -> tuple[str, ...]:
    """The tensors to fetch, each once: those asked for, by name or key of the signature.

    By default it is the collection `predict`, with what a classifier's report shows beside it, or
    else the outputs of the signature.
    """
    names = [meta.tensor_name(text, model.fetch_keys) for text in asked]
    if not names:
        names = [*model.predict, *report_tensors(model)] or list(model.outputs.values())
    if not names:
        raise PredictionError(
            f"{meta.path} has neither a collection 'predict' nor a signature that names an "
            f"output: name what to compute with --fetch{answers(meta).fetchable(model)}"
        )
    return tuple(dict.fromkeys(names))


def report_tensors(model: Model) -> tuple[str, ...]:
    """What a classifier's report takes; nothing where the graph is something else."""
    return model.classifier[:2] if model.classifier else ()


def choose_row_input(
    meta: ModelFile, model: Model, fetches: Sequence[str], fed: Collection[str]
) -> str:
    """The tensor that --input is for: the signature's one input, or what alone has to be fed."""
    candidates = tuple(name for name in model.inputs.values() if name not in fed)
    if len(model.inputs) != 1 or not candidates:
        candidates = unfed(meta, fetches, fed)
    if not candidates:
        raise PredictionError(
            f"nothing is left for --input to feed: {', '.join(fetches)} need no other placeholder; "
            f"any tensor can be fed by name with --feed{answers(meta).feedable(model, fetches)}"
        )
    if len(candidates) > 1:
        raise PredictionError(
            f"--input could be for any of {answers(meta).described(candidates)}: give each as "
            "--input name=file"
        )
    return candidates[0]


def unfed(meta: ModelFile, fetches: Sequence[str], fed: Collection[str]) -> tuple[str, ...]:
    """The placeholders that `fetches` need beside what is fed."""
    return answers(meta).unfed(fetches, fed)


def check_fed(meta: ModelFile, fetches: Sequence[str], fed: Collection[str]) -> None:
    """Raises PredictionError where `fetches` need a tensor that is not fed, naming both.

    What is fed in vain, and what gives data that the graph has of its own, is warned of.
    """
    missing = unfed(meta, fetches, fed)
    if missing:
        needing = next(fetch for fetch in fetches if unfed(meta, [fetch], fed))
        flags = " ".join(f"--feed {name.removesuffix(':0')}=..." for name in missing)
        told = answers(meta).described(missing)
        raise PredictionError(
            f"{needing} needs {told}: feed it with {flags}, or rows with --input name=file"
        )
    answers(meta).warn_of_feeds(fetches, fed)


# The values of --feed.


class Feed(NamedTuple):
    """What one tensor is fed."""

    name: str  # As the user wrote it.
    source: str  # Of the value, for an error line.
    value: Array | str  # From a file, or a literal that only the tensor's dtype tells how to read.


def feeds_by_tensor(
    meta: ModelFile, model: Model, texts: Sequence[str], max_bytes: int
) -> dict[str, Feed]:
    """What --feed gives, by the full names of the tensors; see `read_feeds`."""
    feeds: dict[str, Feed] = {}
    for feed in read_feeds(texts, max_bytes):
        name = meta.tensor_name(feed.name, model.feed_keys)
        if name in feeds:
            raise PredictionError(f"{name} is fed twice: {feeds[name].source}, {feed.source}")
        feeds[name] = feed
    return feeds


def read_feeds(texts: Sequence[str], max_bytes: int) -> list[Feed]:
    """Reads `name=file.npy`, `name=<literal>` and `file.npz`, whose keys are tensor names."""
    feeds = []
    for text in texts:
        if text.endswith(".npz"):
            arrays = read_npz(text, max_bytes)
            feeds += [Feed(name, f"{text}, {name}", array) for name, array in arrays.items()]
            continue
        name, _, value = text.partition("=")
        is_file, source = value.endswith(".npy"), f"--feed {text[:60]}"
        feeds.append(Feed(name.strip(), source, read_npy(value, max_bytes) if is_file else value))
    return feeds


def feed_value(feed: Feed, info: TensorInfo, num_rows: int | None = None) -> Array:
    """The value as it can be fed to its tensor.

    Where it goes along with `num_rows` rows, a batch at a time, its first dimension need not be the
    tensor's.
    """
    value = _literal(feed.value, feed.source, info) if isinstance(feed.value, str) else feed.value
    if num_rows is not None and info.shape and value.shape[:1] == (num_rows,):
        info = info._replace(shape=(None, *info.shape[1:]))
    return fit(value, info, feed.source)


def _literal(text: str, source: str, info: TensorInfo) -> Array:
    """A text as it is, or JSON in the tensor's dtype or in another one that may go over into it."""
    if info.dtype.name == STRING and text[:1] not in ("[", '"'):
        return np.asarray(text)
    if info.dtype.is_bool:
        text = text.lower()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PredictionError(
            f"{source}: {text[:40]!r} is no JSON; {info.name} takes {_expected(info)}"
        ) from error
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise PredictionError(f"{source}: the rows of the list differ in length") from error
    return _checked(array, source, info)


def _checked(array: Array, source: str, info: TensorInfo) -> Array:
    """What a literal says, where it is of a kind that the tensor may take."""
    if not array.size:  # NumPy calls an empty list a list of floats.
        return array.astype("S1" if info.dtype.name == STRING else info.dtype.as_numpy_dtype)
    is_text = array.dtype.kind in "SU"
    if array.dtype.kind not in "biufcSU" or is_text != (info.dtype.name == STRING):
        found = "a text in quotes" if is_text else array.dtype.name
        if array.dtype.kind == "O":
            found = "null, an object, or a number of more than 64 bits"
        raise PredictionError(f"{source}: {info.name} takes {_expected(info)}; found {found}")
    if info.dtype.is_bool and array.dtype.kind in "iu" and np.isin(array, (0, 1)).all():
        return array.astype(bool)
    return array


def _expected(info: TensorInfo) -> str:
    if info.dtype.name == STRING:
        return "a text, or a JSON list of texts in quotes"
    if info.dtype.is_bool:
        return "true, false, or a JSON list of them"
    return f"a number ({info.dtype.name}), or a JSON list of numbers"


# The files of --input.


def files_by_tensor(
    meta: ModelFile,
    model: Model,
    fetches: Sequence[str],
    texts: Sequence[str],
    fed: Mapping[str, Feed],
) -> dict[str, list[str]]:
    """The paths for each tensor, by its full name.

    Each of `texts` is `name=path`, or a path alone, for the input that is left. What exists with a
    `=` in it is a path; what does not may be a pattern, such as `photos/*.jpg`.
    """
    named = {text: _named(meta, model, text) for text in dict.fromkeys(texts)}
    paths: dict[str, list[str]] = {}
    others = [*fed, *(name for name, _ in named.values() if name is not None)]
    for text, (name, path) in named.items():
        tensor = name or choose_row_input(meta, model, fetches, others)
        if tensor in fed:
            raise PredictionError(f"{tensor} is fed twice: {fed[tensor].source}, --input {text}")
        is_pattern = _PATTERN.search(path) and not files.exists(path)
        found = file_io.matching(path) if is_pattern else [path]
        if not found:
            raise PredictionError(f"--input {text}: there is no such file")
        paths.setdefault(tensor, []).extend(found)
    return paths


def _named(meta: ModelFile, model: Model, text: str) -> tuple[str | None, str]:
    """The tensor's full name, None where none is given, and the path."""
    name, equals, path = text.partition("=")
    if not equals or files.exists(text):
        return None, text
    try:
        return meta.tensor_name(name, model.feed_keys), path
    except CheckpointError as error:
        raise PredictionError(f"--input {text}: there is no such file, and {error}") from error


def open_inputs(
    infos: Sequence[TensorInfo],
    model: Model,
    paths: Mapping[str, Sequence[str]],
    config: PredictConfig,
) -> RowInputs:
    """Opens the files for their tensors, which are `infos`."""
    opened = {i.name: open_files(paths[i.name], _target(i, model, config)) for i in infos}
    told = {name: first_few(found, 1) for name, found in paths.items()}
    first, *_ = opened
    num_rows = len(opened[first].names)
    for name, found in opened.items():
        if len(found.names) != num_rows:
            raise PredictionError(
                f"inputs that go together have as many rows: {told[first]} (for {first}) has "
                f"{num_rows}, {told[name]} (for {name}) has {len(found.names)}"
            )
    labels = [found.labels for found in opened.values() if found.labels is not None]
    if any(not np.array_equal(labels[0], others) for others in labels[1:]):
        raise PredictionError(f"{', '.join(told.values())} have different labels for the same rows")
    bad = {number for found in opened.values() for number in found.bad}
    good = np.array([number for number in range(num_rows) if number not in bad])
    if not len(good):
        raise PredictionError(
            f"{', '.join(told.values())}: no row is left of which all can be read"
        )
    names = [opened[first].names[number] for number in good]
    inputs = RowInputs({}, names, labels[0][good] if labels else None, bad)
    return inputs._replace(rows={n: inputs.left_of(found.rows[n]) for n, found in opened.items()})


def open_demo(info: TensorInfo, model: Model, shown: int | None) -> RowInputs:
    """Images of the built-in data that a model was trained on, with their labels.

    Of the shapes they are the first `shown` of the test images, None for all; of the ramp there are
    two. There are none for a model of other data, or whose input is no square image any more.
    """
    size, width, channels = info.shape[1:] if info.shape and len(info.shape) == 4 else (0, 0, 0)
    numbers = [n for n in named.TEST_SHAPES if named.shape_of(n) in model.class_names][:shown]
    images: Array
    if model.trained_on == RAMP:
        images, labels = named.ramp_demo()
        what = "images of the ramp that the model was trained on, from which nothing can be learnt"
    elif model.trained_on == SHAPES and numbers and size and size == width and channels in (1, 3):
        images = fit_images(named.shape_examples(numbers)[0], size, channels)
        labels = np.array([model.class_names.index(named.shape_of(n)) for n in numbers])
        what = "test images of the built-in shapes that the model was trained on"
    else:
        return RowInputs()
    logging.info("without --input: %d %s", len(images), what)
    rows = array_rows(images, info, f"the {model.trained_on}", model.input_scale)
    return numbered(rows, labels)


def _target(info: TensorInfo, model: Model, config: PredictConfig) -> Target:
    is_signed = info.name in model.inputs.values()  # Only of that does the graph say these.
    return Target(
        info,
        model.input_scale if is_signed else None,
        model.class_names,
        model.classifier,
        model.image_shape if is_signed else None,
        config.ignore_exif,
        config.resize,
        config.on_bad_image,
        config.max_input_mb * MEGABYTE,
    )


def value_for(info: TensorInfo, feeds: Mapping[str, Feed], inputs: RowInputs) -> Rows | Array:
    """The value of a tensor that is fed.

    A value of --feed with as many rows as --input goes along with them, unless its tensor takes
    just so many; else it is fed as it is in each batch.
    """
    if info.name in inputs.rows:
        return inputs.rows[info.name]
    feed = feeds[info.name]
    if not inputs.rows:
        return feed_value(feed, info)
    num_rows = len(next(iter(inputs.rows.values()))) + len(inputs.bad)
    value = feed_value(feed, info, num_rows)
    own = info.shape is not None and info.shape[:1] in ((), (num_rows,))
    by_rows = not own and value.shape[:1] == (num_rows,)
    return inputs.left_of(array_rows(value, info, feed.source)) if by_rows else value
