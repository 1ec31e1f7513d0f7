"""From the bytes of a stranger's file to a protobuf message, in bounded time and memory."""

import re
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import DecodeError, EncodeError, Message

from checkpoints.errors import CheckpointError
from checkpoints.file_kinds import HEAD_BYTES, kind_of
from checkpoints.loading.field_count import has_more_fields

DEFAULT_MAX_BYTES = 512 << 20
MAX_META_FLAG = "--max_meta_mb"

# A file may have so many fields: of the largest size that is allowed, one for each 128 bytes.
_MIN_FIELDS, _BYTES_A_FIELD = 1 << 20, 128
MAX_TEXT_BYTES = 32 << 20  # The parser of texts is slow: some 2 MiB a second.
# A binary message has control characters, such as the tag \x12 of what a second field holds.
_TEXT = re.compile(rb"(?=[\t\n\r\x20-\x7e\x80-\xff]*\Z)(\s|#[^\n]*\n)*[a-z_]+\s*[:{<]")

_NAMES = {"MetaGraphDef": "meta graph", "GraphDef": "graph"}

M = TypeVar("M", bound=Message)


def parse_message(message: M, content: bytes, path: str, max_bytes: int = DEFAULT_MAX_BYTES) -> M:
    """Fills `message` from its binary or its text format.

    The binary parser refuses messages nested more than 100 deep. A text is written in binary and
    read again, so that it has no other limits.

    Args:
      message: an empty one.
      content: of the file, at most `max_bytes`.
      path: of the file.
      max_bytes: the limit to which the number of fields is bounded too.

    Raises:
      CheckpointError: it is no such message, or one of too many fields.
    """
    if content and not _is_other(content):
        if _TEXT.match(content[:HEAD_BYTES]):
            content = _binary(message, content, path)
        most = max(_MIN_FIELDS, max_bytes // _BYTES_A_FIELD)
        if has_more_fields(content, _descriptor(message), most):
            raise CheckpointError(
                f"{path} is refused: its {len(content)} bytes hold more than {most} fields, which "
                "takes too much memory (--max_meta_mb raises this limit too)"
            )
        try:
            message.ParseFromString(content)
            return message
        except DecodeError as error:
            raise _not_a_model(message, content, path, _reason(str(error))) from error
    raise _not_a_model(message, content, path)


def what_it_is(content: bytes, otherwise: str = "hold no graph") -> str:
    """What was found in place of a model, as the end of an error line."""
    kind = kind_of(content[:HEAD_BYTES])
    return f"it is {kind}" if kind else f"its {len(content)} bytes {otherwise}"


def _descriptor(message: Message) -> Any:
    """Typed as one of two classes, by which implementation of protobuf there is."""
    return message.DESCRIPTOR


def _is_other(content: bytes) -> bool:
    return kind_of(content[:HEAD_BYTES]) is not None


def _not_a_model(message: Message, content: bytes, path: str, why: str = "") -> CheckpointError:
    name = _NAMES.get(message.DESCRIPTOR.name, message.DESCRIPTOR.name)
    return CheckpointError(f"{path} is no {name}: {what_it_is(content)}{why}")


def _reason(error: str) -> str:
    """The parser's own reason, where it tells more than that the bytes make no sense."""
    if "UTF-8" in error:
        return ": a name in it is no UTF-8"
    if "epth" in error or "Exceeded" in error:
        return ": it is nested more than 100 deep"
    return ""


def _binary(message: Message, content: bytes, path: str) -> bytes:
    """A text in the binary format."""
    if len(content) > MAX_TEXT_BYTES:
        raise CheckpointError(
            f"{path} is refused: a text of {len(content)} bytes, more than {MAX_TEXT_BYTES}; "
            "convert it to the binary format"
        )
    parsed = type(message)()
    try:
        text_format.Parse(content.decode(), parsed)
        written: bytes = parsed.SerializeToString()
        return written
    except RecursionError as error:
        raise _not_a_model(message, content, path, ": it is nested too deep") from error
    except (text_format.ParseError, EncodeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise _not_a_model(message, content, path, f": {reason}") from error
