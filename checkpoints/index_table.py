"""The table that an index is: sorted keys and their values in blocks, as LevelDB has it.

Formats: `tensorflow/core/lib/io/format.cc` and `block_builder.cc`, and for Snappy
https://github.com/google/snappy/blob/main/format_description.txt.
"""

import struct
from collections.abc import Iterator, Sequence

import google_crc32c

MAX_BYTES = 1 << 28  # Of a table, also of what is unpacked of it, and of its keys.
_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # Of a block: its compression, and a checksum.
_NOT_COMPRESSED, _SNAPPY = 0, 1
_BLOCK_BYTES = 1 << 18  # A block that has as many is written.
_WHOLE_KEYS = 16  # One of so many keys is written in full.


def table_entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table, the empty key first; or ValueError, IndexError, struct.error."""
    room = left = MAX_BYTES  # Of blocks and keys: a few bytes may repeat all of a key before.
    footer = content[-_FOOTER_SIZE:]
    if len(footer) < _FOOTER_SIZE or not footer.endswith(_MAGIC):
        raise ValueError("it does not end as a table does")
    offset, size, _ = _handle(footer, _handle(footer, 0)[2])
    end, is_first = 0, True
    for _, handle in _block_entries(_block(content, offset, size, room)):
        offset, size, _ = _handle(handle, 0)
        if offset < end:  # Else a small file could have any number of blocks.
            raise ValueError("its blocks overlap")
        end = offset + size
        block = _block(content, offset, size, room)
        room -= len(block)
        for key, value in _block_entries(block):
            left -= len(key)
            if left < 0:
                raise ValueError("its keys are too long")
            if bool(key) == is_first:
                raise ValueError("a key is empty" if key == b"" else "it has no header")
            is_first = False
            yield key, value


def _block(content: bytes, offset: int, size: int, most: int) -> bytes:
    """The block at a place, unpacked, of at most so many bytes."""
    end = offset + size
    if end + _TRAILER_SIZE > len(content):
        raise ValueError("a block is not inside of it")
    stored = int.from_bytes(content[end + 1 : end + _TRAILER_SIZE], "little")
    if masked(google_crc32c.value(content[offset : end + 1])) != stored:
        raise ValueError("the checksum of a block does not match")
    if content[end] == _NOT_COMPRESSED:
        return content[offset:end]
    if content[end] != _SNAPPY:
        raise ValueError("a block is compressed in an unknown way")
    return _unpacked(content[offset:end], most)


def _unpacked(block: bytes, most: int) -> bytes:
    """A block that Snappy has compressed, of at most so many bytes."""
    size, position = read_varint(block, 0)
    if size > most:
        raise ValueError("a block is too large")
    out = bytearray()
    while position < len(block) and len(out) <= size:
        tag, length = block[position], (block[position] >> 2) + 1
        position += 1
        width = (max(0, length - 60), 1, 2, 4)[tag & 3]
        number = int.from_bytes(block[position : position + width], "little")
        position += width
        if tag & 3 == 0:  # Bytes as they are; of more than 60, the number says how many.
            length = number + 1 if width else length
            out += block[position : position + length]
            position += length
            continue
        if tag & 3 == 1:
            length, number = (tag >> 2 & 7) + 4, tag >> 5 << 8 | number
        if not 0 < number <= len(out):
            raise ValueError("a block refers to what is before it")
        start = len(out) - number
        piece = out[start : start + length]  # It may go on into what it makes.
        out += (piece * -(-length // len(piece)))[:length]
    if len(out) != size:
        raise ValueError("a block is not as long as it says")
    return bytes(out)


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block is too short")
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(block, position)
        added, position = read_varint(block, position)
        length, position = read_varint(block, position)
        start = position + added
        position = start + length
        if shared > len(key) or position > end:
            raise ValueError("an entry is not inside of its block")
        key = key[:shared] + block[start - added : start]
        yield key, block[start:position]


def _handle(content: bytes, position: int) -> tuple[int, int, int]:
    """The offset and size of a block, and where what follows starts."""
    offset, position = read_varint(content, position)
    size, position = read_varint(content, position)
    return offset, size, position


def masked(crc: int) -> int:
    """A CRC32C as these files have it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of up to ten bytes, and where what follows starts."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (1 << 64) - 1, position
    raise ValueError("a number is too long")


# Writing, the same bytes as TensorFlow's own writer.


def varint(value: int) -> bytes:
    """A number, seven bits a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def write_table(rows: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A table of sorted keys and their values."""
    out = bytearray()

    def add(block: bytes) -> bytes:
        """Adds a block; returns its place."""
        place = varint(len(out)) + varint(len(block))
        checked = block + bytes([_NOT_COMPRESSED])
        out.extend(checked + masked(google_crc32c.value(checked)).to_bytes(4, "little"))
        return place

    places = []
    done = 0
    while done < len(rows):
        block, count = _packed(rows[done:], _WHOLE_KEYS, _BLOCK_BYTES)
        done += count
        after = rows[done][0] if done < len(rows) else None
        places.append((_between(rows[done - 1][0], after), add(block)))
    footer = add(_packed((), 1, 1)[0]) + add(_packed(places, 1, len(rows) << 16)[0])
    return bytes(out) + footer.ljust(_FOOTER_SIZE - len(_MAGIC), b"\0") + _MAGIC


def _packed(rows: Sequence[tuple[bytes, bytes]], every: int, most: int) -> tuple[bytes, int]:
    """A block of the first rows, until it has `most` bytes, and how many there are of them."""
    out, restarts, count, before = bytearray(), [0], 0, b""
    for key, value in rows:
        shared = 0
        if count % every:
            shared = _common(before, key)
        elif count:
            restarts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        count, before = count + 1, key
        if len(out) + 4 * len(restarts) + 4 >= most:
            break
    return struct.pack(f"<{len(out)}s{len(restarts) + 1}I", out, *restarts, len(restarts)), count


def _common(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _between(key: bytes, after: bytes | None) -> bytes:
    """A short key that is not before `key`, and before the one that comes after it, if any."""
    if after is None:
        same = next((i for i, byte in enumerate(key) if byte < 0xFF), len(key))
    else:
        same = _common(key, after)
    if same == len(key) or key[same] == 0xFF:
        return key
    if after is not None and key[same] + 1 >= after[same]:
        return key
    return key[:same] + bytes([key[same] + 1])
