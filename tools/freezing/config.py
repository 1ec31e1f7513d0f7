"""What is asked of a model that is frozen, by tools.freeze and for an export."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from prediction.config import ModelConfig
from tools.freezing.frozen_graph import FreezeRequest


@dataclass(frozen=True)
class PartConfig(ModelConfig):
    """The part of a model that is kept, and where it goes.

    Attributes:
      output: what to write.
      outputs: as of a `FreezeRequest`.
      inputs: likewise.
      asset: files for lookup tables, by name.
      overwrite: replace the file if there is one.
    """

    output: str
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    asset: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False

    @property
    def request(self) -> FreezeRequest:
        """What is to be frozen of it."""
        return FreezeRequest(
            outputs=self.outputs,
            inputs=self.inputs,
            signature=self.signature,
            trust_graph=self.trust_graph,
            assets=self.asset,
            time_limit=self.limit,
        )


@dataclass(frozen=True)
class FreezeConfig(PartConfig):
    """What tools.freeze is asked for.

    Attributes:
      scope: as of a `FreezeRequest`.
    """

    scope: str = ""

    @property
    def request(self) -> FreezeRequest:
        """What is to be frozen of the model, and under which names."""
        return replace(super().request, scope=self.scope)
