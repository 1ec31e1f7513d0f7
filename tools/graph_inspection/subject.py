"""The graph that is looked at, and what several parts of the look need of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.sub_graph import SubGraph, sub_graph
from prediction.candidates import Candidates, find_candidates
from prediction.listing import listing
from prediction.model import Model
from tools.graph_inspection.static_graph import StaticGraph, static_graph


@dataclass(frozen=True)
class Inference:
    """The part of a graph that predicts.

    Attributes:
      outputs: the tensors that are the prediction, the likeliest where the file does not say.
      feeds: the tensors that it is cut off at: the inputs of the signature, and what can be fed in
        place of a pipeline.
      needed: its nodes; None where the graph has no output.
    """

    outputs: tuple[str, ...]
    feeds: tuple[str, ...]
    needed: SubGraph | None

    @property
    def names(self) -> frozenset[str]:
        """The names of its nodes."""
        return frozenset() if self.needed is None else self.needed.names


@dataclass(frozen=True, eq=False)
class Subject:
    """A graph and how it is looked at.

    Attributes:
      meta: the file.
      model: what it says of its model.
      fetch: the outputs that are meant; empty for the file's own.
      batch_size: rows, for the sizes that depend on them.
      depth: how many name scopes make a layer; None for all.
    """

    meta: MetaGraphFile
    model: Model
    fetch: Sequence[str] = ()
    batch_size: int = 1
    depth: int | None = None

    @cached_property
    def contents(self) -> dict[str, Any]:
        """Inputs, outputs and variables as `prediction.listing.listing` has them."""
        return listing(self.meta, self.model, None if self.fetch else self._candidates)

    @cached_property
    def inference(self) -> Inference:
        """The part that predicts.

        Raises:
          CheckpointError: there is no such tensor, or a node's input does not exist.
        """
        found = self._candidates
        outputs = tuple(dict.fromkeys(self._named or found.outputs[:1]))
        feeds = tuple(dict.fromkeys([*self.model.inputs.values(), *found.pipeline]))
        feeds = tuple(name for name in feeds if name not in outputs)
        needed = sub_graph(self.meta, outputs, feeds) if outputs else None
        return Inference(outputs, feeds, needed)

    @cached_property
    def static(self) -> StaticGraph:
        """The whole graph with its static shapes, for the batch size."""
        return static_graph(self.meta, self.inference.outputs, self.batch_size)

    @cached_property
    def _named(self) -> Sequence[str]:
        """The prediction as whoever asks names it, or else the file."""
        model = self.model
        asked = [self.meta.tensor_name(text, model.fetch_keys) for text in self.fetch]
        return asked or [*model.predict, *model.outputs.values()]

    @cached_property
    def _candidates(self) -> Candidates:
        return find_candidates(self.meta, [*self.model.inputs.values()], self._named)
