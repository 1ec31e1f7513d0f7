"""The signatures of a graph, with the types that they declare.

Format: `SignatureDef` in `tensorflow/core/protobuf/meta_graph.proto`. Those of a session bundle
declare no types.
"""

from collections.abc import Mapping
from typing import Any

from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.signatures import read_signatures
from tools.graph_inspection.attributes import dtype_name, shape_sizes
from tools.graph_inspection.lines import kind_text, shortened
from tools.graph_inspection.subject import Subject

_SIDES = ("inputs", "outputs")


def record(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Signature -> `method_name`, `inputs` and `outputs`; each of these: key -> `name` (of the tensor;
    of a sparse one, those of its three), `dtype` (null where not declared), `shape`, `exists`
    (whether the graph has it).
    """
    meta = subject.meta
    found: dict[str, Any] = {}
    for name, signature in read_signatures(meta).items():
        found[name] = {"method_name": ""} | {
            side: {key: _undeclared(tensor) for key, tensor in getattr(signature, side).items()}
            for side in _SIDES
        }
    for name, proto in sorted(meta.proto.signature_def.items()):
        found[name] = _declared(meta, proto)
    return found


def _undeclared(name: str) -> dict[str, Any]:
    return {"name": name, "dtype": None, "shape": None, "exists": True}


def _declared(meta: MetaGraphFile, proto: SignatureDef) -> dict[str, Any]:
    sides = {
        side: {key: _tensor(meta, info) for key, info in sorted(getattr(proto, side).items())}
        for side in _SIDES
    }
    return {"method_name": proto.method_name, **sides}


def _tensor(meta: MetaGraphFile, info: TensorInfo) -> dict[str, Any]:
    names = [info.name]
    if info.WhichOneof("encoding") == "coo_sparse":
        sparse = info.coo_sparse
        names = [sparse.values_tensor_name, sparse.indices_tensor_name]
        names.append(sparse.dense_shape_tensor_name)
    if info.WhichOneof("encoding") == "composite_tensor":
        names = [component.name for component in info.composite_tensor.components]
    return {
        "name": ", ".join(names),
        "dtype": dtype_name(info.dtype) if info.dtype else None,  # Of an operation, none.
        "shape": shape_sizes(info.tensor_shape),
        "exists": all(meta.find_tensor(name) is not None for name in names),
    }


def lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    result = [f"signatures ({len(found)})"]
    for name, signature in found.items():
        method = f" ({signature['method_name']})" if signature["method_name"] else ""
        result.append(f"  {name}{method}")
        for side in _SIDES:
            texts = [
                f"    {side[:-1]} {key} = {_text(entry)}" for key, entry in signature[side].items()
            ]
            result += shortened(texts, most, "    ")
    return result


def _text(entry: Mapping[str, Any]) -> str:
    declared = f"  {kind_text(entry)}" if entry["dtype"] else ""
    return (
        str(entry["name"])
        + declared
        + ("" if entry["exists"] else ", which the graph does not have")
    )
