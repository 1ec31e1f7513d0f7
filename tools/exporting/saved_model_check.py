"""Runs a SavedModel as a server does: loaded from its folder, by its signatures."""

import io
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from PIL import Image

from checkpoints.loading.graph_import import reason_of_run
from checkpoints.loading.time_limit import RUN, TimeLimit
from data.image_file import decode_image, to_grey
from prediction.casting import Array
from prediction.rows import ArrayRows
from tools.common.errors import ToolError
from tools.exporting.image_bytes import ImageInput
from tools.exporting.quiet import quiet
from tools.exporting.saved_model import SERVE


def run_saved_model(
    folder: str, signature: str, values: Mapping[str, Array], time_limit: TimeLimit
) -> dict[str, Array]:
    """What a SavedModel computes, in a session.

    Args:
      folder: of one version; it holds only what has been checked.
      signature: one of its own.
      values: of the inputs, by the signature's keys.
      time_limit: of the loading with the run.

    Returns:
      The outputs, by the signature's keys.

    Raises:
      ToolError: it cannot be loaded or run.
    """
    with (
        quiet(),
        time_limit.over(RUN),
        tf.Graph().as_default() as graph,
        tf.compat.v1.Session(graph=graph, config=_as_it_is()) as session,
    ):
        try:
            meta = tf.compat.v1.saved_model.load(session, [SERVE], folder)
            found = meta.signature_def[signature]
            fetches = {key: info.name for key, info in found.outputs.items()}
            feeds = {found.inputs[key].name: value for key, value in values.items()}
            results: dict[str, Array] = session.run(fetches, feeds)
        except tf.errors.OpError as error:
            raise ToolError(f"the SavedModel does not run{reason_of_run(error)}") from error
    return {key: _as_array(result) for key, result in results.items()}


def _as_it_is() -> tf.compat.v1.ConfigProto:
    """Without the rewriting of the graph, each step of which takes a copy of all weights."""
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1  # L0; 0 is its default, L1.
    return config


def _as_array(result: Array | bytes) -> Array:
    """A single string comes as bytes."""
    return np.asarray(result, object) if isinstance(result, bytes) else np.asarray(result)


def example_files(image: ImageInput, rows: int) -> list[bytes]:
    """Image files of noise, neither of the model's size nor square.

    Args:
      image: what the model takes.
      rows: how many.
    """
    rng = np.random.default_rng(0)
    height, width = image.size + 5, 2 * image.size + 3
    return [_as_png(rng.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(rows)]


def rows_of(files: list[bytes], image: ImageInput) -> Array:
    """What predict.py would feed for image files; of the dtype and shape of `image.info`."""
    pixels = np.stack([decode_image(content, "example", image.size) for content in files])
    pixels = to_grey(pixels) if image.channels == 1 else pixels
    rows = pixels if len(image.info.shape or ()) == 4 else pixels.reshape(len(files), -1)
    return ArrayRows(rows, image.info, "example", image.scale).batch(0, len(files))


def _as_png(pixels: Array) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
