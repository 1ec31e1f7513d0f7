"""One prediction from start to end: what predict.py does once its flags are read.

Whatever a user can mend is a CheckpointError, DataError or PredictionError of one line.
"""

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from enum import Enum, auto
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from tqdm import tqdm

from data.batches import read_ahead
from data.files import Indices
from errors import PredictionError
from metagraph.description import Array, Model, RunnableGraph, TensorInfo, as_numpy_dtype
from prediction import output, plan
from prediction.exact_rows import ExactRuns, MixedRowsError, filled
from prediction.file_inputs import RowInputs, Rows
from prediction.onnx_file import OnnxFile, find_onnx
from prediction.output import Classification, Report
from prediction.plan import Feed, ModelFile, answers
from prediction.request import MEGABYTE, PredictConfig

_SHOWN = 8  # Test images of a model of the built-in shapes, where no rows are given.
_OF = " of "  # Between a tensor and the image that a result is for; no tensor's name has spaces.


def predict(config: PredictConfig) -> str:
    """Predicts, writes the output file where one is asked for, and returns what to print."""
    if path := find_onnx(config.meta):
        return _predict(config, OnnxFile(path, config))
    from prediction import chosen_model

    return chosen_model.with_chosen(config, lambda c: _predict(c, chosen_model.open_graph(c)))


def _predict(config: PredictConfig, meta: ModelFile) -> str:
    if config.list:
        return _listing(config, meta)
    model = answers(meta).model(config)
    if config.output is not None:
        output.check_output(config.output, [*config.input, *config.feed])
    result, inputs = evaluate(config, meta, model)
    if config.output is not None:
        output.write_outputs(config.output, result.outputs, inputs.names)
    if config.format == "json":
        return output.as_json(result)
    _say_what_was_read(meta)
    return output.as_text(result, shorten=sys.stdout.isatty())


def _listing(config: PredictConfig, meta: ModelFile) -> str:
    """What the file holds, and whether its checkpoint has what the outputs need."""
    content, problems, end = answers(meta).listing(config)
    if config.format == "json":
        state = {"meta": meta.path, "checkpoint": answers(meta).checkpoint, "problems": problems}
        return json.dumps(content | state, ensure_ascii=False)
    _say_what_was_read(meta)
    return output.listing_text(content) + end


def _say_what_was_read(meta: ModelFile) -> None:
    """For text, whose lines on stdout are results alone; JSON has a place for it."""
    checkpoint = answers(meta).checkpoint
    variables = f", variables {checkpoint}" if checkpoint else ", which has no variables"
    if isinstance(meta, OnnxFile):
        variables = ", run by onnxruntime"
    elif checkpoint and meta.averaged:
        variables += ", in place of some their moving averages"
    logging.info("graph %s%s", meta.path, variables)


class Classified(NamedTuple):
    """What a classifier says of rows, and the rows; `checkpoint` is None without variables."""

    meta: str
    checkpoint: str | None
    model: Model
    inputs: RowInputs
    result: Classification


def classify(config: PredictConfig) -> Classified:
    """Predicts with a classifier; fetches, format and output of `config` are left alone.

    Without rows, a model of the built-in shapes is tested on all of their test images.
    """
    from prediction.chosen_model import with_model

    return with_model(config, functools.partial(_classify, config))


def _classify(config: PredictConfig, meta: ModelFile, model: Model) -> Classified:
    if model.classifier is None:
        raise PredictionError(
            f"{meta.path} does not say that it is a classifier: expected a signature with the "
            "results 'probabilities' [?, classes] and 'classes' [?]; predict.py --list shows what "
            "it has"
        )
    found, inputs = evaluate(dataclasses.replace(config, fetch=()), meta, model, shown=None)
    if found.classification is None:
        raise PredictionError(
            f"{meta.path}: its {model.classifier.probabilities} and {model.classifier.classes} "
            "do not fit the rows, or each other"
        )
    return Classified(found.meta, found.checkpoint, model, inputs, found.classification)


# The run itself: what is fetched, what is fed, and what comes of it.


