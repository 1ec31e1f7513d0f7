"""One freeze from start to end: what tools.freeze does once its flags are read."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data import files
from metagraph.meta import MetaGraphFile, TensorInfo
from metagraph.model import checkpoint_of
from metagraph.parsing import add_description
from metagraph.session import describe_tensors
from prediction.chosen_model import with_model
from prediction.output import check_target, write_whole
from tools.command import Record, format_bytes, table
from tools.freeze import FreezeConfig
from tools.frozen_comparison import freeze_and_compare
from tools.frozen_graph import TABLE_INITIALIZERS
from tools.graph_nodes import graph_parts


class Frozen(NamedTuple):
    """What was written.

    Attributes:
      output: the file.
      meta: the file of the graph.
      checkpoint: the prefix of its variables; None where it has none.
      inputs: those of the frozen graph, by their keys in the signature.
      outputs: the same of what it gives.
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
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    off: Mapping[str, bool | float]
    nodes: int
    size: int
    tables: Sequence[str]
    largest_difference: float
    random: Sequence[str]


def freeze_to_file(config: FreezeConfig) -> Frozen:
    """Freezes, compares with the original, and writes the file only where all is equal.

    Raises:
      CheckpointError, DataError, PredictionError, ToolError: one line for the user.
    """
    return with_model(config, lambda meta, _: _freeze(config, meta))


def _freeze(config: FreezeConfig, meta: MetaGraphFile) -> Frozen:
    check_target(config.output, [meta.path, *config.asset.values()], overwrite=config.overwrite)
    frozen, reference, difference = freeze_and_compare(meta, config, config.scope)
    add_description(frozen.meta, frozen.scope)
    write_whole(config.output, graph_parts(frozen.meta.graph_def))
    return Frozen(
        output=config.output,
        meta=meta.path,
        checkpoint=checkpoint_of(meta),
        inputs=_tensors(frozen.plan.inputs, frozen.inputs, meta),
        outputs=_tensors(frozen.plan.outputs, frozen.outputs, meta),
        off=frozen.plan.off,
        nodes=len(frozen.meta.graph_def.node),
        size=files.size(config.output),
        tables=[*frozen.meta.collection_def[TABLE_INITIALIZERS].node_list.value],
        largest_difference=difference,
        random=reference.random,
    )


def _tensors(
    names: Mapping[str, str], kept: Mapping[str, str], meta: MetaGraphFile
) -> dict[str, TensorInfo]:
    """The tensors that are `kept` by their keys, as those called `names` are in the file."""
    infos = describe_tensors(meta, [names[key] for key in kept]) if kept else ()
    pairs = zip(kept.items(), infos, strict=True)
    return {key: info._replace(name=name) for (key, name), info in pairs}


def as_record(frozen: Frozen) -> Record:
    """For JSON: the fields of `Frozen`.

    `inputs` and `outputs` are objects by key, each value an object of `name`, `dtype` and `shape`
    (null where the rank is not known, and for each size that is not).
    """
    tensors = {
        kind: {
            key: {"name": info.name, "dtype": info.dtype.name, "shape": info.shape}
            for key, info in infos.items()
        }
        for kind, infos in (("inputs", frozen.inputs), ("outputs", frozen.outputs))
    }
    return {**frozen._asdict(), **tensors}


def as_text(frozen: Frozen) -> str:
    """Lines for people."""
    rows = [("input", key, str(info)) for key, info in frozen.inputs.items()]
    rows += [("output", key, str(info)) for key, info in frozen.outputs.items()]
    rows += [("off", name, str(value)) for name, value in frozen.off.items()]
    rows += [("table", name, "to be run first in a session") for name in frozen.tables]
    head = f"{frozen.output}: {frozen.nodes} nodes, {format_bytes(frozen.size)}"
    lines = [head, *table(rows, indent=2)]
    if len(frozen.random) < len({info.name for info in frozen.outputs.values()}):
        lines.append(f"largest difference from the original: {frozen.largest_difference:g}")
    return "\n".join(lines)
