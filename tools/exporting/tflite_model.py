"""A frozen graph as a TFLite model, by TensorFlow's converter, and what its interpreter computes.

Tensors keep their names, such as `x:0`, and the signature `serving_default` its keys. Operations of
TensorFlow beside TFLite's own ("select" ones) are not offered: the interpreter here has no delegate
for them, and what cannot be checked is not kept.

Format: `tensorflow/lite/schema/schema.fbs`; `labels.txt` is appended as a zip archive, in the way
of TFLite's own metadata (`unzip -p model.tflite labels.txt` shows it).
"""

import io
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from checkpoints.errors import reason
from checkpoints.meta_graph import SIGNATURE
from prediction.casting import Array
from tools.common.errors import ToolError
from tools.exporting.labels import LABELS_FILE, labels_text
from tools.exporting.quiet import quiet
from tools.exporting.saved_model import as_saved_model, write_saved_model
from tools.freezing.frozen_graph import FrozenGraph

_LACKING = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)
_ERROR = re.compile(r"error: (.+)$", re.MULTILINE)


def as_tflite(frozen: FrozenGraph, class_names: Sequence[str] = ()) -> bytes:
    """Converts.

    Args:
      frozen: the graph, of inputs whose rank is known.
      class_names: of the labels that go along; none for no labels.

    Returns:
      The file's content.

    Raises:
      ToolError: TFLite lacks an operation, or the converter fails otherwise.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        write_saved_model(as_saved_model(frozen), folder)
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            content: bytes = converter.convert()
        except Exception as error:  # The converter raises nearly any kind.
            raise ToolError(_why(error)) from error
    return _with_labels(content, class_names) if class_names else content


def run_tflite(content: bytes, values: Mapping[str, Array]) -> dict[str, Array]:
    """What TFLite's interpreter computes.

    Args:
      content: what `as_tflite` has made.
      values: of the inputs, by the signature's keys.

    Returns:
      The outputs, by the signature's keys.

    Raises:
      ToolError: it cannot load or run the model.
    """
    with quiet():  # TensorFlow warns that its interpreter will be a package of its own some day.
        try:
            runner = tf.lite.Interpreter(model_content=content).get_signature_runner(SIGNATURE)
            taken = runner.get_input_details()
            results = runner(**{key: value for key, value in values.items() if key in taken})
        except Exception as error:  # A ValueError, a RuntimeError or others, as it comes.
            raise ToolError(
                f"the TFLite interpreter cannot run the model: {reason(error)}"
            ) from error
    return {key: np.asarray(result) for key, result in results.items()}


def _with_labels(content: bytes, class_names: Sequence[str]) -> bytes:
    """Appends an archive of the labels, with the same bytes at any time of the day."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), labels_text(class_names))
    return file.getvalue()


def _why(error: Exception) -> str:
    """One line, out of the many of the converter's message."""
    text = str(error)
    lacking = sorted({op.strip() for ops in _LACKING.findall(text) for op in ops.split(",")})
    if lacking:
        return f"TFLite has no counterpart of {', '.join(lacking)}, for the dtypes that are here"
    found = _ERROR.search(text)
    return f"TFLite's converter fails: {found[1] if found else reason(error)}"