def evaluate(
    config: PredictConfig, meta: ModelFile, model: Model, shown: int | None = _SHOWN
) -> tuple[Report, RowInputs]:
    """The results, and the rows that they are for; `shown` is that of `plan.open_demo`."""
    fetches = plan.choose_fetches(meta, model, config.fetch)
    feeds = plan.feeds_by_tensor(meta, model, config.feed, config.max_input_mb * MEGABYTE)
    inputs = _inputs(config, meta, model, fetches, feeds, shown)
    fed = [*feeds, *inputs.rows]
    is_report = not config.fetch or inputs.labels is not None
    wanted = list(dict.fromkeys([*fetches, *(plan.report_tensors(model) if is_report else ())]))
    plan.check_fed(meta, wanted, fed)
    with answers(meta).load(wanted, fed, config) as graph:
        values = [plan.value_for(info, feeds, inputs) for info in graph.feeds]
        results = _results(graph, values, inputs.names, meta, config)
    outputs = {n: v for n, v in results.items() if {n, n.partition(_OF)[0]} & {*fetches}}
    classification = _classification(results, model, inputs) if is_report else None
    checkpoint = answers(meta).checkpoint
    rows = not config.fetch
    return Report(meta.path, checkpoint, outputs, classification, rows, config.top_k), inputs


def _inputs(
    config: PredictConfig,
    meta: ModelFile,
    model: Model,
    fetches: Sequence[str],
    feeds: Mapping[str, Feed],
    shown: int | None,
) -> RowInputs:
    """The rows of --input, or those of the built-in data that the model was trained on."""
    if config.input:
        paths = plan.files_by_tensor(meta, model, fetches, config.input, feeds)
        infos = answers(meta).describe([*paths], config)
        return plan.open_inputs(infos, model, paths, config)
    missing = plan.unfed(meta, fetches, feeds)
    is_input = len(missing) == 1 and missing == tuple(model.inputs.values())
    if feeds or model.trained_on is None or not is_input:
        return RowInputs()
    (info,) = answers(meta).describe(missing, config)
    return plan.open_demo(info, model, shown)


def _results(
    graph: RunnableGraph,
    values: Sequence[Rows | Array],
    row_names: Sequence[str],
    meta: ModelFile,
    config: PredictConfig,
) -> dict[str, Array]:
    """The values of fetched tensors, by name; `y:0 of a.png` where images differ in its shape."""
    fed = {i.name: v for i, v in zip(graph.feeds, values, strict=True) if isinstance(v, Rows)}
    if fed:
        kinds = [_kind(meta, info, fed) for info in graph.fetches]
        results = run_rows(graph, values, kinds, config.batch_size, exact=config.exact_rows)
        if any(rows.columns for rows in fed.values()):
            for number, (info, kind) in enumerate(zip(graph.fetches, kinds, strict=True)):
                if kind is not Kind.CONSTANT and info.shape and info.shape[-1] is None:
                    results[number] = np.moveaxis(results[number], -1, 0)
    else:
        arrays = [value for value in values if not isinstance(value, Rows)]
        results = graph.run(*arrays)
        _warn_if_random(graph, arrays, results)
    plain: dict[str, Array] = {}
    for info, value in zip(graph.fetches, results, strict=True):
        if isinstance(value, list):
            names = (f"{info.name}{_OF}{row}" for row in row_names)
            plain.update(zip(names, map(as_numpy_dtype, value), strict=True))
            continue
        plain[info.name] = as_numpy_dtype(value)
        if plain[info.name].dtype != value.dtype:
            dtypes = value.dtype, plain[info.name].dtype
            logging.info("%s: its %s values are given as %s", info.name, *dtypes)
    return plain


def _warn_if_random(graph: RunnableGraph, fed: Sequence[Array], results: Sequence[Array]) -> None:
    if graph.random_nodes:
        from metagraph.session import warn_if_random

        warn_if_random(graph, fed, results)


def _classification(
    results: Mapping[str, Array], model: Model, inputs: RowInputs
) -> Classification | None:
    if model.classifier is None or not {*model.classifier[:2]} <= {*results}:
        return None
    classes = results[model.classifier.classes]
    probabilities = results[model.classifier.probabilities]
    names = inputs.names if inputs.rows else [str(row) for row in range(classes.size)]
    if not classes.shape == probabilities.shape[:1] == (len(names),):
        return None  # The signature names tensors that have nothing to do with the rows.
    if classes.min() < 0 or classes.max() >= probabilities.shape[1]:
        return None  # Nor with each other.
    return Classification(names, classes, probabilities, inputs.labels, model.class_names)


# How rows run through a graph, batch by batch.

DEFAULT_BATCH_SIZE = 256
DEFAULT_BATCH_BYTES = 2**28  # The most of a batch whose size is not given.


class Kind(Enum):
    """How a fetched tensor goes with the rows."""

    ROWS = auto()  # its first dimension is the row's
    CONSTANT = auto()  # it does not depend on the rows
    WHOLE = auto()  # one value over all rows, such as a mean


