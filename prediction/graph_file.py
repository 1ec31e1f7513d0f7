"""What a prediction asks of a graph of TensorFlow: `prediction/onnx_file.py` answers the same."""

from collections.abc import Collection, Sequence

from absl import logging

from metagraph.description import Model, TensorInfo
from metagraph.graph import sub_graph
from metagraph.meta import MetaGraphFile
from metagraph.model import (
    checkpoint_of,
    described,
    feedable,
    fetchable,
    missing_values,
    read_model,
    state_text,
    without_handles,
)
from metagraph.session import InferenceGraph, describe_tensors, load_inference_graph
from prediction import chosen_model
from prediction.output import Record
from prediction.request import PredictConfig, assets_by_name


class GraphFile:
    """A meta graph, a frozen graph or a SavedModel."""

    def __init__(self, meta: MetaGraphFile) -> None:
        self._meta = meta

    @property
    def checkpoint(self) -> str | None:
        """The prefix of its variables; None where it has none."""
        return checkpoint_of(self._meta)

    def model(self, config: PredictConfig) -> Model:
        """What the file says of its model, once its variables are seen to be whole."""
        return chosen_model.describe(config, self._meta)

    def listing(self, config: PredictConfig) -> tuple[Record, list[str], str]:
        """What it holds, which values the outputs need and lack, and the end of the list."""
        with config.limit.over("listing the graph"):
            content = chosen_model.listing(self._meta, read_model(self._meta, config.signature))
        outputs = [record["name"] for record in content["outputs"] or content["candidates"]]
        problems = missing_values(self._meta, outputs)
        return content, problems, state_text(self._meta, problems)

    def describe(
        self, names: Sequence[str], config: PredictConfig | None = None
    ) -> tuple[TensorInfo, ...]:
        """The dtype and shape of tensors, in the time that `config` gives it."""
        if config is None:
            return describe_tensors(self._meta, names)
        with config.limit.over(chosen_model.READING):
            return describe_tensors(self._meta, names)

    def unfed(self, fetches: Sequence[str], fed: Collection[str]) -> tuple[str, ...]:
        """The placeholders that `fetches` need beside what is fed.

        In place of an iterator's handle, it is what comes out of the iterator.
        """
        needed = sub_graph(self._meta, fetches, fed)
        return tuple(dict.fromkeys(without_handles(needed, needed.unfed, fetches)))

    def depends(self, name: str, fed: Collection[str]) -> bool:
        """Whether a tensor is another where something else is fed."""
        return name in fed or bool(sub_graph(self._meta, [name], fed).feeds)

    def warn_of_feeds(self, fetches: Sequence[str], fed: Collection[str]) -> None:
        """Warns of what is fed in vain, and of what gives data that the graph has of its own."""
        needed = sub_graph(self._meta, fetches, fed)
        for name in fed:
            if name not in needed.feeds.union(fetches):
                logging.warning("%s is fed, and none of %s needs it", name, ", ".join(fetches))
        for name in sorted(needed.names):
            if self._meta.nodes[name].op == "OneShotIterator":
                logging.warning(
                    "%s (OneShotIterator) gives data that the graph has of its own, as for its "
                    "training: feed what comes out of it",
                    name,
                )

    def described(self, names: Sequence[str]) -> str:
        """Tensors with their types, for an error line."""
        return described(self._meta, names)

    def feedable(self, model: Model, fetches: Sequence[str]) -> str:
        """What could be fed, as the end of an error line."""
        return feedable(self._meta, model, fetches)

    def fetchable(self, model: Model) -> str:
        """What could be fetched, as the end of an error line."""
        return fetchable(self._meta, model)

    def load(
        self, fetches: Sequence[str], feeds: Sequence[str], config: PredictConfig
    ) -> InferenceGraph:
        """The graph, ready to run; see `metagraph.session.load_inference_graph`."""
        return load_inference_graph(
            self._meta,
            fetches,
            feeds,
            trust_graph=config.trust_graph,
            assets=assets_by_name(config.asset),
            time_limit=config.limit,
        )
