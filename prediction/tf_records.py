"""Reads the records of a .tfrecord file of unknown origin.

A record is its length (8 bytes, little-endian), a checksum of that (4), the data and a checksum of
the data (4). Format: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

import struct
from collections.abc import Iterator

import tensorflow as tf

from data import files
from data.errors import DataError

_HEADER, _FOOTER = 12, 4
_GZIP_START = b"\x1f\x8b"


def count_records(path: str, max_bytes: int) -> int:
    """The number of records, from their lengths alone: no data is read.

    A length is checked against the file before anything takes memory for it.

    Args:
      path: the file, not compressed.
      max_bytes: that one record may have.

    Raises:
      DataError: the file cannot be read, or is no whole .tfrecord file.
    """
    length = files.size(path)
    with files.open_binary(path) as stream:
        if stream.read(len(_GZIP_START)) == _GZIP_START:
            raise DataError(f"{path}: is compressed; unpack it with gunzip")
        position = count = 0
        while position < length:
            stream.seek(position)
            header = stream.read(_HEADER)
            (size,) = struct.unpack("<Q", header[:8].ljust(8, b"\0"))
            position += _HEADER + size + _FOOTER
            if len(header) < _HEADER or position > length:
                raise DataError(
                    f"{path}: record {count} claims {size:,} bytes, past the end of the file: it "
                    "is no .tfrecord file, or is cut short"
                )
            if size > max_bytes:
                raise DataError(
                    f"{path}: record {count} claims {size:,} bytes; at most {max_bytes:,}"
                )
            count += 1
    return count


def read_records(path: str, start: int = 0) -> Iterator[bytes]:
    """The records of a file that `count_records` found whole, from record `start` on.

    Raises:
      DataError: a checksum does not fit.
    """
    try:
        for record in tf.data.TFRecordDataset(path).skip(start):
            yield bytes(record.numpy())
    except tf.errors.DataLossError as error:
        raise DataError(f"{path}: is damaged: the checksum of a record does not fit") from error
    except tf.errors.OpError as error:
        raise DataError(f"{path}: {' '.join(error.message.split())}") from error
