"""Which tensors are fetched and fed, told from the graph before anything is imported.

Also the values of --feed, from files or from literals on the command line, and the files of
--asset.
"""

import ast
import json
import os
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from data.arrays import read_npy, read_npz
from errors import CheckpointError, PredictionError
from metagraph.casting import Array, fit
from metagraph.graph import SubGraph, sub_graph
from metagraph.meta import MetaGraphFile, TensorInfo
from metagraph.model import Model, described, feedable, fetchable, without_handles
from metagraph.session import describe_tensors

# Reads --feed: tensors by name, from files or from literals on the command line.

_MAX_LITERAL_CHARACTERS = 1 << 17
_MAX_PATH_CHARACTERS = 1 << 12
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Feed(NamedTuple):
    """What one tensor is fed.

    Attributes:
      name: the tensor's, as the user wrote it.
      source: where the value is from, for an error line.
      value: an array from a file, or the text of a literal, which only the tensor's dtype tells
        how to read.
    """

    name: str
    source: str
    value: Array | str


def read_feeds(texts: Sequence[str], max_bytes: int) -> list[Feed]:
    """Reads the values of the flag.

    Args:
      texts: each `name=file.npy`, `name=<literal>` or `file.npz`, whose keys are tensor names.
      max_bytes: that one file may unpack to.

    Raises:
      PredictionError: a text is of another form.
      DataError: a file cannot be read.
    """
    return [feed for text in texts for feed in _read_feed(text, max_bytes)]


def _read_feed(text: str, max_bytes: int) -> list[Feed]:
    if text.endswith(".npz"):
        arrays = read_npz(text, max_bytes)
        return [Feed(name, f"{text}, {name}", array) for name, array in arrays.items()]
    name, equals, value = text.partition("=")
    name, source = name.strip(), f"--feed {text[:60]}"
    if not (name and equals):
        raise PredictionError(f"{source}: expected name=file.npy, name=literal or file.npz")
    if value.endswith(".npy"):
        return [Feed(name, source, read_npy(value, max_bytes))]
    return [Feed(name, source, value)]


def feed_value(feed: Feed, info: TensorInfo, num_rows: int | None = None) -> Array:
    """The value as it can be fed to its tensor.

    Args:
      feed: the value.
      info: the tensor.
      num_rows: of the rows that it may go along with, a batch at a time: with as many, its first
        dimension need not be the tensor's. None for no rows.

    Raises:
      PredictionError: a literal cannot be read, or the dtype or shape does not fit.
    """
    value = _literal(feed, info) if isinstance(feed.value, str) else feed.value
    if num_rows is not None and info.shape and value.shape[:1] == (num_rows,):
        info = info._replace(shape=(None, *info.shape[1:]))
    return fit(value, info, feed.source)


def _literal(feed: Feed, info: TensorInfo) -> Array:
    """A text in the tensor's dtype, or in another one that may go over into it."""
    text = str(feed.value)
    if info.dtype == tf.string and text[:1] not in ("[", '"', "'"):
        return np.asarray(text)
    word = text.strip().strip("\"'").lower()
    if info.dtype.is_bool and word in _BOOLS:
        return np.asarray(_BOOLS[word])
    if len(text) > _MAX_LITERAL_CHARACTERS:
        raise PredictionError(f"{feed.source}: a literal this long belongs into a .npy file")
    value = _parsed(text, feed.source, info)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise PredictionError(f"{feed.source}: the rows of the list differ in length") from error
    return _checked(array, feed.source, info)


def _checked(array: Array, source: str, info: TensorInfo) -> Array:
    """What a literal says, where it is of a kind that the tensor may take."""
    if not array.size:  # NumPy calls an empty list a list of floats.
        return array.astype("S1" if info.dtype == tf.string else info.dtype.as_numpy_dtype)
    is_text = array.dtype.kind in "SU"
    if array.dtype.kind not in "biufcSU" or is_text != (info.dtype == tf.string):
        found = "a text in quotes" if is_text else array.dtype.name
        if array.dtype.kind == "O":
            found = "null, an object, or a number of more than 64 bits"
        raise PredictionError(f"{source}: {info.name} takes {_expected(info)}; found {found}")
    if info.dtype.is_bool and array.dtype.kind in "iu" and np.isin(array, (0, 1)).all():
        return array.astype(bool)
    return array


def _expected(info: TensorInfo) -> str:
    if info.dtype == tf.string:
        return "a text, or a JSON list of texts in quotes"
    if info.dtype.is_bool:
        return "true, false, or a JSON list of them"
    return f"a number ({info.dtype.name}), or a JSON list of numbers"


def _parsed(text: str, source: str, info: TensorInfo) -> Any:
    """A literal as JSON, or else as Python: True, 1_000, (1, 2)."""
    readers: tuple[Callable[[str], Any], ...] = (json.loads, ast.literal_eval)
    for read in readers:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of Python, on escapes in the text.
                return read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue  # They raise any of these on a text that is no literal or is nested too deep.
    file_hint = ""
    if len(text) < _MAX_PATH_CHARACTERS and os.path.exists(text):
        file_hint = "; files but .npy and .npz go to --input name=file"
    raise PredictionError(
        f"{source}: {text[:40]!r} is no literal; {info.name} takes {_expected(info)}{file_hint}"
    )


