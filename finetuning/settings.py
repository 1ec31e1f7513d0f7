"""What a fine-tuning is asked for."""

from dataclasses import dataclass

from data.options import DEFAULT_MEMORY_MB, STOP
from prediction.request import Limits
from training.config import RunConfig

DEFAULT_STEPS = 200
DEFAULT_BATCH_SIZE = 32
DEFAULT_FINETUNE_RATE = 1e-4


@dataclass(frozen=True)
class BaseRequest:
    """What is asked of the part of a model that is built on; each field is the flag of its name.

    Attributes:
      tensor: what the head takes, by name.
      train_scopes: of the variables that are trained, too; empty to freeze all of the base.
      exclude: a regular expression; what it matches by its whole name is not restored.
      train_feed: `name=value` of placeholders, the values in training.
      trust_graph: take also operations that may do more than compute.
    """

    tensor: str
    train_scopes: tuple[str, ...] = ()
    exclude: str | None = None
    train_feed: tuple[str, ...] = ()
    trust_graph: bool = False


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(BaseRequest, Limits):
    """What a run of finetune.py is asked for; each field is the flag of its name.

    `batch_size` None takes 32, or what the model takes; `input_scale` None what the model says.
    """

    run: RunConfig
    meta: str
    data: str
    head: str = "dense"
    learning_rate: float = 1e-3
    finetune_learning_rate: float | None = None
    input_scale: float | None = None
    input_offset: float = 0.0
    classes: tuple[str, ...] = ()
    data_memory_mb: int = DEFAULT_MEMORY_MB
    on_bad_image: str = STOP
    ignore_exif: bool = False
    validation_fraction: float = 0.0
    train_steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None

    @property
    def rate_of_scopes(self) -> float:
        """The learning rate of what `train_scopes` unfreezes."""
        return self.finetune_learning_rate or DEFAULT_FINETUNE_RATE
