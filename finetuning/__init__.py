"""What finetune.py is made of; here, what a fine-tuning is asked for."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from cli.fields import (
    COMMAS,
    FINITE,
    POSITIVE,
    REPEATED,
    Check,
    Together,
    flag,
    is_normal_float32,
    nested,
)
from prediction.request import ModelConfig, trust_graph
from training.config import Additions, DataConfig, Length, RunConfig, exclude

DEFAULT_STEPS = 200
DEFAULT_BATCH_SIZE = 32
DEFAULT_FINETUNE_RATE = 1e-4


@dataclass(frozen=True)
class BaseRequest:
    """What is asked of the part of a model that is built on."""

    GROUP: ClassVar = "model"

    tensor: str = flag(
        "What the head takes, by name, such as fc1/add:0 or a layer's maps.", path=True
    )
    train_scopes: tuple[str, ...] = flag(
        "Scopes of the model that are trained, too, such as fc1,conv2; by default all is frozen.",
        (),
        many=COMMAS,
    )
    exclude: str | None = exclude("Variables of the model that are not restored but begin anew")
    train_feed: tuple[str, ...] = flag(
        "The value of a placeholder in training, such as keep_prob=0.8. Without "
        "it, switches are on where something is unfrozen, and a dropout keeps a half.",
        (),
        many=REPEATED,
        check=Check(lambda texts: all(text.find("=") > 0 for text in texts), "must be name=value"),
    )
    _: KW_ONLY
    trust_graph: bool = trust_graph()


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(BaseRequest, DataConfig, Length, Additions, ModelConfig):
    """What a run of finetune.py is asked for."""

    GROUP: ClassVar = "training"
    CHECKS: ClassVar = (
        Together(
            ("finetune_learning_rate", "train_scopes"),
            lambda rate, scopes: rate is None or scopes,
            "--finetune_learning_rate is that of the scopes that --train_scopes names, and it "
            "names none: give it some, such as --train_scopes=fc1, or set --learning_rate, the "
            "head's",
        ),
    )

    run: RunConfig = nested(RunConfig, without=("init_from",), ckpt_dir="finetuned")
    head: str = flag(
        "The new layer: dense on the flattened tensor, or for maps [N,H,W,C] a 1x1 convolution and "
        "the mean over all positions.",
        "dense",
        choices=("dense", "conv"),
    )
    batch_size: int | None = flag(
        f"Images a step; by default {DEFAULT_BATCH_SIZE}, or the one number that the model takes.",
        None,
        low=1,
    )
    learning_rate: float = flag("Of Adam, for the head.", 1e-3, check=POSITIVE)
    finetune_learning_rate: float | None = flag(
        f"Of Adam, for what --train_scopes unfreezes; {DEFAULT_FINETUNE_RATE} by default.",
        None,
        check=POSITIVE,
    )
    input_scale: float | None = flag(
        "What uint8 pixels are multiplied by; by default what the model says, else 1/255.",
        None,
        check=Check(
            lambda scale: FINITE.accepts(scale) and is_normal_float32(scale),
            "must be finite as a float32, and not 0, which makes all images the same",
        ),
        group="data",
    )
    input_offset: float = flag(
        "What is added to the scaled pixels, in the graph.", 0.0, check=FINITE, group="data"
    )

    @property
    def rate_of_scopes(self) -> float:
        """The learning rate of what `train_scopes` unfreezes."""
        return self.finetune_learning_rate or DEFAULT_FINETUNE_RATE
