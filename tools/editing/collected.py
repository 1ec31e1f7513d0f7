"""What the collections of a meta graph hold that names nodes, as messages and back.

Formats: `tensorflow/core/protobuf/{control_flow,queue_runner,saver}.proto`,
`tensorflow/core/framework/variable.proto`.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError, Message
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.control_flow_pb2 import CondContextDef, WhileContextDef
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, CollectionDef
from tensorflow.core.protobuf.queue_runner_pb2 import QueueRunnerDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from checkpoints.loading.meta_graph_file import node_of
from checkpoints.loading.session_bundle import COLLECTION as BUNDLE_SIGNATURES
from checkpoints.loading.session_bundle import signatures_message

# From the name of a field and its text to what stands in its place.
Replace: TypeAlias = Callable[[str, str], str]

_MESSAGES: Mapping[str, Callable[[], Message]] = {
    "cond_context": CondContextDef,
    "queue_runners": QueueRunnerDef,
    "saved_model_assets": AssetFileDef,
    "savers": SaverDef,
    "while_context": WhileContextDef,
    BUNDLE_SIGNATURES: signatures_message,
}


def message_of(key: str, content: bytes, nodes: Container[str]) -> Any | None:
    """The message that an entry of a collection is; None where it is nothing that names nodes.

    Args:
      key: of the collection. Variables may be in any.
      content: of the entry.
      nodes: the names of the graph's nodes.
    """
    message = _MESSAGES.get(key, VariableDef)()
    try:
        message.ParseFromString(content)
    except DecodeError:
        return None
    if isinstance(message, VariableDef) and node_of(message.variable_name) not in nodes:
        return None
    return message


def replace_in_collection(
    key: str, collection: CollectionDef, replace: Replace, nodes: Container[str]
) -> None:
    """Puts new texts in place of those of a collection that may be names.

    Args:
      key: of the collection.
      collection: its entries, which are changed.
      replace: is given `""` as the field of what stands by itself.
      nodes: as of `message_of`.
    """
    kind = collection.WhichOneof("kind")
    if kind == "node_list":
        listed = collection.node_list.value
        listed[:] = [replace("", text) for text in listed]
    elif kind == "bytes_list":
        entries = collection.bytes_list.value
        entries[:] = [_replaced(key, content, replace, nodes) for content in entries]
    elif kind == "any_list":
        for entry in collection.any_list.value:
            entry.value = _replaced(key, entry.value, replace, nodes)


def _replaced(key: str, content: bytes, replace: Replace, nodes: Container[str]) -> bytes:
    """An entry with new texts; the very same bytes where it has none."""
    message = message_of(key, content, nodes)
    if message is None or not replace_in_message(message, replace):
        return content
    written: bytes = message.SerializeToString(deterministic=True)
    return written


def texts_of(message: Any) -> Iterator[tuple[str, str]]:
    """The field and the text of each text in a message."""
    found: list[tuple[str, str]] = []

    def note(field: str, text: str) -> str:
        found.append((field, text))
        return text

    replace_in_message(message, note)
    yield from found


def replace_in_message(message: Any, replace: Replace) -> bool:
    """Puts new texts in place of all in a message, those of messages in it included.

    Returns:
      Whether one is another than before.
    """
    changed = False
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            if field.message_type.GetOptions().map_entry:
                changed |= _replace_in_map(field.message_type, value, field.name, replace)
                continue
            for part in value if _is_repeated(value) else [value]:
                changed |= replace_in_message(part, replace)
        elif field.type == field.TYPE_STRING:
            changed |= _replace_texts(message, field.name, value, replace)
    return changed


def _is_repeated(value: Any) -> bool:
    return not isinstance(value, (str, Message))


def _replace_texts(message: Any, field: str, value: Any, replace: Replace) -> bool:
    if _is_repeated(value):
        new = [replace(field, text) for text in value]
        changed = new != list(value)
        value[:] = new
        return changed
    new_text = replace(field, value)
    setattr(message, field, new_text)
    return bool(new_text != value)


def _replace_in_map(kind: Any, value: Any, field: str, replace: Replace) -> bool:
    """A map of texts to texts, such as `ValuesDef.external_values`, whose keys are names too."""
    types = kind.fields_by_name
    if types["value"].type == types["value"].TYPE_MESSAGE:
        changes = [replace_in_message(part, replace) for part in value.values()]
        return any(changes)
    if types["value"].type != types["value"].TYPE_STRING:
        return False
    old = dict(value)
    new = {replace(field, key): replace(field, text) for key, text in old.items()}
    value.clear()
    value.update(new)
    return new != old
