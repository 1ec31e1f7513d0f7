"""Damages meta graphs: their bytes, as an accident does, or their structure, as a stranger may.

Every mutation is drawn by a random.Random, so that its seed makes it again.
"""

from collections.abc import Callable, Sequence
from random import Random

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 7, 1000, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
FLOATS = (0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan"))
TEXTS = (
    "",
    "x",
    "y",
    "w",
    "no/such",
    "../up",
    "a" * 5000,
    "\u00e9 \n",
    "^x",
    "x:1",
    "SAME",
    "NHWC",
)
REGISTERED = tuple(sorted(name for name in dir(tf.raw_ops) if name[:1].isupper()))


def mutate(content: bytes, draw: Random, victim: str) -> bytes:
    """A damaged copy of a `.meta` file's content.

    Args:
      content: of a whole file.
      draw: decides what is done.
      victim: a path that poisoned graphs try to write to.
    """
    if draw.random() < 0.3:
        return _change_bytes(content, draw)
    proto = MetaGraphDef.FromString(content)
    for _ in range(draw.randint(1, 3)):
        if draw.random() < 0.05:
            _poison(proto, draw, victim)
        else:
            draw.choice(_OF_STRUCTURE)(proto, draw)
    mutated: bytes = proto.SerializeToString(deterministic=True)
    return mutated


def _change_bytes(content: bytes, draw: Random) -> bytes:
    """Flips bits, cuts the end off, or zeroes, doubles or overwrites a part."""
    kind = draw.choice(("flip", "cut", "zero", "double", "overwrite"))
    if kind == "flip":
        changed = bytearray(content)
        for _ in range(draw.randint(1, 8)):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)
    start = draw.randrange(len(content))
    if kind == "cut":
        return content[:start]
    stop = min(len(content), start + draw.randint(1, 200))
    if kind == "double":
        at = draw.randrange(len(content))
        return content[:at] + content[start:stop] + content[at:]
    new = bytes(stop - start) if kind == "zero" else draw.randbytes(stop - start)
    return content[:start] + new + content[stop:]


def _some_node(proto: MetaGraphDef, draw: Random) -> NodeDef:
    """A node of the graph or, less often, of a library function."""
    bodies = [function.node_def for function in proto.graph_def.library.function]
    bodies = [body for body in bodies if body]
    if bodies and draw.random() < 0.4:
        return draw.choice(draw.choice(bodies))
    if not proto.graph_def.node:
        return proto.graph_def.node.add(name="x", op="Placeholder")
    return draw.choice(proto.graph_def.node)


def _shape(draw: Random) -> TensorShapeProto:
    if draw.random() < 0.1:
        return TensorShapeProto(unknown_rank=True)
    sizes = [draw.choice(NUMBERS) for _ in range(draw.choice((0, 1, 1, 2, 3, 4, 300)))]
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def _dtype(draw: Random) -> int:
    number: int = draw.choice((-1, 2**31 - 1, 99, *range(33), *range(100, 133)))
    return number


def _random_value(proto: MetaGraphDef, draw: Random) -> AttrValue:
    """An attribute's value of any type."""
    values: Sequence[Callable[[], AttrValue]] = (
        lambda: AttrValue(i=draw.choice(NUMBERS)),
        lambda: AttrValue(f=draw.choice(FLOATS)),
        lambda: AttrValue(b=draw.random() < 0.5),
        lambda: AttrValue(s=draw.choice(TEXTS).encode()),
        lambda: AttrValue(type=_dtype(draw)),
        lambda: AttrValue(shape=_shape(draw)),
        lambda: AttrValue(func=NameAttrList(name=_function_name(proto, draw))),
        lambda: AttrValue(placeholder=draw.choice(TEXTS)),
        lambda: AttrValue(list=_random_list(draw)),
    )
    return draw.choice(values)()


def _random_list(draw: Random) -> AttrValue.ListValue:
    """A list of one kind, maybe an empty one."""
    count = range(draw.choice((0, 1, 2, 5)))
    lists: Sequence[Callable[[], AttrValue.ListValue]] = (
        lambda: AttrValue.ListValue(i=[draw.choice(NUMBERS) for _ in count]),
        lambda: AttrValue.ListValue(type=[_dtype(draw) for _ in count]),
        lambda: AttrValue.ListValue(shape=[_shape(draw) for _ in count]),
        lambda: AttrValue.ListValue(s=[draw.choice(TEXTS).encode() for _ in count]),
    )
    return draw.choice(lists)()


def _function_name(proto: MetaGraphDef, draw: Random) -> str:
    names = [function.signature.name for function in proto.graph_def.library.function]
    name: str = draw.choice([*names, "no_such_function"])
    return name


