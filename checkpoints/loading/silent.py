"""Takes the voice from operations that print: what a stranger wrote stays off the terminal.

They would write raw bytes, which a terminal obeys, between the lines of our own output and into
its JSON. Old models are full of them, and nothing is computed from what they print, so that they
are replaced and not refused.
"""

from collections.abc import Sequence

from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import data_inputs
from checkpoints.loading.op_check import is_harmless

_PASSES_ON = "Print"  # Its first input; the others are printed.
_ENDS = "PrintV2"  # It has no output.


def silent_inputs(node: NodeDef) -> Sequence[str]:
    """The inputs that a node has once it is silent; of one that does not print, all."""
    if not _prints(node):
        return list(node.input)
    waits = [text for text in node.input if text.startswith("^")]
    return [*data_inputs(node)[:1], *waits] if node.op == _PASSES_ON else waits


def silence(node: NodeDef) -> None:
    """Makes of a `Print` an `Identity`, and of a `PrintV2` a `NoOp`, in place.

    One that prints into a file stays as it is, for `check_operations` to refuse.
    """
    if not _prints(node):
        return
    inputs = list(silent_inputs(node))
    del node.input[:]
    node.input.extend(inputs)
    kept = "T" if node.op == _PASSES_ON else ""
    for name in [name for name in node.attr if name != kept and not name.startswith("_")]:
        del node.attr[name]
    node.op = "Identity" if node.op == _PASSES_ON else "NoOp"


def _prints(node: NodeDef) -> bool:
    return node.op == _PASSES_ON or (node.op == _ENDS and is_harmless(node, {}))
