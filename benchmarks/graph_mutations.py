"""What the fuzz campaign damages, and how: small checkpoints, and mutations of their meta graphs.

Bytes are changed, as an accident does, or the structure, as a stranger may. Every mutation is drawn
by a random.Random, so that its seed makes it again.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

v1 = tf.compat.v1
Build: TypeAlias = Callable[[tf.Tensor], tf.Tensor]

# One checkpoint for each thing that a graph may be made of. Each takes `x:0` float32 [?, 4] and
# computes `y:0` float32 [?, 2] of it.

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def write_models(folder: Path) -> None:
    """Writes `<folder>/<name>/m.{meta,index,data-*}` of every model. It runs sessions."""
    for name, build in MODELS.items():
        (folder / name).mkdir(parents=True)
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 4], name="x")
            v1.add_to_collection("predict", tf.identity(build(x), name="y"))
            saver = v1.train.Saver()
            session.run(v1.global_variables_initializer())
            saver.save(session, str(folder / name / "m"))


def _weights() -> tf.Tensor:
    initial = np.linspace(0.5, 1.5, 8, dtype=np.float32).reshape(4, 2)
    return v1.get_variable("w", initializer=initial, use_resource=False)


def _linear(x: tf.Tensor) -> tf.Tensor:
    """With a loss and the optimizer that trains it."""
    y = tf.matmul(x, _weights())
    v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_mean(tf.square(y)))
    return y


def _cnn(x: tf.Tensor) -> tf.Tensor:
    """With batch normalization, dropout and a summary."""
    kernel = v1.get_variable("kernel", initializer=np.ones((2, 2, 1, 3), np.float32))
    images = tf.reshape(x, [-1, 2, 2, 1])
    hidden = tf.nn.relu(tf.nn.conv2d(images, kernel, strides=1, padding="SAME"))
    ones, zeros = tf.ones([3]), tf.zeros([3])
    normal, *_ = v1.nn.fused_batch_norm(hidden, ones, zeros, zeros, ones, is_training=False)
    pooled = tf.nn.max_pool2d(normal, 2, 2, "SAME")
    dropped = tf.nn.dropout(tf.reshape(pooled, [-1, 3]), rate=v1.placeholder_with_default(0.0, []))
    v1.summary.histogram("dropped", dropped)
    return tf.nn.softmax(dropped[:, :2])


def _old_control_flow(build: Build) -> Build:
    """The same with Switch, Merge, Enter and so on in place of functions."""

    def built(x: tf.Tensor) -> tf.Tensor:
        v1.disable_control_flow_v2()
        try:
            return build(x)
        finally:
            v1.enable_control_flow_v2()

    return built


def _loop(x: tf.Tensor) -> tf.Tensor:
    w = _weights()
    _, y = tf.while_loop(
        lambda i, _: i < 3,
        lambda i, y: (i + 1, y + tf.matmul(x, w)),
        (tf.constant(0), tf.matmul(x, w)),
        maximum_iterations=10,
    )
    return y


def _condition(x: tf.Tensor) -> tf.Tensor:
    w = v1.get_variable("w", initializer=np.ones((4, 2), np.float32), use_resource=True)
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, w), lambda: tf.matmul(-x, w) + 1.0)


def _functions(x: tf.Tensor) -> tf.Tensor:
    """A function that calls another."""
    inner = tf.function(lambda a, b: tf.matmul(a, b) * 2.0)
    outer = tf.function(lambda a, b: inner(a, b) - inner(-a, b))
    return outer(x, _weights())


def _partitioned(x: tf.Tensor) -> tf.Tensor:
    w = v1.get_variable(
        "w",
        initializer=lambda shape, **_: tf.ones(shape),
        shape=[4, 2],
        partitioner=v1.fixed_size_partitioner(2),
        use_resource=False,
    )
    return tf.matmul(x, tf.convert_to_tensor(w))


def _texts(x: tf.Tensor) -> tf.Tensor:
    """A table, and numbers that go through text."""
    numbers = tf.strings.to_number(tf.strings.as_string(x))
    initial = tf.lookup.KeyValueTensorInitializer(
        tf.constant([b"a", b"b"]), tf.constant([1.0, 2.0])
    )
    table = tf.lookup.StaticHashTable(initial, 0.0)
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, table._initializer)  # noqa: SLF001
    return tf.matmul(numbers, _weights()) + v1.placeholder_with_default(0.0, [])


def _pipeline(x: tf.Tensor) -> tf.Tensor:
    """An iterator and a queue, on the side."""
    data = tf.data.Dataset.from_tensors(np.ones((1, 2), np.float32)).repeat()
    pulled = v1.data.make_initializable_iterator(data).get_next()
    queue = v1.FIFOQueue(4, [tf.float32], shapes=[[2]])
    tf.reduce_sum(queue.dequeue_many(2) + pulled, name="training_only")
    return tf.matmul(x, _weights())


MODELS: Mapping[str, Build] = {
    "linear": _linear,
    "cnn": _cnn,
    "while": _loop,
    "while_v1": _old_control_flow(_loop),
    "cond": _condition,
    "cond_v1": _old_control_flow(_condition),
    "functions": _functions,
    "partitioned": _partitioned,
    "texts": _texts,
    "pipeline": _pipeline,
}

# The mutations.

NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 7, 1000, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
FLOATS = (0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan"))
_LONG = "a" * 5000
TEXTS = ("", "x", "y", "w", "no/such", "../up", _LONG, "\u00e9 \n", "^x", "x:1", "SAME", "NHWC")
REGISTERED = [name for name in dir(tf.raw_ops) if name[:1].isupper()]


def mutate(content: bytes, draw: Random, victim: str) -> bytes:
    """A damaged copy of a `.meta` file's content; poisoned graphs try to write to `victim`."""
    if draw.random() < 0.3:
        return _change_bytes(content, draw)
    proto = MetaGraphDef.FromString(content)
    for _ in range(draw.randint(1, 3)):
        if draw.random() < 0.05:
            _poison(proto, draw, victim)
        else:
            draw.choice(_OF_STRUCTURE)(proto, draw)
    return bytes(proto.SerializeToString(deterministic=True))


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
    bodies = [f.node_def for f in proto.graph_def.library.function if f.node_def]
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
    return int(draw.choice((-1, 2**31 - 1, 99, *range(33), *range(100, 133))))


