"""The functions in a graph's library.

Format: `tensorflow/core/framework/function.proto`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.op_def_pb2 import OpDef

from tools.graph_inspection.attributes import dtype_name
from tools.graph_inspection.lines import counted, listed, shortened
from tools.graph_inspection.subject import Subject

_ARGUMENTS_ON_A_LINE = 6


def record(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Function, in the file's order -> `arguments` and `results` (name -> dtype, or the attribute that
    chooses it), `nodes` (how many), `ops` (operation -> nodes), `gradient` (the function that is
    its gradient; null where none is named).
    """
    library = subject.meta.proto.graph_def.library
    gradients = {gradient.function_name: gradient.gradient_func for gradient in library.gradient}
    return {f.signature.name: _function(f, gradients) for f in library.function}


def _function(function: FunctionDef, gradients: Mapping[str, str]) -> dict[str, Any]:
    return {
        "arguments": _types(function.signature.input_arg),
        "results": _types(function.signature.output_arg),
        "nodes": len(function.node_def),
        "ops": dict(sorted(Counter(node.op for node in function.node_def).items())),
        "gradient": gradients.get(function.signature.name),
    }


def _types(arguments: Iterable[OpDef.ArgDef]) -> dict[str, str]:
    return {
        arg.name: dtype_name(arg.type) if arg.type else arg.type_attr or arg.type_list_attr
        for arg in arguments
    }


def lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    texts = [line for name, function in found.items() for line in _lines(name, function)]
    return [f"functions ({len(found)})", *shortened(texts, 2 * most)]


def _lines(name: str, function: Mapping[str, Any]) -> list[str]:
    gradient = f"; its gradient is {function['gradient']}" if function["gradient"] else ""
    ops = counted(function["ops"], _ARGUMENTS_ON_A_LINE)
    return [
        f"  {name}({_listed(function['arguments'])}) -> {_listed(function['results'])}",
        f"    {function['nodes']} nodes: {ops}{gradient}",
    ]


def _listed(types: Mapping[str, str]) -> str:
    texts = [f"{name} {dtype}" for name, dtype in types.items()]
    return listed(texts, _ARGUMENTS_ON_A_LINE) if texts else ""
