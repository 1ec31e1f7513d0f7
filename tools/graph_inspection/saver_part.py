"""The saver of a graph: its tensors, what it keeps, which variables it saves under which keys."""

from collections.abc import Mapping
from typing import Any

from checkpoints.loading.saver_mapping import Stored, saver_keys
from checkpoints.loading.tensor_info import format_shape
from checkpoints.loading.variable_values import VARIABLE_OPS
from tools.graph_inspection.lines import listed, shortened
from tools.graph_inspection.saver_record import saver_record, saver_text
from tools.graph_inspection.subject import Subject


def record(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `present` (whether the file has a saver), those of `saver_record`, `saved` (a list of
    `variable`, `key` and, of a partitioned one, `slice` with `full_shape`, `starts` and `sizes`),
    `not_saved` (variables).
    """
    meta = subject.meta
    saved = saver_keys(meta)
    names = [name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS]
    return {
        "present": meta.proto.HasField("saver_def"),
        **saver_record(meta.proto.saver_def),
        "saved": [_place(name, saved[name]) for name in sorted(saved)],
        "not_saved": [name for name in names if name not in saved],
    }


def _place(variable: str, stored: Stored) -> dict[str, Any]:
    found: dict[str, Any] = {"variable": variable, "key": stored.key}
    if stored.part is not None:
        found["slice"] = {key: list(value) for key, value in stored.part._asdict().items()}
    return found


def lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    if not found["present"] and not found["saved"]:
        return ["saver: the file has none"]
    result = ["saver", f"  {saver_text(found)}"]
    renamed = [f"    {_place_text(place)}" for place in found["saved"] if _is_other(place)]
    names = len(found["saved"]) - len(renamed)
    result.append(f"  saves {names} variables under their names" + (", and" if renamed else ""))
    result += shortened(renamed, most, "    ")
    if found["not_saved"]:
        result.append(f"  does not save: {listed(found['not_saved'], most)}")
    return result


def _is_other(place: Mapping[str, Any]) -> bool:
    return place["key"] != place["variable"] or "slice" in place


def _place_text(place: Mapping[str, Any]) -> str:
    if "slice" not in place:
        return f"{place['variable']} as {place['key']}"
    part = place["slice"]
    return (
        f"{place['variable']} as {format_shape(part['sizes'])} of {place['key']} "
        f"{format_shape(part['full_shape'])} from {format_shape(part['starts'])}"
    )
