"""What a prediction gives: text for people, JSON for programs, or a .npz, .json or .csv file."""

import contextlib
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import file_io
from cli.terminal import one_line
from data import files
from errors import PredictionError, ToolError, first_few
from metagraph.description import Array, TensorInfo, format_shape, json_value

_MOST_ROWS, _FIRST_ROWS = 50, 10  # On a terminal, those shown, and those of more.


class Classification(NamedTuple):
    """What a classifier says of N rows in K classes."""

    names: Sequence[str]  # Of the rows: files, or numbers from 0.
    classes: npt.NDArray[np.int64]  # [N], in [0, K).
    probabilities: Array  # Float [N, K].
    labels: npt.NDArray[np.int64] | None  # [N], the true classes; None where unknown.
    class_names: Sequence[str]  # K, or empty where the classes have none.

    def class_name(self, index: int) -> str:
        """The name of a class; its number where it has none."""
        return self.class_names[index] if index < len(self.class_names) else str(index)

    @property
    def probability(self) -> Array:
        """Of each row's class: float [N]."""
        return np.asarray(self.probabilities[np.arange(len(self.classes)), self.classes])

    def likeliest(self, count: int) -> Iterator[tuple[str, list[tuple[str, Any]], str | None]]:
        """Each row's name; its class, then others, with probabilities as JSON; its true class."""
        order = self.classes[:, np.newaxis]
        if count > 1:
            ranked = self.probabilities.astype(np.float64)
            np.put_along_axis(ranked, order, np.inf, axis=1)
            order = np.argsort(-ranked, axis=1, kind="stable")[:, :count]
        values = json_value(np.take_along_axis(self.probabilities, order, axis=1))
        for row, name in enumerate(self.names):
            label = None if self.labels is None else self.class_name(int(self.labels[row]))
            classes = map(self.class_name, order[row].tolist())
            yield name, [*zip(classes, values[row], strict=True)], label


class Share(NamedTuple):
    """How many rows of some are right."""

    right: int
    of: int

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.right / self.of

    def __str__(self) -> str:
        return f"{self.accuracy:.4f} ({self.right} of {self.of})"


def accuracy(result: Classification, labels: npt.NDArray[np.int64]) -> Share:
    """How many rows have the class of their label."""
    return Share(int(np.sum(result.classes == labels)), len(labels))


def _accuracy_per_class(result: Classification, labels: npt.NDArray[np.int64]) -> dict[str, Share]:
    """For each class that the labels name, how many of its rows are right."""
    members = {int(label): labels == label for label in np.unique(labels)}
    return {
        result.class_name(label): Share(int(np.sum(result.classes[rows] == label)), int(rows.sum()))
        for label, rows in members.items()
    }


class Report(NamedTuple):
    """The results of one prediction."""

    meta: str  # The file of the graph.
    checkpoint: str | None  # The prefix of its variables.
    outputs: Mapping[str, Array]
    classification: Classification | None
    rows: bool  # Whether the classification's rows are shown in place of the tensors.
    top_k: int = 1  # How many classes of a row are shown.


def as_text(report: Report, *, shorten: bool = False) -> str:
    """Lines for people: a classifier's rows, perhaps the first of many, or else the tensors."""
    result = report.classification
    lines = [] if result and report.rows else [*_tensor_lines(report.outputs)]
    if result is not None and report.rows:
        lines = [*_row_lines(result, report.top_k)]
        if shorten and len(lines) > _MOST_ROWS:
            counts = Counter(map(result.class_name, result.classes.tolist())).most_common()
            told = [f"{one_line(name)} {count}" for name, count in counts]
            more = f"... and {len(lines) - _FIRST_ROWS} more rows (all with --output or in a pipe)"
            lines[_FIRST_ROWS:] = [more, first_few(told, _FIRST_ROWS)]
    if result is not None and result.labels is not None:
        lines.append(f"accuracy {accuracy(result, result.labels)}")
        shares = _accuracy_per_class(result, result.labels)
        lines += [f"  {one_line(name)} {share}" for name, share in shares.items()]
    return "\n".join(lines)


def _row_lines(result: Classification, top_k: int) -> Iterator[str]:
    """`cat/0001.png  cat  0.9871  true: dog`, in columns."""
    rows = [*result.likeliest(top_k)]
    name_width = max(len(one_line(name)) for name, _, _ in rows)
    class_width = max(len(one_line(name)) for _, top, _ in rows for name, _ in top)
    for name, top, label in rows:
        cells = [f"{one_line(name):<{name_width}}"]
        cells += [f"{one_line(found):<{class_width}}  {float(p):.4f}" for found, p in top]
        yield "  ".join(cells if label is None else [*cells, f"true: {one_line(label)}"])


