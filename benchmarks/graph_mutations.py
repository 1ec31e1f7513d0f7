"""What the fuzz campaign damages, and how: small checkpoints, and mutations of their meta graphs.

Bytes are changed, as an accident does, or the structure, as a stranger may. Every mutation is drawn
by a random.Random, so that its seed makes it again.
"""

from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

v1 = tf.compat.v1

# One checkpoint for each thing that a graph may be made of. Each takes `x:0` float32 [?, 4] and
# computes `y:0` float32 [?, 2] of it.

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def write_models(folder: Path) -> None:
    """Writes `<folder>/<name>/m.{meta,index,data-*}` of every model. It runs sessions."""
    for name, build in MODELS.items():
        (folder / name).mkdir(parents=True)
        if name.endswith("_v1"):  # With Switch, Merge, Enter and so on in place of functions.
            v1.disable_control_flow_v2()
        else:
            v1.enable_control_flow_v2()
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
    ones, partitioner = v1.ones_initializer(), v1.fixed_size_partitioner(2)
    w = v1.get_variable("w", [4, 2], None, ones, partitioner=partitioner, use_resource=False)
    return tf.matmul(x, tf.convert_to_tensor(w))


def _texts(x: tf.Tensor) -> tf.Tensor:
    """A table, and numbers that go through text."""
    numbers = tf.strings.to_number(tf.strings.as_string(x))
    keys, values = tf.constant([b"a", b"b"]), tf.constant([1.0, 2.0])
    initial = tf.lookup.KeyValueTensorInitializer(keys, values)
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


MODELS: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "linear": _linear,
    "cnn": _cnn,
    "while": _loop,
    "while_v1": _loop,
    "cond": _condition,
    "cond_v1": _condition,
    "functions": _functions,
    "partitioned": _partitioned,
    "texts": _texts,
    "pipeline": _pipeline,
}

# What a field may come to hold.

NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 7, 24, 1000, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
FLOATS = (0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan"))
DTYPES = (-1, 2**31 - 1, 99, *range(33), *range(100, 133))  # Also numbers of other enumerations.
TEXTS = (
    *("", "x", "y", "w", "no/such", "../up", "a" * 5000, "\u00e9 \n", "SAME", "NHWC", "stdout"),
    *("x:1", "x:", ":", ":0", "x:0:0", "^", "^x", "^^x", "list(shape)", "/job:ps/task:0"),
)
KEYS = ("_class", "_output_shapes", "_XlaMustCompile", "T", "predict", "class_names", "input_scale")
REGISTERED = [name for name in dir(tf.raw_ops) if name[:1].isupper()]
_DRAWN: Mapping[int, tuple[float, ...]] = {  # Kind of a field -> values; of the rest, texts.
    FieldDescriptor.CPPTYPE_INT32: tuple(n for n in NUMBERS if -(2**31) <= n < 2**31),
    FieldDescriptor.CPPTYPE_INT64: NUMBERS,
    FieldDescriptor.CPPTYPE_UINT32: tuple(n for n in NUMBERS if 0 <= n < 2**32),
    FieldDescriptor.CPPTYPE_UINT64: tuple(n for n in NUMBERS if n >= 0),
    FieldDescriptor.CPPTYPE_FLOAT: FLOATS,
    FieldDescriptor.CPPTYPE_DOUBLE: FLOATS,
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: DTYPES,
}

# The mutations.


def mutate(content: bytes, draw: Random, victim: str) -> bytes:
    """A damaged copy of a `.meta` file's content; poisoned graphs try to write to `victim`."""
    if draw.random() < 0.3:
        return _change_bytes(content, draw)
    proto = MetaGraphDef.FromString(content)
    for _ in range(draw.randint(1, 3)):
        if draw.random() < 0.05:
            _poison(proto, draw, victim)
        else:
            change, *_ = draw.choices((_change_field, _make_cycle, _change_op), (6, 1, 1))
            change(proto, draw)
    return bytes(proto.SerializeToString(deterministic=True))


def _change_bytes(content: bytes, draw: Random) -> bytes:
    """Flips bits, cuts the end off, or zeroes, doubles or overwrites a part."""
    start = draw.randrange(len(content))
    part = content[start : start + draw.randint(1, 200)]
    before, after = content[:start], content[start + len(part) :]
    kind = draw.choice(("flip", "cut", "zero", "double", "overwrite"))
    if kind == "flip":
        flipped = bytearray(content)
        for _ in range(draw.randint(1, 8)):
            flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return bytes(flipped)
    if kind == "cut":
        return before
    if kind == "double":
        at = draw.randrange(len(content))
        return content[:at] + part + content[at:]
    new = bytes(len(part)) if kind == "zero" else draw.randbytes(len(part))
    return before + new + after


def _some_node(proto: MetaGraphDef, draw: Random) -> NodeDef:
    """A node of the graph or, less often, of a library function."""
    bodies = [f.node_def for f in proto.graph_def.library.function if f.node_def]
    if bodies and draw.random() < 0.4:
        return draw.choice(draw.choice(bodies))
    if not proto.graph_def.node:
        return proto.graph_def.node.add(name="x", op="Placeholder")
    return draw.choice(proto.graph_def.node)


def _change_field(proto: MetaGraphDef, draw: Random) -> None:
    """Goes down from some node, or from the whole, into what it holds, and changes a field there.

    Any field of the formats may be met: attributes, tensors, functions, signatures, versions.
    """
    message: Any = draw.choice((_some_node(proto, draw), _some_node(proto, draw), proto))
    while True:
        fields = [field for field, _ in message.ListFields()] or message.DESCRIPTOR.fields
        field = draw.choice(fields)
        below = _messages(message, field)
        if not below or draw.random() < 0.2:
            break
        message = draw.choice(below)
    if draw.random() < 0.2:  # One that may not be set yet, and may be instead of another.
        field = draw.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if isinstance(value, Message):
        value.Clear()
        value.SetInParent()
    elif isinstance(value, MutableMapping):
        _change_map(value, draw)
    elif field.is_repeated:
        _change_list(value, field, proto, draw)
    else:
        setattr(message, field.name, _drawn(field, proto, draw))


def _messages(message: Message, field: FieldDescriptor) -> list[Message]:
    """What a field holds, as far as it is messages."""
    held = getattr(message, field.name)
    if isinstance(held, MutableMapping):
        held = [held[key] for key in sorted(held)]
    return [one for one in (held if field.is_repeated else [held]) if isinstance(one, Message)]


def _change_map(value: MutableMapping[Any, Any], draw: Random) -> None:
    """An entry is gone, or has what another has, perhaps under a key that is new."""
    if not value:
        return
    keys = sorted(value)
    key, other = draw.choice(keys), draw.choice(keys)
    if draw.random() < 0.4:
        del value[key]
        return
    if isinstance(key, str):
        key = draw.choice((key, *KEYS))
    if isinstance(value[other], Message):
        value[key].CopyFrom(value[other])
    else:
        value[key] = value[other]


def _change_list(value: Any, field: FieldDescriptor, proto: MetaGraphDef, draw: Random) -> None:
    """One of several is gone, or there again and again, or another; or their order is."""
    kind = draw.randrange(4)
    if kind == 0 and value:
        del value[draw.randrange(len(value))]
    elif kind == 1 and value:
        value.extend([draw.choice(value)] * draw.choice((1, 1, 2, 300)))
    elif kind == 2 and value:
        value.sort(key=lambda _: draw.random())
    elif field.message_type is not None:
        value.add()
    elif value and draw.random() < 0.7:
        value[draw.randrange(len(value))] = _drawn(field, proto, draw)
    else:
        value.append(_drawn(field, proto, draw))


def _drawn(field: FieldDescriptor, proto: MetaGraphDef, draw: Random) -> object:
    """A value of a field's kind, many of them at the edge of what there can be."""
    if values := _DRAWN.get(field.cpp_type):
        return draw.choice(values)
    text = _text(proto, draw)
    if field.type != FieldDescriptor.TYPE_BYTES:
        return text
    return draw.choice((text.encode(), draw.randbytes(draw.choice((0, 1, 4, 8, 1000)))))


def _text(proto: MetaGraphDef, draw: Random) -> str:
    """A name of the file's own, which leads somewhere, or one that may lead nowhere."""
    name = _some_node(proto, draw).name
    functions = [function.signature.name for function in proto.graph_def.library.function]
    own = (name, name, name, f"{name}:{draw.choice(NUMBERS)}", f"^{name}", *functions[:3])
    return str(draw.choice((*own, *TEXTS, draw.choice(REGISTERED))))


def _change_op(proto: MetaGraphDef, draw: Random) -> None:
    _some_node(proto, draw).op = draw.choice((*REGISTERED, _text(proto, draw)))


def _make_cycle(proto: MetaGraphDef, draw: Random) -> None:
    """A node comes to take what is computed from it; of itself, in the shortest cycle."""
    consumers = [node for node in proto.graph_def.node if node.input]
    if not consumers:
        return
    node = below = draw.choice(consumers)
    for _ in range(draw.randrange(4)):
        below = draw.choice([n for n in consumers if below.name in n.input] or [below])
    if draw.random() < 0.3:
        node.input.append(f"^{below.name}")
    else:
        node.input[0] = below.name


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