def _kind(meta: ModelFile, info: TensorInfo, fed: Collection[str]) -> Kind:
    """The kind of a fetched tensor, where rows are fed to those of these names."""
    if not answers(meta).depends(info.name, fed):
        return Kind.CONSTANT
    shape = info.shape
    return Kind.ROWS if shape is None or (shape and shape[0] is None) else Kind.WHOLE


class Batching(NamedTuple):
    """How rows are cut into runs: so many a run, and whether the graph takes no other number."""

    size: int
    fixed: bool


def choose_batching(
    feeds: Sequence[tuple[TensorInfo, Rows | Array]],
    fetches: Sequence[tuple[TensorInfo, Kind]],
    asked: int | None,
) -> Batching:
    """Cuts rows as the graph takes them, or else as was `asked` for, or else into fast runs."""
    infos, rows = zip(*(pair for pair in feeds if isinstance(pair[1], Rows)), strict=True)
    num_rows = len(rows[0])
    if any(feed.columns for feed in rows):
        return Batching(num_rows, fixed=False)
    sizes = {info.shape[0]: info.name for info in infos if info.shape and info.shape[0]}
    if len(sizes) > 1:
        described = ", ".join(f"{name} {size}" for size, name in sizes.items())
        raise PredictionError(f"the graph takes different numbers of rows a run: {described}")
    for size, name in sizes.items():
        if asked not in (None, size):
            raise PredictionError(f"{name} takes {size} rows a run: leave out --batch_size")
        return Batching(size, fixed=True)
    whole = next((info.name for info, kind in fetches if kind is Kind.WHOLE), None)
    if whole is None:
        return Batching(asked or _fast_size(rows), fixed=False)
    if asked is not None and asked < num_rows:
        raise PredictionError(
            f"{whole} is one value over all {num_rows} rows, not one a row: leave out "
            f"--batch_size, or give at least {num_rows}"
        )
    if num_rows > DEFAULT_BATCH_SIZE:
        logging.info("%s is one value over all %d rows: they run at once", whole, num_rows)
    return Batching(num_rows, fixed=False)


def _of_one_size(feeds: Sequence[Rows]) -> list[Indices]:
    """The numbers of the rows that may run together: images of one size, the largest first."""
    known = [feed.sizes for feed in feeds if feed.sizes]
    if not known:
        return [np.arange(len(feeds[0]))]
    groups: dict[Any, list[int]] = {}
    for row, sizes in enumerate(zip(*known, strict=True)):
        groups.setdefault(sizes, []).append(row)
    largest = sorted(groups, key=lambda sizes: -sum(map(math.prod, sizes)))
    return [np.array(groups[sizes]) for sizes in largest]


