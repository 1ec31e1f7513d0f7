"""What is asked of a model, and the limits on reading it; imports no TensorFlow."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metagraph.safety import TimeLimit

MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What reading a stranger's graph may take.

    `time_limit` is in seconds, 0 for none; `end_after` is that of a `TimeLimit`.
    """

    max_meta_bytes: int = 512 * MEGABYTE
    time_limit: float = 60.0
    end_after: Callable[[float, str], None] | None = None

    @property
    def limit(self) -> "TimeLimit":
        """The time limit with what ends the process."""
        from metagraph.safety import TimeLimit

        return TimeLimit(self.time_limit, self.end_after)


@dataclass(frozen=True)
class ModelConfig(Limits):
    """A model to open, and its limits.

    Attributes:
      meta: what `open_model` takes: a `.meta` file, or a folder for its newest checkpoint, and so
        on.
      checkpoint: what `find_variables` takes, for variables of another checkpoint than the graph's
        own; `BEST` for the one with the best test accuracy in the graph's folder; None for its own.
      signature: the name of the signature to use; None for `serving_default`, or the only one.
      trust_graph: run also operations that may do more than compute.
    """

    meta: str
    _: KW_ONLY
    checkpoint: str | None = None
    signature: str | None = None
    trust_graph: bool = False


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ModelConfig):
    """What is to be predicted with a model.

    Attributes:
      fetch: names of tensors, or keys of the signature; empty for the graph's own prediction.
      input: files and folders of rows, each `name=path`, or a path alone for the one input left.
      feed: as `prediction.plan.read_feeds` takes them.
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
    max_input_mb: int = 4096
    ignore_exif: bool = False
