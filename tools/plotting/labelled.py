"""Rows whose true classes are known."""

import numpy as np
import numpy.typing as npt

from prediction.command import Classified
from tools.common.errors import ToolError


def labels_of(found: Classified) -> npt.NDArray[np.int64]:
    """The true class of each row: int64 [N].

    Raises:
      ToolError: they are not known, or one is of no class of the model.
    """
    if found.result.labels is None:
        raise ToolError(
            f"the true classes of the rows for {found.meta} are not known: expected --input with a "
            "folder of one subfolder a class, an .npz with X and Y, or images of MNIST's format "
            "beside their labels"
        )
    num_classes = found.result.probabilities.shape[1]
    if found.result.labels.max() >= num_classes:
        raise ToolError(
            f"expected labels from 0 to {num_classes - 1}, found {found.result.labels.max()}: "
            f"{found.meta} has no more classes"
        )
    return found.result.labels