def _fast_size(feeds: Sequence[Rows]) -> int:
    """The rows of one run where nobody asks for a number: fewer where they are large."""
    return max(1, min(DEFAULT_BATCH_SIZE, DEFAULT_BATCH_BYTES // max(1, _row_bytes(feeds))))


def _row_bytes(feeds: Sequence[Rows]) -> int:
    """What the first row of the largest images takes in all feeds."""
    first = _of_one_size(feeds)[0][:1]
    firsts = [feed.take(first) for feed in feeds]
    return sum(sum(map(len, f.flat)) if f.dtype.kind == "O" else f.nbytes for f in firsts)


def run_rows(
    graph: RunnableGraph,
    feeds: Sequence[Rows | Array],
    kinds: Sequence[Kind],
    batch_size: int | None = None,
    *,
    exact: bool = False,
) -> list[Any]:
    """Runs all rows through the graph; gives the rows of each fetch in order, or its one value.

    `feeds` has, for each of `graph.feeds`, rows to be fed a batch at a time, or an array to be fed
    as it is in every batch; at least one has rows, and all that have are of equal length. `kinds`
    are those of `graph.fetches`. Where the graph takes a fixed number of rows, the last run is
    filled up, and its results are cut back. Where it takes any number, and `exact` is asked for,
    a row's results do not depend on the rows that run beside it, see `ExactRuns`. Raises
    PredictionError where rows and results do not go together in such batches.
    """
    rows = [feed for feed in feeds if isinstance(feed, Rows)]
    fed = [*zip(graph.feeds, feeds, strict=False)]
    batching = choose_batching(fed, [*zip(graph.fetches, kinds, strict=True)], batch_size)
    if Kind.WHOLE in kinds and not batching.fixed and len(_of_one_size(rows)) > 1:
        whole = graph.fetches[kinds.index(Kind.WHOLE)].name
        raise PredictionError(f"{whole} is one value over all rows, and images differ in size")
    is_plain = not exact or batching.fixed or not graph.is_pure or Kind.WHOLE in kinds
    if is_plain or any(feed.columns for feed in rows):
        return _run_batches(graph, graph.run, feeds, kinds, batching)
    are_rows, are_results = [isinstance(f, Rows) for f in feeds], [k is Kind.ROWS for k in kinds]
    with closing(ExactRuns(graph, are_rows, are_results, _row_bytes(rows))) as runs:
        # Some runs for each thread, as all wait for the last of them.
        wanted = batch_size or max(batching.size, 4 * runs.size * runs.threads)
        rounded = max(runs.tried, -(-wanted // runs.size) * runs.size)
        with suppress(MixedRowsError):
            return _run_batches(graph, runs.run, feeds, kinds, Batching(rounded, fixed=False))
    return _run_batches(graph, graph.run, feeds, kinds, batching)


def _run_batches(
    graph: RunnableGraph,
    run: Callable[..., list[Array]],
    feeds: Sequence[Rows | Array],
    kinds: Sequence[Kind],
    batching: Batching,
) -> list[Any]:
    """Runs the rows batch by batch, with a progress bar; see `run_rows`."""
    given = [feed for feed in feeds if isinstance(feed, Rows)]
    num_rows, groups, (size, fixed) = len(given[0]), _of_one_size(given), batching
    several = len(groups) > 1
    runs = [group[at : at + size] for group in groups for at in range(0, len(group), size)]
    values: list[Any] = [None] * len(kinds)
    # The bar appears after a second, on a terminal only, and goes when it is full.
    with tqdm(
        total=num_rows, unit="row", file=sys.stderr, disable=None, leave=False, delay=1
    ) as progress:
        for step, batch in enumerate(_batches(feeds, batching, runs)):
            results, numbers = run(*batch), runs[step]
            rows = len(numbers)
            if step == 0:
                _warn_if_random(graph, batch, results)
            if rows == num_rows and (rows == size or not fixed):
                return results  # One run of all rows: its values as they are.
            is_alone = (fixed and size == 1) or (several and rows == 1)
            for number, (info, kind) in enumerate(zip(graph.fetches, kinds, strict=True)):
                result, value = results[number], values[number]
                if kind is Kind.CONSTANT:
                    values[number] = result if value is None else value
                    continue
                is_whole = is_alone and result.shape[:1] != (1,)  # All of it is that row's.
                result = result[np.newaxis] if is_whole else result
                if value is None:
                    shape = (num_rows, *result.shape[1:])
                    value = values[number] = {} if several else np.empty(shape, result.dtype)
                expected = (size if fixed else rows, *(result if several else value).shape[1:])
                _check_shape(info.name, result, expected, batching, num_rows)
                if several:
                    value.update(zip(numbers, np.split(result[:rows], rows), strict=True))
                else:
                    value[numbers] = result[:rows]
            progress.update(rows)
    return [_in_order(value) if isinstance(value, dict) else value for value in values]


def _in_order(rows: Mapping[int, Array]) -> Array | list[Array]:
    """Rows [1, ...] as one array; each by itself where they are of several shapes."""
    ordered = [rows[number] for number in sorted(rows)]
    return np.concatenate(ordered) if len({row.shape for row in ordered}) == 1 else ordered


def _batches(
    feeds: Sequence[Rows | Array], batching: Batching, runs: Sequence[Indices]
) -> Iterator[list[Array]]:
    """What each run is fed, the rows of these numbers, read while the one before it runs."""

    def fed(feed: Rows | Array, numbers: Indices) -> Array:
        if not isinstance(feed, Rows):
            return feed
        rows = feed.take(numbers)
        return filled(rows, batching.size) if batching.fixed else rows

    return read_ahead(lambda step: [fed(feed, runs[step]) for feed in feeds], 0, len(runs))


def _check_shape(
    name: str, result: Array, expected: Sequence[int], batching: Batching, num_rows: int
) -> None:
    """Raises PredictionError where a result has not one entry a row."""
    if result.shape == expected:
        return
    found = f"{name} has shape {list(result.shape)} for"
    if batching.fixed:
        raise PredictionError(
            f"{found} the {batching.size} rows that the graph takes a run, and no row's own part "
            f"can be told in it: give exactly {batching.size} rows"
        )
    raise PredictionError(
        f"{found} {expected[0]} rows, not one entry a row: run all of them at once with "
        f"--batch_size={num_rows}"
    )