def _text(draw: Random) -> bytes:
    return draw.choice(TEXTS).encode()


# Kind of an attribute's value -> one that is drawn.
_DRAWN: Mapping[str, Callable[[Random], object]] = {
    "i": lambda draw: draw.choice(NUMBERS),
    "f": lambda draw: draw.choice(FLOATS),
    "b": lambda draw: draw.random() < 0.5,
    "s": _text,
    "type": _dtype,
    "shape": _shape,
}


def _random_value(proto: MetaGraphDef, draw: Random) -> AttrValue:
    """An attribute's value of any type; a list is of one kind, and maybe empty."""
    kind = draw.choice((*_DRAWN, "func", "placeholder", "list"))
    value: object
    if kind == "func":
        value = NameAttrList(name=_function_name(proto, draw))
    elif kind == "placeholder":
        value = draw.choice(TEXTS)
    elif kind == "list":
        count = draw.choice((0, 1, 2, 5))
        of = draw.choice(("i", "type", "shape", "s"))
        value = AttrValue.ListValue(**{of: [_DRAWN[of](draw) for _ in range(count)]})
    else:
        value = _DRAWN[kind](draw)
    return AttrValue(**{kind: value})


def _function_name(proto: MetaGraphDef, draw: Random) -> str:
    names = [function.signature.name for function in proto.graph_def.library.function]
    return str(draw.choice([*names, "no_such_function"]))


def _change_attribute(proto: MetaGraphDef, draw: Random) -> None:
    node = _some_node(proto, draw)
    keys = [*sorted(node.attr), "_output_shapes", "_class", "_XlaMustCompile", "T"]
    node.attr[draw.choice(keys)].CopyFrom(_random_value(proto, draw))


def _change_in_kind(proto: MetaGraphDef, draw: Random) -> None:
    """Another value of an attribute, of the type that it has."""
    node = _some_node(proto, draw)
    for key in draw.sample(sorted(node.attr), len(node.attr)):
        value = node.attr[key]
        kind = value.WhichOneof("value")
        if kind in ("type", "shape", "i", "s"):
            value.CopyFrom(AttrValue(**{kind: _DRAWN[kind](draw)}))
        elif kind == "func":
            value.func.name = _function_name(proto, draw)
        elif kind == "b":
            value.b = not value.b
        else:
            continue
        return


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
    node.input[:] = inputs


def _make_cycle(proto: MetaGraphDef, draw: Random) -> None:
    """A node comes to take what is computed from it; of itself, in the shortest cycle."""
    consumers = [node for node in proto.graph_def.node if node.input]
    if not consumers:
        return
    node = below = draw.choice(consumers)
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
    *(_change_attribute, _change_in_kind, _change_in_kind, _drop_attribute, _change_constant),
    *(_change_input, _change_input, _make_cycle, _change_op, _change_op, _change_name),
    *(_drop_or_double_node, _change_function, _change_collection, _change_signature),
    *(_change_header, _strip_list),
)
