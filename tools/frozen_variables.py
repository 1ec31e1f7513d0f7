"""Variables of a graph become constants: what takes their references or handles takes their values.

A handle is followed through the functions that the graph calls.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import NameAttrList
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.graph import attribute_of, data_inputs
from metagraph.meta import node_of
from metagraph.safety import op_definitions
from tools.graph_nodes import make_constant, make_identity, remake, waits, waits_for_inputs

# A graph, or the body of a function, as nodes that take outputs of each other.
#
# The two write outputs differently: `node` and `node:1` in a graph; `node:name:index`, or the name
# of an argument, in a function.
#
# Format: `tensorflow/core/framework/function.proto`.

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


# Operations that read a variable by its handle become ones that take its value.
#
# Operations: `tensorflow/core/ops/resource_variable_ops.cc`, `array_ops.cc`.

_INT32 = tf.int32.as_datatype_enum
_OUTPUT = "output"  # Of whatever an operation becomes here, in a function.


def replace_reader(node: NodeDef, body: Body, dtype: int) -> bool:
    """Makes a node that reads by a handle take the value in its place.

    Args:
      node: of `body`, changed in place; its first input is a value by now.
      body: changed where it names the output of `node`.
      dtype: the number of the value's dtype.

    Returns:
      False where the operation is another; the node then stays as it is.
    """
    if node.op not in _READERS:
        return False
    output, replace = _READERS[node.op]
    replace(node, body, dtype)
    if output != _OUTPUT:
        body.rename_output(node.name, output, _OUTPUT)
    return True


def _read(node: NodeDef, body: Body, dtype: int) -> None:
    del body
    make_identity(node, data_inputs(node)[0], dtype)


def _gather(node: NodeDef, body: Body, dtype: int) -> None:
    """Rows by their numbers; it batches where its handle is read in batches, along axis 0."""
    values, indices = data_inputs(node)
    batched = attribute_of(node, "batch_dims").i
    types = {"Tparams": dtype, "Tindices": attribute_of(node, "Tindices").type}
    axis = body.add(f"{node.name}/axis")
    # In a loop of the old kind a constant has to wait for something of it; functions have none.
    wait = [] if body.is_function else [f"^{indices.partition(':')[0]}"]
    make_constant(axis, np.asarray(batched, np.int32), _INT32, wait)
    text = f"{axis.name}:{_OUTPUT}:0" if body.is_function else axis.name
    remake(node, "GatherV2", [values, indices, text, *waits(node)], {**types, "Taxis": _INT32})
    node.attr["batch_dims"].i = batched


def _gather_nd(node: NodeDef, body: Body, dtype: int) -> None:
    del body
    types = {"Tparams": dtype, "Tindices": attribute_of(node, "Tindices").type}
    remake(node, "GatherNd", node.input, types)


def _shape(node: NodeDef, body: Body, dtype: int) -> None:
    del body
    out_type = attribute_of(node, "out_type").type or _INT32
    remake(node, "Shape", node.input, {"T": dtype, "out_type": out_type})


def _is_initialized(node: NodeDef, body: Body, dtype: int) -> None:
    del dtype
    wait = waits(node) if body.is_function else waits_for_inputs(node)
    make_constant(node, np.asarray(True), tf.bool.as_datatype_enum, wait)


# Operation -> what its output is called in a function, and what becomes of it.
_READERS: Mapping[str, tuple[str, Callable[[NodeDef, Body, int], None]]] = {
    "ReadVariableOp": ("value", _read),
    "ResourceGather": (_OUTPUT, _gather),
    "ResourceGatherNd": (_OUTPUT, _gather_nd),
    "VarIsInitializedOp": ("is_initialized", _is_initialized),
    "VariableShape": (_OUTPUT, _shape),
}


# What takes a handle of a variable takes its value, in a graph and in the functions it calls.
#
# Operations: `tensorflow/core/ops/resource_variable_ops.cc`, `functional_ops.cc`,
# `control_flow_ops.cc`. Format: `tensorflow/core/framework/function.proto`.

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


# What takes a variable of the old kind by reference takes its value.
#
# Operations: `tensorflow/core/ops/control_flow_ops.cc`, `array_ops.cc`, `state_ops.cc`.

_BY_VALUE = {
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefIdentity": "Identity",
    "RefMerge": "Merge",
    "RefNextIteration": "NextIteration",
    "RefSwitch": "Switch",
}
_IS_INITIALIZED = "IsVariableInitialized"


def replace_references(graph: GraphDef, variables: Collection[str]) -> list[str]:
    """Makes what passes references on pass values on, in place.

    Args:
      graph: its variables of the old kind are constants, or fed, by now.
      variables: their nodes.

    Returns:
      The nodes that take a reference to change a variable; they stay as they are.
    """
    by_reference = set(variables)
    for node in graph.node:
        if node.op in _BY_VALUE:
            node.op = _BY_VALUE[node.op]
            by_reference.add(node.name)
        elif node.op == _IS_INITIALIZED:
            wait = waits_for_inputs(node)
            make_constant(node, np.asarray(True), tf.bool.as_datatype_enum, wait)
    changing = {
        name
        for name, definition in op_definitions(graph).items()
        if any(argument.is_ref for argument in definition.input_arg)
    }
    return [
        node.name
        for node in graph.node
        if node.op in changing and by_reference.intersection(map(node_of, data_inputs(node)))
    ]
