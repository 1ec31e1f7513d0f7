"""The tensors that --tensor names, read by themselves."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.nearest_names import nearest_names
from checkpoints.loading.variable_values import read_values, variable_of
from tools.checkpoint_inspection.contents import Contents
from tools.common.errors import ToolError

_FIRST_OUTPUT = ":0"


class Named(NamedTuple):
    """What a name means in a checkpoint.

    Attributes:
      name: as the user wrote it.
      key: of the tensor.
      variable: of the graph, where it is that, and not all of the tensor of this key.
    """

    name: str
    key: str
    variable: str | None = None


def find_named(contents: Contents, name: str) -> Named:
    """The tensor that a name means.

    The first of these that there is: a key of the checkpoint; a key without `:0`; a variable of
    the graph; the path or the name of one of an object-based checkpoint.

    Raises:
      ToolError: there is none; the message offers the nearest names.
    """
    plain = name.removesuffix(_FIRST_OUTPUT)
    held, places = contents.reader.shapes, contents.places
    for key in (name, plain):
        if key in held:
            return Named(name, key)
    if plain in places and places[plain].key in held:
        place = places[plain]
        is_all = place.part is None and not place.reshaped
        return Named(name, place.key, None if is_all else plain)
    keys = {entry.path: entry.key for entry in contents.tensors}
    for entry in contents.tensors:
        keys |= {variable: entry.key for variable in entry.variables if variable not in keys}
    if plain in keys:
        return Named(name, keys[plain])
    near = nearest_names(plain, keys)
    hint = f"the nearest are {', '.join(near)}" if near else "without --tensor all are listed"
    raise ToolError(f"{contents.reader.prefix} has no tensor {name!r}; {hint}")


def read_named(contents: Contents, named: Named) -> Array:
    """Its value, and of no other tensor.

    Raises:
      CheckpointError: it is damaged, or does not fit its variable.
    """
    if named.variable is None or contents.meta is None:
        return read_tensor(contents, named.key)
    node = contents.meta.nodes[named.variable]
    return plain_array(read_values(contents.meta, [variable_of(contents.meta, node)])[node.name])


def read_tensor(contents: Contents, key: str) -> Array:
    """The value of a tensor, in a dtype that NumPy itself has.

    Raises:
      CheckpointError: it is damaged.
    """
    contents.reader.check_sizes([key])
    return plain_array(contents.reader.read(key))


def plain_array(array: Array) -> Array:
    """The same values in a dtype of NumPy's own: bfloat16 as float32, int4 as int8, and so on."""
    if array.dtype.kind != "V":
        return array
    if array.dtype.names:  # A quantized integer is a structure of one field.
        field: Array = array[array.dtype.names[0]]
        return field
    return array.astype(np.int8 if tf.as_dtype(array.dtype).is_integer else np.float32)
