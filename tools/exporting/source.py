"""The model that is exported: frozen, and with what its session computes on one batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.tensor_info import TensorInfo
from prediction.casting import Array
from prediction.model import Model, read_model
from tools.common.errors import ToolError
from tools.exporting.config import ExportConfig
from tools.freezing.comparison import (
    Reference,
    freeze_and_compare,
    largest_difference,
    run_frozen,
)
from tools.freezing.frozen_graph import FrozenGraph


@dataclass(frozen=True)
class Source:
    """A frozen graph, and what the session of its checkpoint computes.

    Attributes:
      config: how it is exported.
      frozen: the graph.
      reference: a batch, and what the original computes with it.
    """

    config: ExportConfig
    frozen: FrozenGraph
    reference: Reference

    @cached_property
    def model(self) -> Model:
        """What the graph says of itself."""
        return read_model(self.frozen.as_file(self.frozen.plan.meta.path))

    @cached_property
    def inputs(self) -> dict[str, TensorInfo]:
        """By the signature's keys."""
        file = self.frozen.as_file(self.frozen.plan.meta.path)
        names = self.frozen.inputs
        infos = describe_tensors(file, [*names.values()]) if names else ()
        return dict(zip(names, infos, strict=True))

    @property
    def feeds(self) -> dict[str, Array]:
        """The batch, by the full names of the inputs."""
        return {name: self.reference.feeds[name] for name in self.frozen.inputs.values()}

    def on(self, feeds: Mapping[str, Array]) -> Reference:
        """What the session computes with another batch.

        Args:
          feeds: values of the inputs, by full tensor name.
        """
        asked = self.reference._replace(feeds=feeds)
        return asked._replace(results=run_frozen(self.frozen, asked, self.config.request))

    def check_ranks(self, format_name: str) -> None:
        """Raises ToolError where an input may be of any rank, of which other formats make one."""
        for info in self.inputs.values():
            if info.shape is None:
                raise ToolError(
                    f"{info.name} may have any shape, and {format_name} has to know how many "
                    f"dimensions there are: say it, as in --shape={info.name.removesuffix(':0')}=?"
                )


def freeze_source(config: ExportConfig, meta: MetaGraphFile) -> Source:
    """Freezes, and compares the frozen graph with the model.

    Raises:
      CheckpointError, ToolError: it cannot be frozen, run, or is not the same then.
    """
    compared = freeze_and_compare(meta, config.request)
    return Source(config, compared.frozen, compared.reference)


def check_close(
    reference: Reference, results: Mapping[str, Array], tolerance: float, runtime: str
) -> float:
    """Sees that a runtime computes what the session does.

    Args:
      reference: the session's.
      results: the runtime's, by full tensor name.
      tolerance: absolute and relative; of what is rounded: anything else has to be equal.
      runtime: its name.

    Returns:
      The largest difference.

    Raises:
      ToolError: there is a larger difference, or another shape or dtype.
    """
    try:
        return largest_difference(reference, results, runtime, tolerance)
    except ToolError as error:
        raise ToolError(f"{error}, more than --tolerance={tolerance:g}; nothing is kept") from error
