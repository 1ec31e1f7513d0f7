"""A MetaGraphDef as text, as a whole; predict.py reads it as it reads the binary form.

Format: https://protobuf.dev/reference/protobuf/textformat-spec/.
"""

from absl import logging
from google.protobuf import text_format

from checkpoints.loading.graph_files import GRAPH_SUFFIXES
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_parsing import MAX_TEXT_BYTES
from checkpoints.naming import META_SUFFIX


def meta_graph_text(meta: MetaGraphFile, path: str) -> bytes:
    """All of a meta graph as text, constants included.

    Args:
      meta: the file.
      path: where it will be; a warning says where it cannot be read back from there.
    """
    content = text_format.MessageToString(meta.proto, use_short_repeated_primitives=True).encode()
    if len(content) > MAX_TEXT_BYTES:
        logging.warning(
            "%s has %d bytes; predict.py reads back a text of at most %d",
            path,
            len(content),
            MAX_TEXT_BYTES,
        )
    if not path.endswith((*GRAPH_SUFFIXES, META_SUFFIX)):
        logging.warning("%s: predict.py reads graphs from .pbtxt, .pb and .meta files", path)
    return content
