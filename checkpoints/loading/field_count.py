"""Counts the fields of a serialized protobuf message before it is parsed.

A field of two bytes may become a message object of more than a hundred: a file of some MiB can
take GiBs. What makes a model file large for a good reason, a constant's values, is one field each.

Format: protobuf.dev/programming-guides/encoding. Groups, which TensorFlow's messages do not have,
are left for the parser to refuse.
"""

from google.protobuf.descriptor import Descriptor

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 100  # What is deeper, the parser refuses.
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


def has_more_fields(content: bytes, message: Descriptor, most: int) -> bool:
    """Whether `content`, a serialized `message`, has more than `most` fields at all depths.

    Time and memory are bounded by `most`. What is no such message is counted as far as it can be
    read.
    """
    if len(content) <= 2 * most:  # A field takes at least two bytes.
        return False
    count = 0
    open_messages = [(0, len(content), message)]
    while open_messages and count <= most:
        position, end, kind = open_messages.pop()
        if position >= end:
            continue
        count += 1
        number, start, after = _field(content, position, end)
        open_messages.append((after, end, kind))
        inner = kind.fields_by_number.get(number)
        if inner is not None and inner.message_type is not None and len(open_messages) < _MAX_DEPTH:
            open_messages.append((start, min(after, end), inner.message_type))
    return count > most


def _field(content: bytes, position: int, end: int) -> tuple[int, int, int]:
    """The field's number, 0 where it holds no bytes; where its value starts, and where it ends."""
    tag, start = _varint(content, position, end)
    wire = tag & 7
    if wire == _BYTES:
        size, start = _varint(content, start, end)
        return tag >> 3, start, start + size
    if wire == _VARINT:
        return 0, start, _varint(content, start, end)[1]
    return 0, start, start + _FIXED_SIZES[wire] if wire in _FIXED_SIZES else end


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """The number at `position`, and where the next thing starts."""
    value = shift = 0
    while position < end:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift > 63:
            break
    return value, position