def _change_attribute(proto: MetaGraphDef, draw: Random) -> None:
    node = _some_node(proto, draw)
    keys = [*sorted(node.attr), "_output_shapes", "_class", "_XlaMustCompile", "T"]
    node.attr[draw.choice(keys)].CopyFrom(_random_value(proto, draw))


def _change_in_kind(proto: MetaGraphDef, draw: Random) -> None:
    """Another value of an attribute, of the type that it has."""
    node = _some_node(proto, draw)
    for key in draw.sample(sorted(node.attr), len(node.attr)):
        kind = node.attr[key].WhichOneof("value")
        if kind in _IN_KIND:
            node.attr[key].CopyFrom(_IN_KIND[kind](proto, draw, node.attr[key]))
            return


_IN_KIND: dict[str, Callable[[MetaGraphDef, Random, AttrValue], AttrValue]] = {
    "type": lambda _, draw, __: AttrValue(type=_dtype(draw)),
    "shape": lambda _, draw, __: AttrValue(shape=_shape(draw)),
    "i": lambda _, draw, __: AttrValue(i=draw.choice(NUMBERS)),
    "s": lambda _, draw, __: AttrValue(s=draw.choice(TEXTS).encode()),
    "func": lambda proto, draw, old: AttrValue(
        func=NameAttrList(name=_function_name(proto, draw), attr=old.func.attr)
    ),
    "b": lambda _, __, old: AttrValue(b=not old.b),
}


def _drop_attribute(proto: MetaGraphDef, draw: Random) -> None:
    node = _some_node(proto, draw)
    if node.attr:
        del node.attr[draw.choice(sorted(node.attr))]


def _change_constant(proto: MetaGraphDef, draw: Random) -> None:
    """A shape, a dtype or a content that does not fit the rest of the tensor."""
    constants = [node for node in proto.graph_def.node if node.op == "Const"]
    if not constants:
        return
    tensor = draw.choice(constants).attr["value"].tensor
    kind = draw.randrange(4)
    if kind == 0:
        tensor.tensor_shape.CopyFrom(_shape(draw))
    elif kind == 1:
        tensor.dtype = _dtype(draw)
    elif kind == 2:
        tensor.tensor_content = draw.randbytes(draw.choice((0, 1, 4, 8, 1000)))
    else:
        tensor.tensor_content = b""
        tensor.int_val.extend(draw.choice((-(2**31), -1, 0, 1, 2**31 - 1)) for _ in range(2))


def _change_input(proto: MetaGraphDef, draw: Random) -> None:
    node, other = _some_node(proto, draw), _some_node(proto, draw)
    name = draw.choice((other.name, f"{other.name}:{draw.choice(NUMBERS)}", f"^{other.name}"))
    name = draw.choice((name, name, name, *TEXTS[:5], ":", "^", "^^x", "x:", ":0", "x:0:0"))
    inputs = list(node.input)
    kind = draw.randrange(4)
    if kind == 0 or not inputs:
        inputs.append(name)
    elif kind == 1:
        inputs[draw.randrange(len(inputs))] = name
    elif kind == 2:
        del inputs[draw.randrange(len(inputs))]
    else:
        draw.shuffle(inputs)
    del node.input[:]
    node.input.extend(inputs)


def _make_cycle(proto: MetaGraphDef, draw: Random) -> None:
    """A node comes to take what is computed from it; of itself, in the shortest cycle."""
    consumers = [node for node in proto.graph_def.node if node.input]
    if not consumers:
        return
    node = draw.choice(consumers)
    below = node
    for _ in range(draw.randrange(4)):
        after = [n for n in consumers if below.name in n.input]
        below = draw.choice(after) if after else below
    if draw.random() < 0.3:
        node.input.append(f"^{below.name}")
    else:
        node.input[0] = below.name


def _change_op(proto: MetaGraphDef, draw: Random) -> None:
    ops = (draw.choice(REGISTERED), draw.choice(TEXTS), _function_name(proto, draw))
    _some_node(proto, draw).op = draw.choice((ops[0], *ops))


def _change_name(proto: MetaGraphDef, draw: Random) -> None:
    node, other = _some_node(proto, draw), _some_node(proto, draw)
    node.name = draw.choice((other.name, node.name + "/", "_" + node.name, *TEXTS))


def _drop_or_double_node(proto: MetaGraphDef, draw: Random) -> None:
    nodes = proto.graph_def.node
    if nodes:
        at = draw.randrange(len(nodes))
        if draw.random() < 0.5:
            nodes.add().CopyFrom(nodes[at])
        else:
            del nodes[at]


