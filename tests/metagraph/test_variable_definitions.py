"""What is read of a collection of variables, and what is passed over."""

import pytest
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import MetaGraphFile, variable_definitions
from metagraph.variables import trainable_names

v1 = tf.compat.v1


@pytest.fixture
def proto() -> MetaGraphDef:
    """Two variables, of which one is trained, and an operation."""
    with tf.Graph().as_default() as graph:
        v1.get_variable("w", initializer=1.0, use_resource=False)
        v1.get_variable("step", initializer=1, trainable=False, use_resource=True)
        tf.constant(1.0, name="c")
        v1.add_to_collection("others", "w:0")
        return v1.train.export_meta_graph(graph=graph)


def _names(proto: MetaGraphDef, collection: str) -> list[str]:
    found = variable_definitions(MetaGraphFile("m.meta", "m", proto), collection)
    return [name for name, definition in found if definition.variable_name == f"{name}:0"]


def test_the_variables_of_a_collection(proto: MetaGraphDef) -> None:
    assert _names(proto, "variables") == ["w", "step"]
    assert _names(proto, "trainable_variables") == ["w"]
    assert _names(proto, "others") == _names(proto, "missing") == []


def test_what_else_is_in_a_collection_is_passed_over(proto: MetaGraphDef) -> None:
    entries = proto.collection_def["trainable_variables"].bytes_list.value
    entries.extend([b"\xff", b"", VariableDef(variable_name="gone:0").SerializeToString()])
    entries.append(VariableDef(variable_name="c:0").SerializeToString())
    assert _names(proto, "trainable_variables") == ["w", "c"]
    assert trainable_names(MetaGraphFile("m.meta", "m", proto)) == {"w"}