# Which tensors are fetched and fed, told from the graph before anything is imported.


def choose_fetches(meta: MetaGraphFile, model: Model, asked: Sequence[str]) -> tuple[str, ...]:
    """The tensors to fetch, each once.

    Args:
      meta: the file.
      model: its description.
      asked: as the user wrote them: tensors, or keys of the signature. None of them means the
        collection `predict`, with what a classifier's report shows beside it, or else the outputs
        of the signature.

    Raises:
      CheckpointError: there is no such tensor.
      PredictionError: none is asked for and the file names none.
    """
    names = [meta.tensor_name(text, model.fetch_keys) for text in asked]
    if not names:
        names = [*model.predict, *report_tensors(model)] or list(model.outputs.values())
    if not names:
        raise PredictionError(
            f"{meta.path} has neither a collection 'predict' nor a signature that names an "
            f"output: name what to compute with --fetch{fetchable(meta, model)}"
        )
    return tuple(dict.fromkeys(names))


def report_tensors(model: Model) -> tuple[str, ...]:
    """What a classifier's report takes; nothing where the graph is something else."""
    if model.classifier is None:
        return ()
    return (model.classifier.probabilities, model.classifier.classes)


def choose_row_input(
    meta: MetaGraphFile,
    model: Model,
    fetches: Sequence[str],
    fed: Collection[str],
    fits: Callable[[TensorInfo], bool],
) -> str:
    """The tensor that --input is for.

    It is the signature's input, where there is one, or else the one tensor that has to be fed for
    the fetched ones and is not fed by name; of several, the one that the rows fit.

    Args:
      meta: the file.
      model: its description.
      fetches: the tensors that are fetched.
      fed: those that are fed by name.
      fits: whether the rows could be fed to a tensor.

    Raises:
      PredictionError: there is no such one.
    """
    candidates = tuple(name for name in model.inputs.values() if name not in fed)
    if len(model.inputs) != 1 or not candidates:
        candidates = unfed(meta, fetches, fed)
    if len(candidates) == 1:
        return candidates[0]
    fitting = _fitting(meta, candidates, fits)
    if len(fitting) == 1:
        logging.info("--input is for %s, the only one left that it fits", fitting[0])
        return fitting[0].name
    if candidates:
        raise PredictionError(
            f"--input could be for any of {described(meta, candidates)}: give each as "
            "--input name=file"
        )
    raise PredictionError(
        f"nothing is left for --input to feed: {', '.join(fetches)} need no other placeholder; "
        f"any tensor can be fed by name with --feed{feedable(meta, model, fetches)}"
    )


def _fitting(
    meta: MetaGraphFile, candidates: Sequence[str], fits: Callable[[TensorInfo], bool]
) -> list[TensorInfo]:
    """Those of the candidates that the rows fit; none where this TensorFlow lacks one's type."""
    try:
        return [info for info in describe_tensors(meta, candidates) if fits(info)]
    except CheckpointError:
        return []


def unfed(meta: MetaGraphFile, fetches: Sequence[str], fed: Collection[str]) -> tuple[str, ...]:
    """What `fetches` need beside what is fed: placeholders without a default.

    In place of one that is an iterator's handle, it is what comes out of the iterator.
    """
    needed = sub_graph(meta, fetches, fed)
    return tuple(dict.fromkeys(without_handles(needed, needed.unfed, fetches)))


def check_all_fed(meta: MetaGraphFile, fetches: Sequence[str], fed: Collection[str]) -> None:
    """Raises PredictionError where `fetches` need a tensor that is not fed, naming both."""
    missing = unfed(meta, fetches, fed)
    if missing:
        needing = next(fetch for fetch in fetches if unfed(meta, [fetch], fed))
        flags = " ".join(f"--feed {name.removesuffix(':0')}=..." for name in missing)
        raise PredictionError(
            f"{needing} needs {described(meta, missing)}: feed it with {flags}, or rows with "
            "--input name=file"
        )


def unneeded(meta: MetaGraphFile, fetches: Sequence[str], fed: Collection[str]) -> list[str]:
    """Those of the fed tensors that `fetches` do not depend on."""
    needed = sub_graph(meta, fetches, fed).feeds.union(fetches)
    return [name for name in fed if name not in needed]


def own_data(needed: SubGraph) -> list[str]:
    """The iterators in a sub-graph over data that the graph itself brings along."""
    nodes = needed.meta.nodes
    return sorted(name for name in needed.names if nodes[name].op == "OneShotIterator")


def depends_on(meta: MetaGraphFile, fetch: str, fed: Collection[str]) -> bool:
    """Whether a fetched tensor is computed from, or is, one of the fed ones."""
    return fetch in fed or bool(sub_graph(meta, [fetch], fed).feeds)