def _change_function(proto: MetaGraphDef, draw: Random) -> None:
    """One that calls itself or another, returns what it has not, or is not there."""
    functions = proto.graph_def.library.function
    if not functions:
        functions.add().signature.name = draw.choice(TEXTS)
        return
    at = draw.randrange(len(functions))
    function = functions[at]
    kind = draw.randrange(5)
    if kind == 0:
        name = draw.choice(functions).signature.name
        call = function.node_def.add(name="again", op="PartitionedCall")
        call.attr["f"].func.name = name
        call.attr["Tin"].list.SetInParent()
        call.attr["Tout"].list.SetInParent()
    elif kind == 1:
        for key in sorted(function.ret):
            function.ret[key] = draw.choice((*TEXTS[:5], "again:output:0"))
    elif kind == 2:
        del functions[at]
    elif kind == 3:
        function.signature.name = draw.choice(functions).signature.name
    else:
        for argument in function.signature.input_arg:
            argument.type = _dtype(draw)


def _change_collection(proto: MetaGraphDef, draw: Random) -> None:
    ours = ("predict", "class_names", "input_scale", "trained_on", "variables", "table_initializer")
    collection = proto.collection_def[draw.choice((*ours, *sorted(proto.collection_def)))]
    collection.Clear()
    kind = draw.randrange(5)
    if kind == 0:
        collection.node_list.value.extend(draw.sample(TEXTS, 3))
    elif kind == 1:
        collection.bytes_list.value.extend([b"\xff\xfe", b"", b"ramp"])
    elif kind == 2:
        collection.float_list.value.extend(FLOATS[-draw.randint(1, 6) :])
    elif kind == 3:
        collection.int64_list.value.append(draw.choice(NUMBERS))
    else:
        collection.any_list.value.add(type_url="type.googleapis.com/none", value=b"\x00")


def _change_signature(proto: MetaGraphDef, draw: Random) -> None:
    signature = proto.signature_def["serving_default"]
    for key in ("x", "probabilities", "classes"):
        info = signature.inputs[key] if key == "x" else signature.outputs[key]
        info.name = draw.choice(("x:0", "y:0", "y", _some_node(proto, draw).name, *TEXTS))
        info.dtype = _dtype(draw)


def _change_header(proto: MetaGraphDef, draw: Random) -> None:
    """Versions, the saver's own names, a variable's place."""
    versions = proto.graph_def.versions
    kind = draw.randrange(5)
    if kind == 0:
        versions.producer = draw.choice((-1, 0, 5, 12, 24, 9999, 2**31 - 1))
    elif kind == 1:
        versions.min_consumer = draw.choice((-1, 0, 2000, 2**31 - 1))
    elif kind == 2:
        versions.bad_consumers.extend(range(1000, 3000))
    elif kind == 3:
        saver = proto.saver_def
        saver.restore_op_name = draw.choice((_some_node(proto, draw).name, *TEXTS))
        saver.filename_tensor_name = draw.choice(TEXTS)
    else:
        _some_node(proto, draw).device = draw.choice(("/job:ps/task:0", "/gpu:9", *TEXTS))


def _strip_list(proto: MetaGraphDef, draw: Random) -> None:
    """What the producer says of its operations is a lie."""
    stripped = proto.meta_info_def.stripped_op_list.op
    if stripped:
        op = draw.choice(stripped)
        for argument in (*op.input_arg, *op.output_arg):
            argument.type_attr = draw.choice(("T", "dtype", *TEXTS))
        for attribute in op.attr:
            attribute.type = draw.choice(("int", "type", "list(shape)", *TEXTS))
            attribute.default_value.CopyFrom(_random_value(proto, draw))


def _poison(proto: MetaGraphDef, draw: Random, victim: str) -> None:
    """Some node waits for one that writes a file."""
    name = f"poison{draw.randrange(10**6)}"
    with tf.Graph().as_default() as graph:
        tf.io.write_file(victim, "owned", name=name)
    target = draw.choice(["y", "x", "save/restore_all", _some_node(proto, draw).name])
    proto.graph_def.node.extend(graph.as_graph_def().node)
    for node in proto.graph_def.node:
        if node.name == target:
            node.input.append(f"^{name}")


_OF_STRUCTURE: Sequence[Callable[[MetaGraphDef, Random], None]] = (
    _change_attribute,
    _change_in_kind,
    _change_in_kind,
    _drop_attribute,
    _change_constant,
    _change_input,
    _change_input,
    _make_cycle,
    _change_op,
    _change_op,
    _change_name,
    _drop_or_double_node,
    _change_function,
    _change_collection,
    _change_signature,
    _change_header,
    _strip_list,
)