def _tensor_lines(outputs: Mapping[str, Array]) -> Iterator[str]:
    """The name, dtype and shape of each tensor, then its value as NumPy prints it.

    NumPy shortens arrays of over 1000 values; --format=json and --output hold them all.
    """
    for name, value in outputs.items():
        dtype = "string" if value.dtype.kind == "O" else value.dtype
        yield f"{one_line(name)} {dtype} {format_shape(value.shape)}"
        yield np.array2string(value)


def as_json(report: Report) -> str:
    """One JSON document, as `docs/json.md` has it."""
    document: dict[str, Any] = {
        "meta": report.meta,
        "checkpoint": report.checkpoint,
        "outputs": {name: json_value(value) for name, value in report.outputs.items()},
    }
    result = report.classification
    if result is not None and report.rows:
        document["predictions"] = records = []
        for name, likeliest, label in result.likeliest(report.top_k):
            top = [{"class": found, "probability": value} for found, value in likeliest]
            record = {"name": name, **top[0], **({"top": top} if report.top_k > 1 else {})}
            records.append(record if label is None else record | {"label": label})
    if result is not None and result.labels is not None:
        document["accuracy"] = accuracy(result, result.labels).accuracy
        shares = _accuracy_per_class(result, result.labels)
        document["accuracy_per_class"] = {name: s.accuracy for name, s in shares.items()}
    return json.dumps(document, ensure_ascii=False, allow_nan=False)


# What a file of a model holds, for --list.

_MAX_SHOWN_ENTRIES = 10
_MAX_SHOWN_LINES = 300  # Of one part of the list.
ALL_IN_JSON = "--format=json has all"
TITLES = {
    "inputs": "inputs",
    "pipeline": "to feed in place of the input pipeline",
    "outputs": "outputs",
    "candidates": "possible outputs",
    "variables": "variables",
}
_OPTIONAL = ("pipeline", "candidates")
Record = dict[str, Any]


def tensor_record(info: TensorInfo) -> Record:
    """A tensor as JSON values."""
    shape = None if info.shape is None else [*info.shape]
    return {"name": info.name, "dtype": info.dtype.name, "shape": shape}


def listing_text(content: Record) -> str:
    """Lines for people."""
    lines = []
    for key, title in TITLES.items():
        if content[key] or key not in _OPTIONAL:
            texts = [*map(tensor_text, content[key])]
            lines += [title, *shortened(texts or ["(none)"], _MAX_SHOWN_LINES)]
    signature = content["signature"]
    lines.append(f"signature {signature['name']}".rstrip())
    for title in ("input", "output"):
        named = signature[f"{title}s"].items()
        lines += shortened([f"{title} {key} = {name}" for key, name in named], _MAX_SHOWN_LINES)
    others = [name for name in content["signatures"] if name != signature["name"]]
    if others:
        choose = "signatures, to choose from with --signature"
        lines.append("other signatures, for --signature" if signature["name"] else choose)
        lines += shortened(others, _MAX_SHOWN_LINES)
    texts = []
    for key, found in content["collections"].items():
        entries = found if isinstance(found, list) else [f"({found} entries)"]
        texts.append(f"{key} = {first_few([*map(str, entries)], _MAX_SHOWN_ENTRIES)}")
    lines += ["collections", *shortened(texts, _MAX_SHOWN_LINES)]
    return "\n".join(map(one_line, lines))


def shortened(lines: Sequence[str], most: int, indent: str = "  ") -> list[str]:
    """The first lines, and how many more there are; all indented."""
    more = len(lines) - most
    rest = [f"... and {more} more ({ALL_IN_JSON})"] if more > 0 else []
    return [indent + line for line in (*lines[:most], *rest)]


def tensor_text(record: Mapping[str, Any]) -> str:
    """`x:0  float32 [?, 4]`, and its default where it has one."""
    default = f", default {json.dumps(record['default'])}" if "default" in record else ""
    return f"{record['name']}  {kind_text(record)}{default}"


def kind_text(record: Mapping[str, Any]) -> str:
    """`float32 [?, 4]`, of the keys `dtype` (null where not known) and `shape`."""
    if record["dtype"] is None:
        return "unknown here"
    return f"{record['dtype']} {format_shape(record['shape'])}"


# Files, written as a whole or not at all.

