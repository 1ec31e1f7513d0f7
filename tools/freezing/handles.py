"""What takes a handle of a variable takes its value, in a graph and in the functions it calls.

Operations: `tensorflow/core/ops/resource_variable_ops.cc`, `functional_ops.cc`,
`control_flow_ops.cc`. Format: `tensorflow/core/framework/function.proto`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from tensorflow.core.framework.attr_value_pb2 import NameAttrList
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tools.freezing.bodies import Body, Output, output_of
from tools.freezing.readers import replace_reader

Types: TypeAlias = Mapping[int, int]  # Argument or result -> the number of a variable's dtype.

_PASS_ON = frozenset(
    {"Enter", "Exit", "Identity", "Merge", "NextIteration", "Switch", "_SwitchN"}
)  # Their attribute T is the dtype of all that they pass.
_MERGE = "Merge"  # Its second output is no value.


class _Call(NamedTuple):
    """An operation that gives its inputs to functions.

    Attributes:
      functions: the attributes that name them.
      types: the attribute with the dtypes of the arguments.
      results: the one with those of the results.
      first: the input that is the first argument.
    """

    functions: Sequence[str]
    types: str = "Tin"
    results: str = "Tout"
    first: int = 0


_IF = _Call(("then_branch", "else_branch"), first=1)
_CALLS: Mapping[str, _Call] = {
    "Case": _Call(("branches",), first=1),
    "If": _IF,
    "PartitionedCall": _Call(("f",)),
    "StatefulPartitionedCall": _Call(("f",)),
    "StatelessCase": _Call(("branches",), first=1),
    "StatelessIf": _IF,
    "StatelessWhile": _Call(("cond", "body"), "T", "T"),
    "While": _Call(("cond", "body"), "T", "T"),
}
_SHAPES = ("_output_shapes", "output_shapes", "_handle_shapes", "_handle_dtypes", "_input_shapes")


class Handles:
    """Replaces handles by values; a function is made anew for each way in which it is given them.

    Attributes:
      writers: the nodes that take a handle to change a variable, those of functions as
        `function/node`; they stay as they are.
    """

    def __init__(self, graph: GraphDef) -> None:
        """Begins with a graph, which is changed in place."""
        self.writers: list[str] = []
        self._graph = graph
        self._library = {f.signature.name: f for f in graph.library.function}
        self._made: dict[tuple[str, tuple[tuple[int, int], ...]], tuple[str, Types]] = {}

    def replace(self, variables: Mapping[str, int]) -> None:
        """Replaces all handles.

        Args:
          variables: nodes that were a handle and are a value by now -> the number of its dtype.
        """
        if variables:
            self._replace_in(Body(self._graph), {(name, 0): n for name, n in variables.items()})

    def _replace_in(self, body: Body, handles: dict[Output, int]) -> None:
        """Replaces the handles of one body; `handles` is made to hold all outputs that were one."""
        waiting = [name for name, _ in handles]
        while waiting:
            for node in body.takers.get(waiting.pop(), ()):
                before = len(handles)
                handles.update(self._outputs(body, node, handles))
                if len(handles) > before:
                    waiting.append(node.name)
        found = [(node, body.taken(node, handles)) for node in body.nodes.values()]
        for node, taken in found:
            if taken:
                self._replace_at(body, node, taken)

    def _outputs(
        self, body: Body, node: NodeDef, handles: Mapping[Output, int]
    ) -> dict[Output, int]:
        """Which outputs of a node are handles, given that some of its inputs are."""
        taken = body.taken(node, handles)
        if not taken:
            return {}
        if node.op in _PASS_ON:
            number = next(iter(taken.values()))
            outputs = 1 if node.op == _MERGE else 2
            return {(node.name, index): number for index in range(outputs)}
        if node.op not in _CALLS:
            return {}
        return {(node.name, i): number for i, number in self._call(node, taken)[1].items()}

    def _replace_at(self, body: Body, node: NodeDef, taken: Types) -> None:
        """Makes a node that takes handles take values."""
        if node.op in _PASS_ON:
            node.attr["T"].type = next(iter(taken.values()))
        elif node.op in _CALLS:
            names, results = self._call(node, taken)
            _give(node, names, taken, results)
        elif replace_reader(node, body, next(iter(taken.values()))):
            return
        else:
            self.writers.append(body.title(node))
        for name in _SHAPES:
            if name in node.attr:
                node.attr.pop(name)

    def _call(self, node: NodeDef, taken: Types) -> tuple[dict[str, str], Types]:
        """The functions to call in place of those that a node calls, and its results' dtypes."""
        call = _CALLS[node.op]
        types = {index - call.first: number for index, number in taken.items()}
        names, results = {}, dict[int, int]()
        if call.types == call.results:  # Of a loop, what comes out has the type of what goes in.
            results.update(types)
        for attribute in call.functions:
            for function in _functions(node, attribute):
                if function.name in self._library:  # TensorFlow refuses a call of another.
                    names[function.name], found = self._function(function.name, types)
                    results.update({} if call.types == call.results else found)
        return names, results

    def _function(self, name: str, types: Types) -> tuple[str, Types]:
        """The name of a function for such arguments, and its results' dtypes."""
        key = name, tuple(sorted(types.items()))
        if key not in self._made:
            function = self._graph.library.function.add()
            function.CopyFrom(self._library[name])
            function.signature.name = self._free_name(name)
            self._made[key] = function.signature.name, {}
            self._made[key] = function.signature.name, self._retype(function, types)
        return self._made[key]

    def _free_name(self, name: str) -> str:
        number = 0
        while f"{name}_frozen_{number}" in self._library:
            number += 1
        self._library[f"{name}_frozen_{number}"] = FunctionDef()
        return f"{name}_frozen_{number}"

    def _retype(self, function: FunctionDef, types: Types) -> Types:
        """Makes a function take values in place of handles; returns its results' dtypes."""
        arguments = function.signature.input_arg
        given = {i: number for i, number in types.items() if i < len(arguments)}
        for index, number in given.items():
            arguments[index].type = number
            arguments[index].ClearField("handle_data")
            if index in function.arg_attr:
                function.arg_attr.pop(index)
        if "_input_shapes" in function.attr:
            function.attr.pop("_input_shapes")
        body = Body(function)
        handles = {(arguments[index].name, 0): number for index, number in given.items()}
        self._replace_in(body, handles)
        results = {}
        for index, result in enumerate(function.signature.output_arg):
            output = output_of(function.ret[result.name])
            if output in handles:
                result.type = results[index] = handles[output]
                result.ClearField("handle_data")
        return results


def _give(node: NodeDef, names: Mapping[str, str], taken: Types, results: Types) -> None:
    """Makes a node call other functions, with values in place of handles."""
    call = _CALLS[node.op]
    for attribute in call.functions:
        for function in _functions(node, attribute):
            function.name = names.get(function.name, function.name)
    for index, number in taken.items():
        _set_type(node, call.types, index - call.first, number)
    for index, number in results.items():
        _set_type(node, call.results, index, number)


def _set_type(node: NodeDef, attribute: str, index: int, number: int) -> None:
    types = node.attr[attribute].list.type
    if 0 <= index < len(types):
        types[index] = number


def _functions(node: NodeDef, attribute: str) -> list[NameAttrList]:
    """The functions that an attribute names, to be changed in place."""
    if attribute not in node.attr:
        return []
    value = node.attr[attribute]
    return [value.func] if value.HasField("func") else list(value.list.func)
