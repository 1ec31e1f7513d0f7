"""One freeze from start to end: what tools.freeze does once its flags are read."""

from collections.abc import Mapping
from typing import NamedTuple

from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_description import add_description
from checkpoints.loading.tensor_info import TensorInfo
from data import files
from prediction.checkpoint_state import checkpoint_of
from prediction.chosen_model import with_model
from prediction.output_file import write_whole
from tools.common.output import Record, format_bytes, table
from tools.common.target_file import check_target
from tools.freezing.comparison import freeze_and_compare
from tools.freezing.config import FreezeConfig
from tools.freezing.graph_parts import graph_parts
from tools.freezing.tables import TABLE_INITIALIZERS


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
      off: tensor of the original -> the value it has for good; training switches and dropouts.
      nodes: how many the graph has.
      size: bytes of the file.
      tables: nodes that fill lookup tables, to be run first in a session.
      largest_difference: between the original and the frozen graph, on the same batch.
      random: outputs of the original that are random, and were not compared.
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
    return with_model(config, lambda meta, _: _freeze(config, meta))


def _freeze(config: FreezeConfig, meta: MetaGraphFile) -> Frozen:
    check_target(config.output, [meta.path, *config.asset.values()], overwrite=config.overwrite)
    compared = freeze_and_compare(meta, config.request)
    frozen, plan = compared.frozen, compared.frozen.plan
    add_description(frozen.meta, frozen.scope)
    write_whole(config.output, graph_parts(frozen.meta.graph_def))
    return Frozen(
        output=config.output,
        meta=meta.path,
        checkpoint=checkpoint_of(meta),
        inputs=_tensors(meta, plan.inputs, frozen.inputs),
        outputs=_tensors(meta, plan.outputs, frozen.outputs),
        off=plan.off,
        nodes=len(frozen.meta.graph_def.node),
        size=files.size(config.output),
        tables=tuple(frozen.meta.collection_def[TABLE_INITIALIZERS].node_list.value),
        largest_difference=compared.difference,
        random=compared.reference.random,
    )


def _tensors(
    meta: MetaGraphFile, names: Mapping[str, str], kept: Mapping[str, str]
) -> tuple[Tensor, ...]:
    """The tensors that are `kept` by their keys, as those called `names` are in the file."""
    infos = describe_tensors(meta, [names[key] for key in kept]) if kept else ()
    pairs = zip(kept.items(), infos, strict=True)
    return tuple(Tensor(key, info._replace(name=name)) for (key, name), info in pairs)


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
