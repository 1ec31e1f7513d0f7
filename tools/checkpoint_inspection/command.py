"""One inspection from start to end: what tools.inspect_checkpoint does once its flags are read."""

import functools
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import tensorflow as tf
from absl import logging

from checkpoints import naming
from checkpoints.errors import CheckpointError
from checkpoints.loading.graph_files import SAVED_MODEL_FILES
from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.loading.variable_files import find_variables
from checkpoints.newest import Hold, read_newest
from prediction.json_values import json_value
from tools.checkpoint_inspection.contents import Contents, TensorEntry, read_contents
from tools.checkpoint_inspection.folder_list import FolderList, list_checkpoints
from tools.checkpoint_inspection.named_values import find_named, read_named, read_tensor
from tools.checkpoint_inspection.roles import ROLES
from tools.checkpoint_inspection.statistics import statistics
from tools.checkpoint_inspection.text import value_text
from tools.common.errors import ToolError
from tools.common.output import Record

_FACTS = ("step", "saved_at", "environment", "config", "test_accuracy")
_READING = "reading the graph"


@dataclass(frozen=True)
class InspectConfig:
    """What is asked for.

    Attributes:
      ckpt: a checkpoint, or a folder.
      tensors: names of those whose values are wanted.
      stats: whether statistics are wanted.
      filter: a regular expression that the names of the listed tensors match somewhere.
      format: of what is printed, `text` or `json`; as text, a value is shortened.
      max_meta_bytes: the size of the largest file of a graph that is read.
      time_limit: of reading the graph.
    """

    ckpt: str
    tensors: Sequence[str] = ()
    stats: bool = False
    filter: str | None = None
    format: str = "text"
    max_meta_bytes: int = DEFAULT_MAX_BYTES
    time_limit: TimeLimit = TimeLimit()  # noqa: RUF009 (it is frozen)


def inspect(config: InspectConfig) -> Record:
    """Looks into a checkpoint or a folder.

    Returns:
      As JSON values, one of three records, told by its keys:

      - of a folder, where no tensor of it is asked for: `folder`; `checkpoints`, a list of what
        `Listed` has; `newest` and `best`, names or null; `state_file`, null where there is none:
        `names` (or null) and `right`, whether that is the newest.
      - where values are asked for: `checkpoint`, the prefix; `values`, a list of `name` (as it was
        asked for), `key`, `variable` (of the graph, where it is not all of its key's tensor),
        `dtype`, `shape`, `value` (a number, text or nested list; for people, a text), and with
        --stats `stats`.
      - else: `checkpoint`; `format`, `V1` or `V2`; `files` of values, each `name` and `bytes`;
        `graph`, its path or null; `manifest`, null or `step`, `saved_at`, `environment`, `config`,
        `test_accuracy`; `tensors`, a list of `key`, `path` (of objects; else the key), `dtype`,
        `shape`, `values` (how many), `bytes` (in memory; null of texts), `disk_bytes` (null in
        V1), `role` (`model`, `slot` or `other`), `slices` (that it was saved in; 0 where whole,
        null where unknown), `files`, `variables`, and with --stats `stats`; `totals`, role or
        `all` -> `tensors`, `values`, `bytes`, `disk_bytes`.

      `stats` is `min`, `max`, `mean` and `std` of the finite values, each null where there is
      none, and the counts `nan` and `inf`.

    Raises:
      CheckpointError, ToolError: one line for the user.
    """
    return read_newest([config.ckpt], functools.partial(_inspect, config))


def _inspect(config: InspectConfig, hold: Hold) -> Record:
    wants_tensors = bool(config.tensors) or config.stats or config.filter is not None
    if _is_folder(config.ckpt):
        found = list_checkpoints(config.ckpt, hold)
        if not wants_tensors:
            return _folder_record(found)
        if found.newest is None:
            raise CheckpointError(f"--ckpt={config.ckpt}: none of its checkpoints is whole")
        prefix = os.path.join(config.ckpt, found.newest)
        logging.info("of %s the newest is read, %s", config.ckpt, found.newest)
    else:
        prefix = find_variables(config.ckpt)
        hold(prefix)
    with config.time_limit.over(_READING):
        contents = read_contents(prefix, config.max_meta_bytes)
    if config.tensors:
        return _values_record(contents, config)
    return _contents_record(contents, config)


