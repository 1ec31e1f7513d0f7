"""Indexes of checkpoints, written byte by byte.

Formats: `tsl/lib/io/table_format.txt`, `tensorflow/core/protobuf/tensor_bundle.proto`.
"""

import struct
from collections.abc import Callable, Mapping

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


def number(value: int) -> bytes:
    """A varint."""
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def block(entries: Mapping[bytes, bytes]) -> bytes:
    """A block of entries, whose keys rise and share nothing."""
    rows = (number(0) + number(len(k)) + number(len(v)) + k + v for k, v in entries.items())
    return b"".join(rows) + struct.pack("<II", 0, 1)


def table(
    entries: Mapping[bytes, bytes], compress: Callable[[bytes], bytes] | None = None
) -> bytes:
    """A table of one block, as TensorFlow takes it, which Snappy has compressed or not."""
    content, handles = b"", list[bytes]()
    for held in (entries, {}, None):
        packed = block({b"\xff": handles[0]} if held is None else held)
        packed = packed if compress is None else compress(packed)
        handles.append(number(len(content)) + number(len(packed)))
        packed += b"\0" if compress is None else b"\1"
        content += packed + struct.pack("<I", checksum(packed))
    return content + (handles[1] + handles[2]).ljust(40, b"\0") + MAGIC


def checksum(content: bytes) -> int:
    """CRC-32C (Castagnoli), masked as such tables have it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
