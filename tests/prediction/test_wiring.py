"""Who takes what of whom, in graphs written node by node."""

from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import MetaGraphFile
from metagraph.usage import Wiring, ancestors, dependence, output_index, scope_of, wiring_of


def _wiring(*nodes: tuple[str, str, list[str]]) -> Wiring:
    proto = MetaGraphDef()
    for name, op, inputs in nodes:
        proto.graph_def.node.add(name=name, op=op, input=inputs)
    return wiring_of(MetaGraphFile("m.meta", "m", proto))


def test_control_inputs_and_what_does_not_exist_are_left_out() -> None:
    wiring = _wiring(("a", "Const", []), ("b", "Add", ["a", "a:1", "^a", "gone:0"]))
    assert wiring.taken == {"a": [], "b": ["a", "a:1"]}
    assert wiring.takers == {"a": ["b", "b"]}
    assert wiring.tensors_taken("b", "a") == {"a:0", "a:1"}


def test_numbers_of_outputs() -> None:
    texts = ("a", "a:0", "a:12", "a:", "a:x", "a:-1", "a:99999999999999")
    assert [output_index(text) for text in texts] == [0, 0, 12, 0, 0, 0, 0]
    assert scope_of("a/b/c") == "a/b"
    assert scope_of("a") == ""


def test_ancestors_of_a_cycle() -> None:
    wiring = _wiring(("a", "Merge", ["c"]), ("b", "Add", ["a"]), ("c", "Next", ["b"]))
    assert ancestors(wiring, ["b"]) == {"a", "b", "c"}
    assert ancestors(wiring, []) == set()


def test_each_output_of_a_source_is_an_input_of_its_own() -> None:
    wiring = _wiring(
        ("rows", "IteratorGetNext", []),
        ("x", "Identity", ["rows"]),
        ("loss", "Sub", ["x", "rows:1"]),
        ("other", "Identity", ["rows:2"]),
    )
    needs = dependence(wiring, ["rows:0", "rows:1"], left_out=())
    assert needs == {"rows": 0b11, "x": 0b01, "loss": 0b11}


def test_a_shape_and_what_is_left_out_end_the_walk() -> None:
    wiring = _wiring(
        ("x", "Placeholder", []),
        ("shape", "Shape", ["x"]),
        ("zeros", "Fill", ["shape"]),
        ("saved", "SaveV2", ["x"]),
        ("late", "Identity", ["saved"]),
    )
    assert dependence(wiring, ["x:0"], left_out={"saved"}) == {"x": 1, "shape": 1}


def test_without_inputs_every_node_counts() -> None:
    wiring = _wiring(("a", "Const", []), ("b", "SaveV2", ["a"]))
    assert dependence(wiring, [], left_out={"b"}) == {"a": 0}
