"""What a fine-tuning is asked for."""

from dataclasses import dataclass

from data.options import DEFAULT_MEMORY_MB, STOP
from training.config import RunConfig

DEFAULT_STEPS = 200
DEFAULT_BATCH_SIZE = 32


@dataclass(frozen=True)
class FinetuneConfig:
    """What a run of finetune.py is asked for; each field is the flag of its name.

    `batch_size` None takes 32, or what the model takes; `input_scale` None what the model says.
    """

    run: RunConfig
    meta: str
    tensor: str
    data: str
    head: str = "dense"
    train_scopes: tuple[str, ...] = ()
    exclude: str | None = None
    train_feed: tuple[str, ...] = ()
    learning_rate: float = 1e-3
    finetune_learning_rate: float = 1e-4
    input_scale: float | None = None
    input_offset: float = 0.0
    trust_graph: bool = False
    classes: tuple[str, ...] = ()
    data_memory_mb: int = DEFAULT_MEMORY_MB
    on_bad_image: str = STOP
    validation_fraction: float = 0.0
    train_steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
