"""The file `checkpoint` of a stranger's folder: a hint, often with paths of another machine.

Format: the text of `tensorflow/python/training/checkpoint_state.proto`.
"""

import ntpath
import re

from google.protobuf import text_encoding

from checkpoints.bounded_file import read_head

_MAX_BYTES = 1 << 16
_NEWEST = re.compile(r'^\s*model_checkpoint_path:\s*"((?:[^"\\]|\\.)*)"', re.MULTILINE)


def named_checkpoint(path: str) -> str | None:
    """The base name of the newest checkpoint that a state file names; None where it names none.

    Its folder is left out, be it of Windows or not. A base name may be empty. Whether there is
    such a checkpoint is not looked at, nor does it matter what `path` is.
    """
    text = read_head(path, _MAX_BYTES).decode("utf-8", errors="replace")
    found = _NEWEST.search(text)
    if found is None:
        return None
    try:
        name = text_encoding.CUnescape(found[1]).decode("utf-8", errors="replace")
    except ValueError:
        return None
    return ntpath.basename(name)
