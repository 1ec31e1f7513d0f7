"""A graph, or the body of a function, as nodes that take outputs of each other.

The two write outputs differently: `node` and `node:1` in a graph; `node:name:index`, or the name of
an argument, in a function.

Format: `tensorflow/core/framework/function.proto`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import data_inputs

Output: TypeAlias = tuple[str, int]  # A node, or an argument of the function, and which output.

_SECOND = frozenset({"value_index", "output_true"})  # Of Merge and Switch, in a function.


def output_of(text: str) -> Output:
    """The output that an input names."""
    name, _, rest = text.partition(":")
    if rest.partition(":")[0] in _SECOND:
        return name, 1
    index = rest.rpartition(":")[2]
    return name, int(index) if index.isdecimal() else 0


class Body:
    """The nodes of a graph or a function.

    Attributes:
      nodes: by name.
      takers: node or argument -> the nodes that take an output of it, control inputs left out.
      is_function: whether outputs are written as in a function.
    """

    def __init__(self, container: GraphDef | FunctionDef) -> None:
        """Looks through `container`, which is changed in place from then on."""
        self._container = container
        self.is_function = isinstance(container, FunctionDef)
        self.nodes = {node.name: node for node in self._list}
        self.takers: dict[str, list[NodeDef]] = {}
        for node in self._list:
            for name in dict.fromkeys(output_of(text)[0] for text in data_inputs(node)):
                self.takers.setdefault(name, []).append(node)

    def taken(self, node: NodeDef, handles: Mapping[Output, int]) -> dict[int, int]:
        """Which inputs of a node are among `handles`, each with what that says of it."""
        outputs = [output_of(text) for text in data_inputs(node)]
        return {i: handles[output] for i, output in enumerate(outputs) if output in handles}

    def title(self, node: NodeDef) -> str:
        """The node's name; that of a function's as `function/node`."""
        if isinstance(self._container, FunctionDef):
            return f"{self._container.signature.name}/{node.name}"
        return str(node.name)

    def add(self, name: str) -> NodeDef:
        """A new node, of that name or, where it is taken, a longer one."""
        taken = {*self.nodes, *self.takers}  # Among them the arguments of a function.
        while name in taken:
            name += "_"
        self.nodes[name] = self._list.add(name=name)
        return self.nodes[name]

    def rename_output(self, node: str, old: str, new: str) -> None:
        """Gives the output of a node another name where it stands; in a graph, it has none."""
        if not isinstance(self._container, FunctionDef):
            return
        before, after = f"{node}:{old}:0", f"{node}:{new}:0"
        for taker in self.takers.get(node, ()):
            for index, text in enumerate(taker.input):
                if text == before:
                    taker.input[index] = after
        for result, text in self._container.ret.items():
            if text == before:
                self._container.ret[result] = after

    @property
    def _list(self) -> Any:
        """The repeated field of the nodes."""
        container = self._container
        return container.node_def if isinstance(container, FunctionDef) else container.node
