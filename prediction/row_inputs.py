"""Which file of --input is for which tensor, and all of them opened, row beside row.

A file that --input does not take is an error line that says what to do with it.
"""

import difflib
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from checkpoints.file_io import HEAD_BYTES, kind_of
from data import files, named
from data.files import open_binary
from errors import CheckpointError, DataError, PredictionError
from metagraph.casting import Array
from metagraph.meta import MetaGraphFile, TensorInfo
from metagraph.model import Model
from prediction.file_inputs import (
    Input,
    Labels,
    Target,
    is_idx_name,
    numbered,
    open_csv_input,
    open_folder_input,
    open_idx_input,
    open_images,
    open_npy_input,
    open_npz_input,
    open_tf_record_input,
    open_txt_input,
    takes_whole_files,
)
from prediction.plan import Feed, choose_row_input, feed_value
from prediction.rows import ArrayRows, ColumnRows, Rows

_TAKEN = (
    "--input takes .npy, .npz, .csv, PNG and JPEG images, a folder of those, IDX files, and for a "
    "tensor of strings .txt and .tfrecord"
)


def _advised(advice: str, *suffixes: str) -> Mapping[str, str]:
    return dict.fromkeys(suffixes, advice)


_ADVICE: Mapping[str, str] = {
    **_advised("convert it to .png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".heic", ".ppm"),
    **_advised(
        "pickles are code, and never opened: save the array with np.save, as .npy",
        *(".pkl", ".pickle", ".joblib", ".pt", ".pth"),
    ),
    **_advised(
        "save one array of it as .npy: np.save('x.npy', scipy.io.loadmat(file)[name])", ".mat"
    ),
    **_advised("save one array of it with np.save, as .npy", ".h5", ".hdf5", ".nc", ".bin", ".raw"),
    **_advised(
        "write its numbers as .csv, a row a line and without a header, or as .npy",
        *(".parquet", ".feather", ".arrow", ".tsv", ".dat", ".xls", ".xlsx", ".json", ".jsonl"),
    ),
    **_advised(
        "it is packed: unpack it first", ".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz"
    ),
}


def is_image(path: str) -> bool:
    """Whether a file starts as a PNG or JPEG image, whatever its name.

    Raises:
      DataError: it cannot be read.
    """
    return _kind(path) == "an image"


def why_not_taken(path: str, suffix: str, taken: Iterable[str]) -> str:
    """The error line for a file of rows of another kind than those that are read.

    Args:
      path: the file.
      suffix: of its name, in lower case.
      taken: the suffixes that are read.

    Raises:
      DataError: it cannot be read.
    """
    kind, near = _kind(path), difflib.get_close_matches(suffix, taken, n=1)
    if suffix in _ADVICE:
        advice = _ADVICE[suffix]
    elif kind is not None:
        advice = f"it is {kind}"
    else:
        advice = f"should its name end in {near[0]}?" if near else "its kind is told by its suffix"
    named = f"a {suffix} file" if suffix else "a file without a suffix"
    return f"{path}: {named} is not taken: {advice}; {_TAKEN}"


def _kind(path: str) -> str | None:
    with open_binary(path) as stream:
        return kind_of(stream.read(HEAD_BYTES))


# Opens what --input names as rows for one tensor, with a name and maybe a label for each.

MAX_BYTES = 4 * 2**30  # of one file, unpacked
_READERS: Mapping[str, Callable[[str, Target, int], Input]] = {
    ".npz": open_npz_input,
    ".npy": open_npy_input,
    ".csv": open_csv_input,
    ".txt": open_txt_input,
    ".tfrecord": open_tf_record_input,
    ".tfrecords": open_tf_record_input,
}
_IMAGES = (".png", ".jpg", ".jpeg")


def open_input(path: str, target: Target, max_bytes: int = MAX_BYTES) -> Input:
    """Opens an image, a folder of images or of class folders, or a file of rows.

    Files of rows are .npz, .npy, .csv and IDX files, and for a tensor of strings .txt (a row a
    line) and .tfrecord (a row a record) as well; there, any other file is a row. The rows are first
    in all of them.

    Args:
      path: the file or folder.
      target: what it is opened for.
      max_bytes: that one file may unpack to.

    Raises:
      PredictionError: it holds no rows, they do not fit the tensor, or it is of another kind.
      DataError: it cannot be read.
    """
    if files.is_folder(path):
        return open_folder_input(path, target)
    if is_idx_name(path):
        return open_idx_input(path, target, max_bytes)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _READERS:
        return _READERS[suffix](path, target, max_bytes)
    files.size(path)  # Before the shape: a missing file is the nearer cause.
    if suffix not in _IMAGES and not takes_whole_files(target.info) and not is_image(path):
        raise PredictionError(why_not_taken(path, suffix, [*_READERS, *_IMAGES]))
    return open_images([path], [path], None, target)


def demo_input(target: Target) -> Input:
    """The two images of the ramp that are kept for a first prediction."""
    rows = ArrayRows(named.demo_images(), target.info, "the ramp", target.scale)
    return numbered(rows)._replace(labels=named.demo_labels())


# Which file of --input is for which tensor, and all of them opened, row beside row.


class RowInputs(NamedTuple):
    """Rows of several tensors, which go together by their numbers.

    Attributes:
      rows: by the full name of the tensor, each of as many; empty for none.
      names: of each row, as the first input has them.
      labels: int64 [N], each row's true class; None where unknown.
    """

    rows: Mapping[str, Rows] = {}
    names: Sequence[str] = ()
    labels: Labels | None = None


def files_by_tensor(
    meta: MetaGraphFile,
    model: Model,
    fetches: Sequence[str],
    texts: Sequence[str],
    fed: Mapping[str, Feed],
    max_bytes: int,
) -> dict[str, str]:
    """Which path is for which tensor.

    Args:
      meta: the graph.
      model: its description.
      fetches: the tensors that are fetched.
      texts: the values of the flag: each `name=path`, but for one that may be a path alone, for
        the one input that is left. What is a path with a `=` in it, and exists, is a path.
      fed: what --feed gives.
      max_bytes: that one file may unpack to.

    Returns:
      Paths by the full names of the tensors, in the order of `texts`.

    Raises:
      PredictionError: a tensor is given twice, or it cannot be told which one a path is for.
    """
    named = {text: _named(meta, model, text) for text in dict.fromkeys(texts)}
    nameless = [text for text, (name, _) in named.items() if name is None]
    if len(nameless) > 1:
        raise PredictionError(
            f"--input {nameless[0]} and --input {nameless[1]}: which is for which tensor? give "
            "each as --input name=file"
        )
    paths: dict[str, str] = {}
    others = [*fed, *(name for name, _ in named.values() if name is not None)]
    for text, (name, path) in named.items():
        fits = functools.partial(_fits, path, model, max_bytes)
        tensor = name or choose_row_input(meta, model, fetches, others, fits)
        before = fed[tensor].source if tensor in fed else f"--input {paths.get(tensor)}"
        if tensor in fed or tensor in paths:
            raise PredictionError(f"{tensor} is fed twice: {before}, --input {text}")
        paths[tensor] = path
    return paths


def _named(meta: MetaGraphFile, model: Model, text: str) -> tuple[str | None, str]:
    """The tensor's full name, None where none is given, and the path."""
    name, equals, path = text.partition("=")
    if not equals or files.exists(text):
        return None, text
    try:
        return meta.tensor_name(name, model.feed_keys), path
    except CheckpointError as error:
        raise PredictionError(f"--input {text}: there is no such file, and {error}") from error


def _fits(path: str, model: Model, max_bytes: int, info: TensorInfo) -> bool:
    """Whether the rows of a file could be fed to a tensor; not where it cannot be read."""
    try:
        open_input(path, _target(info, model)._replace(scale=None), max_bytes)
    except (DataError, PredictionError):
        return False
    return True


def open_inputs(
    infos: Sequence[TensorInfo],
    model: Model,
    paths: Mapping[str, str],
    max_bytes: int,
    *,
    ignore_exif: bool = False,
) -> RowInputs:
    """Opens the files for their tensors, which are `infos`.

    Raises:
      PredictionError, DataError: as `open_input` does; or the files differ in their number of
        rows, or in their labels.
    """
    targets = [_target(info, model)._replace(ignore_exif=ignore_exif) for info in infos]
    opened = {t.info.name: open_input(paths[t.info.name], t, max_bytes) for t in targets}
    _check_together(opened, paths)
    return _joined(opened)


def _check_together(opened: Mapping[str, Input], paths: Mapping[str, str]) -> None:
    lengths = {name: len(found.rows) for name, found in opened.items()}
    for name, length in lengths.items():
        first = next(iter(lengths))
        if length != lengths[first]:
            raise PredictionError(
                f"inputs that go together have as many rows: {paths[first]} (for {first}) has "
                f"{lengths[first]}, {paths[name]} (for {name}) has {length}"
            )
    labels = {name: found.labels for name, found in opened.items() if found.labels is not None}
    for name, found in labels.items():
        first = next(iter(labels))
        if not np.array_equal(found, labels[first]):
            raise PredictionError(
                f"{paths[first]} and {paths[name]} have different labels for the same rows"
            )


def open_demo(info: TensorInfo, model: Model) -> RowInputs:
    """The demonstration's rows, for a tensor."""
    return _joined({info.name: demo_input(_target(info, model))})


def _target(info: TensorInfo, model: Model) -> Target:
    target = Target(info, None, model.class_names, model.classifier)
    if info.name not in model.inputs.values():
        return target
    return target._replace(scale=model.input_scale, image_shape=model.image_shape)


def _joined(opened: Mapping[str, Input]) -> RowInputs:
    if not opened:
        return RowInputs()
    labels = (found.labels for found in opened.values() if found.labels is not None)
    first = next(iter(opened.values()))
    return RowInputs(
        {name: found.rows for name, found in opened.items()}, first.names, next(labels, None)
    )


def value_for(info: TensorInfo, feeds: Mapping[str, Feed], inputs: RowInputs) -> Rows | Array:
    """The value of a tensor that is fed.

    A value of --feed goes along with the rows of --input, a batch at a time, where it has as many
    and its tensor takes any number of them, or a fixed one a run; else it is fed as it is in each
    batch.

    Raises:
      PredictionError: the value of --feed does not fit the tensor.
    """
    if info.name in inputs.rows:
        return inputs.rows[info.name]
    feed = feeds[info.name]
    if not inputs.rows:
        return feed_value(feed, info)
    num_rows = len(next(iter(inputs.rows.values())))
    value = feed_value(feed, info, num_rows)
    columns = any(isinstance(rows, ColumnRows) for rows in inputs.rows.values())
    if columns and value.ndim == 2 and info.shape is not None:
        by_columns = info.shape[1] is None and value.shape[1] == num_rows
        return ColumnRows(value.T, info, feed.source) if by_columns else value
    own = info.shape is not None and info.shape[:1] in ((), (num_rows,))
    by_rows = not own and value.shape[:1] == (num_rows,)
    return ArrayRows(value, info, feed.source) if by_rows else value
