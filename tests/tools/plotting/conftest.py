"""What the tests of the pictures share."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf

from metagraph.meta import Signature, TensorInfo
from metagraph.model import Model
from prediction.evaluation import Classified
from prediction.output import Classification
from prediction.plan import RowInputs
from prediction.rows import ArrayRows
from tools.plotting import style

MakeClassified: TypeAlias = Callable[..., Classified]


@pytest.fixture(autouse=True)
def _styled() -> Iterator[None]:
    with style():
        yield


@pytest.fixture
def classified() -> MakeClassified:
    """Makes what a classifier has said of some rows."""

    def make(
        probabilities: Any,
        labels: Any,
        *,
        class_names: Sequence[str] = (),
        images: Any = None,
        scale: float | None = None,
        image_shape: tuple[int, int, int] | None = None,
        names: Sequence[str] | None = None,
    ) -> Classified:
        found = np.asarray(probabilities, np.float32)
        rows = np.zeros((len(found), 2, 2, 3), np.float32) if images is None else images
        info = TensorInfo("x:0", tf.as_dtype(rows.dtype), (None, *rows.shape[1:]))
        signature = Signature("serving_default", {"x": "x:0"}, {})
        numbers = names or [str(row) for row in range(len(found))]
        result = Classification(
            numbers,
            found.argmax(axis=1),
            found,
            None if labels is None else np.asarray(labels, np.int64),
            class_names,
        )
        return Classified(
            "run/my-model-3.meta",
            "run/my-model-3",
            Model(signature, (), (), tuple(class_names), scale, None, None, image_shape),
            RowInputs({"x:0": ArrayRows(rows, info, "rows")}, numbers, result.labels),
            result,
        )

    return make
