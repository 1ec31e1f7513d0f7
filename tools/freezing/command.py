"""One freeze from start to end: what tools.freeze does once its flags are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import tensorflow as tf

from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_description import add_description
from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.tensor_info import TensorInfo
from checkpoints.loading.time_limit import TimeLimit
from prediction.checkpoint_state import checkpoint_of
from prediction.command import PredictConfig, with_model
from prediction.model import Model
from tools.common.errors import ToolError
from tools.common.output import Record, format_bytes, table
from tools.freezing.comparison import largest_difference, run_frozen, run_original
from tools.freezing.frozen_graph import FreezeRequest, freeze_plan, plan_of
from tools.freezing.graph_writer import write_graph
from tools.freezing.tables import TABLE_INITIALIZERS


@dataclass(frozen=True)
class FreezeConfig:
    """What is asked for.

    Attributes:
      meta: what predict.py's --meta takes.
      output: the file to write.
      checkpoint: what predict.py's --ckpt takes; None for the graph's own.
      outputs: as of a `FreezeRequest`, and so are `inputs`, `signature`, `trust_graph`.
      asset: files for lookup tables, by name.
      overwrite: replace the file if there is one.
      time_limit: seconds that reading, an import and a run may take each; 0 for no limit.
      end_after: as of a `TimeLimit`.
      max_meta_bytes: the size of the largest file of a graph that is read.
    """

    meta: str
    output: str
    checkpoint: str | None = None
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    signature: str | None = None
    asset: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    trust_graph: bool = False
    time_limit: float = 60.0
    end_after: Callable[[float, str], None] | None = None
    max_meta_bytes: int = DEFAULT_MAX_BYTES


class Tensor(NamedTuple):
    """An input or an output of the frozen graph."""

    key: str
    info: TensorInfo


class Frozen(NamedTuple):
    """What was written.

    Attributes:
      output: the file.
      meta: the file of the graph.
      checkpoint: the prefix of its variables; None where it has none.
      inputs: with their keys in the signature.
      outputs: likewise.
      off: tensor -> the value it has for good; training switches and dropouts.
      nodes: how many the graph has.
      size: bytes of the file.
      tables: nodes that fill lookup tables, to be run first in a session.
      largest_difference: between the original and the frozen graph, on the same batch.
      random: outputs that are random, and were not compared.
    """

    output: str
    meta: str
    checkpoint: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    off: Mapping[str, bool | float]
    nodes: int
    size: int
    tables: tuple[str, ...]
    largest_difference: float
    random: tuple[str, ...]


def freeze_to_file(config: FreezeConfig) -> Frozen:
    """Freezes, compares with the original, and writes the file only where all is equal.

    Raises:
      CheckpointError, DataError, PredictionError, ToolError: one line for the user.
    """
    if tf.io.gfile.exists(config.output) and not config.overwrite:
        raise ToolError(f"{config.output} is there already: --overwrite replaces it")
    asked = PredictConfig(
        meta=config.meta,
        checkpoint=config.checkpoint,
        signature=config.signature,
        time_limit=config.time_limit,
        end_after=config.end_after,
        max_meta_bytes=config.max_meta_bytes,
    )
    return with_model(asked, lambda meta, model: _freeze(config, meta, model))


def _freeze(config: FreezeConfig, meta: MetaGraphFile, model: Model) -> Frozen:
    del model
    request = FreezeRequest(
        outputs=config.outputs,
        inputs=config.inputs,
        signature=config.signature,
        trust_graph=config.trust_graph,
        assets=config.asset,
        time_limit=TimeLimit(config.time_limit, config.end_after),
    )
    plan = plan_of(meta, request)
    reference = run_original(plan, request)  # Its values are freed before others are read.
    frozen = freeze_plan(plan, request)
    difference = largest_difference(
        reference, run_frozen(frozen, reference, request), "the frozen graph"
    )
    add_description(frozen.meta)
    size = write_graph(frozen.meta.graph_def, config.output)
    return Frozen(
        output=config.output,
        meta=meta.path,
        checkpoint=checkpoint_of(meta),
        inputs=_tensors(meta, frozen.inputs),
        outputs=_tensors(meta, frozen.outputs),
        off=plan.off,
        nodes=len(frozen.meta.graph_def.node),
        size=size,
        tables=tuple(frozen.meta.collection_def[TABLE_INITIALIZERS].node_list.value),
        largest_difference=difference,
        random=reference.random,
    )


def _tensors(meta: MetaGraphFile, names: Mapping[str, str]) -> tuple[Tensor, ...]:
    infos = describe_tensors(meta, list(names.values())) if names else ()
    return tuple(Tensor(key, info) for key, info in zip(names, infos, strict=True))


def as_record(frozen: Frozen) -> Record:
    """For JSON: the fields of `Frozen`.

    `inputs` and `outputs` are objects by key, each value an object of `name`, `dtype` and `shape`
    (null where the rank is not known, and for each size that is not).
    """
    return {
        **frozen._asdict(),
        "inputs": _records(frozen.inputs),
        "outputs": _records(frozen.outputs),
        "off": dict(frozen.off),
        "tables": list(frozen.tables),
        "random": list(frozen.random),
    }


def _records(tensors: tuple[Tensor, ...]) -> Record:
    return {
        key: {
            "name": info.name,
            "dtype": info.dtype.name,
            "shape": None if info.shape is None else list(info.shape),
        }
        for key, info in tensors
    }


def as_text(frozen: Frozen) -> str:
    """Lines for people."""
    rows = [("input", key, str(info)) for key, info in frozen.inputs]
    rows += [("output", key, str(info)) for key, info in frozen.outputs]
    rows += [("off", name, str(value)) for name, value in frozen.off.items()]
    rows += [("table", name, "to be run first in a session") for name in frozen.tables]
    head = f"{frozen.output}: {frozen.nodes} nodes, {format_bytes(frozen.size)}"
    if len(frozen.random) == len({info.name for _, info in frozen.outputs}):
        return "\n".join([head, *table(rows, indent=2)])
    end = f"largest difference from the original: {frozen.largest_difference:g}"
    return "\n".join([head, *table(rows, indent=2), end])
