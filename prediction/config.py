"""What is asked of a model: which one, and what it may do and take; and what of it to predict."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.time_limit import TimeLimit
from prediction.inputs import MAX_BYTES

BEST = "best"
MEGABYTE = 2**20


@dataclass(frozen=True)
class ModelConfig:
    """A model to open, and its limits.

    Attributes:
      meta: what `open_model` takes: a `.meta` file, or a folder for its newest checkpoint, and so
        on.
      checkpoint: what `find_variables` takes, for variables of another checkpoint than the graph's
        own; `BEST` for the one with the best test accuracy in the graph's folder; None for its own.
      signature: the name of the signature to use; None for `serving_default`, or the only one.
      trust_graph: run also operations that may do more than compute.
      time_limit: seconds that each of these may take: reading the graph, its import, a run; 0 for
        no limit.
      end_after: as of a `TimeLimit`.
      max_meta_bytes: the size of the largest file of a graph that is read.
    """

    meta: str
    _: KW_ONLY
    checkpoint: str | None = None
    signature: str | None = None
    trust_graph: bool = False
    time_limit: float = 60.0
    end_after: Callable[[float, str], None] | None = None
    max_meta_bytes: int = DEFAULT_MAX_BYTES

    @property
    def limit(self) -> TimeLimit:
        """The time limit with what ends the process."""
        return TimeLimit(self.time_limit, self.end_after)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ModelConfig):
    """What is to be predicted with a model.

    Attributes:
      fetch: names of tensors, or keys of the signature; empty for the graph's own prediction.
      input: files and folders of rows, each `name=path`, or a path alone for the one input left.
      feed: as `prediction.feeds.read_feeds` takes them.
      asset: files for lookup tables, each `name=path`.
      list: only say what the graph holds.
      batch_size: rows a run, None for a fast one.
      format: of what is printed, `text` or `json`.
      output: a file to write, None for none.
      max_input_mb: megabytes (2**20 bytes) that one file of input may unpack to.
      ignore_exif: image files are not turned as their EXIF orientation says.
    """

    fetch: Sequence[str] = ()
    input: Sequence[str] = ()
    feed: Sequence[str] = ()
    asset: Sequence[str] = ()
    list: bool = False
    batch_size: int | None = None
    format: str = "text"
    output: str | None = None
    max_input_mb: int = MAX_BYTES // MEGABYTE
    ignore_exif: bool = False