Outputs = Mapping[str, Array]
_TEMPORARY = ".tmp"  # After the name, as `data.files.write_atomically` does.


def check_target(path: str, given: Sequence[str], *, overwrite: bool, flag: str = "output") -> None:
    """As `check_output`; ToolError where the file is there and may not be overwritten."""
    check_output(path, given, flag)
    if files.exists(path) and not overwrite:
        raise ToolError(f"--{flag}={path} is there already; --overwrite replaces it")


def check_output(path: str, given: Sequence[str] = (), flag: str = "output") -> None:
    """Finds out before a long run whether a file can be written at `path`; leaves no trace.

    Folders that are missing are made when it is written. What is read is not written over: `given`
    has the values of other flags, each with or without `name=` before a path. PredictionError says
    why it cannot.
    """
    named = f"--{flag}={path}"
    if file_io.is_folder(path):
        raise PredictionError(f"{named} is a folder; expected the name of a file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise PredictionError(f"{named} is no regular file; expected the name of one")
    for text in given if os.path.exists(path) else ():
        read = filter(os.path.exists, (text, text.partition("=")[2]))
        if any(os.path.samefile(path, other) for other in read):
            raise PredictionError(f"{named} is read too ({text}); give it another name")
    folder = os.path.dirname(path)
    while folder and "://" not in path and not os.path.exists(folder):
        folder = os.path.dirname(folder)  # The nearest that is there.
    probe = f"{os.path.join(folder, os.path.basename(path))}{_TEMPORARY}"
    try:
        file_io.write_file(probe, b"")
        file_io.remove(probe)
    except OSError as error:
        told = f"{probe}: {error.strerror or error}"
        raise PredictionError(f"{named} cannot be written: {told}") from error


def write_outputs(path: str, outputs: Outputs, row_names: Sequence[str]) -> None:
    """Writes one entry per tensor, under its name.

    .npz: arrays, strings as fixed-width bytes. .json: an object of nested lists. .csv: a header,
    then a line per row with a column `row` (its name) and one for each value of it. Raises
    PredictionError where the file cannot hold them, DataError where the file system refuses, as
    when the disk is full; after either, nothing is left of the file.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".csv":
        content = _csv(outputs, row_names)
    elif suffix == ".npz":
        content = _npz(outputs)
    else:
        values = {name: json_value(value) for name, value in outputs.items()}
        content = (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode()
    write_whole(path, content)


def write_whole(path: str, content: bytes | Iterable[bytes]) -> None:
    """Writes a file as a whole, and cleans up after an interrupt too."""
    try:
        files.write_atomically(path, content)
    except BaseException:
        with contextlib.suppress(OSError):
            file_io.remove(f"{path}{_TEMPORARY}")
        raise


def _npz(outputs: Outputs) -> bytes:
    content, arrays = io.BytesIO(), dict(outputs)
    for name, value in outputs.items():
        if value.dtype.kind == "O":  # It would be pickled. NumPy's bytes lose zeros at their ends.
            if any(text.endswith(b"\0") for text in value.flat):
                raise PredictionError(
                    f"{name} has texts that end in a zero byte, which an .npz cannot keep: use "
                    "--output with .json"
                )
            arrays[name] = value.astype("S")
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _csv(outputs: Outputs, row_names: Sequence[str]) -> bytes:
    if len({value.shape[:1] for value in outputs.values()}) > 1:
        shapes = ", ".join(f"{name} {format_shape(v.shape)}" for name, v in outputs.items())
        raise PredictionError(
            f"no table can be made of {shapes}: their first dimensions differ; use --output with "
            ".npz or .json, or fetch fewer"
        )
    num_rows = max((value.shape[0] for value in outputs.values() if value.ndim), default=1)
    names = row_names if len(row_names) == num_rows else [str(row) for row in range(num_rows)]
    columns = [value.reshape(num_rows, -1) for value in outputs.values()]
    header = ["row"]  # `y:0` for one value a row, `logits:0[0]`, `logits:0[1]`, ... for several.
    for name, value in outputs.items():
        indices = np.ndindex(value.shape[1:])
        header += [name + (f"[{','.join(map(str, at))}]" if at else "") for at in indices]
    content = io.BytesIO()  # The text is encoded as it grows: it is never there as a whole.
    table = io.TextIOWrapper(content, encoding="utf-8", newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    for row, name in enumerate(names):
        writer.writerow([name, *(_cell(v) for column in columns for v in column[row])])
    table.flush()
    return content.getvalue()


def _cell(value: object) -> str:
    """The shortest text that reads back as the same value."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