def _is_folder(path: str) -> bool:
    """Whether a path stands for a folder's list: not for a checkpoint that is called like one."""
    if tf.io.gfile.exists(path + naming.INDEX_SUFFIX) or not tf.io.gfile.isdir(path):
        return False
    return not any(tf.io.gfile.exists(os.path.join(path, name)) for name in SAVED_MODEL_FILES)


def _folder_record(found: FolderList) -> Record:
    state = {"names": found.named, "right": found.is_state_right}
    return {
        "folder": found.path,
        "checkpoints": [asdict(entry) for entry in found.checkpoints],
        "newest": found.newest,
        "best": found.best,
        "state_file": state if found.has_state_file else None,
    }


def _values_record(contents: Contents, config: InspectConfig) -> Record:
    asked = [find_named(contents, name) for name in config.tensors]  # Before any is read.
    values = []
    for named in asked:
        array = read_named(contents, named)
        values.append(
            {
                **named._asdict(),
                "dtype": contents.reader.dtypes[named.key].name,
                "shape": list(array.shape),
                "value": json_value(array) if config.format == "json" else value_text(array),
                **({"stats": statistics(array)._asdict()} if config.stats else {}),
            }
        )
    return {"checkpoint": contents.reader.prefix, "values": values}


def _contents_record(contents: Contents, config: InspectConfig) -> Record:
    said = contents.manifest
    entries = [e for e in contents.tensors if re.search(config.filter or "", e.key)]
    if config.filter is not None and not entries:
        raise ToolError(
            f"--filter={config.filter} matches none of the {len(contents.tensors)} tensors of "
            f"{contents.reader.prefix}"
        )
    return {
        "checkpoint": contents.reader.prefix,
        "format": contents.reader.version,
        "files": [
            {"name": os.path.basename(file), "bytes": size}
            for file, size in zip(contents.reader.files, contents.reader.sizes, strict=True)
        ],
        "graph": contents.meta.path if contents.meta else None,
        "manifest": _manifest_record(said._asdict()) if said else None,
        "tensors": [_tensor_record(contents, entry, config.stats) for entry in entries],
        "totals": {
            **{role: _total(e for e in entries if e.role == role) for role in ROLES},
            "all": _total(entries),
        },
    }


def _manifest_record(said: Record) -> Record:
    """What it says of the run; a NaN, which JSON has not, as a text."""
    facts = {name: said[name] for name in _FACTS}
    record: Record = json.loads(json.dumps(facts), parse_constant=str)
    return record


def _tensor_record(contents: Contents, entry: TensorEntry, with_stats: bool) -> Record:
    record = {
        "key": entry.key,
        "dtype": entry.dtype,
        "shape": list(entry.shape),
        "values": entry.values,
        "bytes": entry.bytes,
        "disk_bytes": entry.stored.disk_bytes,
        "role": entry.role,
        "path": entry.path,
        "slices": entry.stored.slices,
        "files": [os.path.basename(file) for file in entry.stored.files],
        "variables": list(entry.variables),
    }
    if with_stats:
        record["stats"] = statistics(read_tensor(contents, entry.key))._asdict()
    return record


def _total(entries: Iterable[TensorEntry]) -> Record:
    tensors = values = size = disk = 0
    for entry in entries:
        tensors += 1
        values += entry.values
        size += entry.bytes if entry.bytes is not None else (entry.stored.disk_bytes or 0)
        disk += entry.stored.disk_bytes or 0
    return {"tensors": tensors, "values": values, "bytes": size, "disk_bytes": disk}
