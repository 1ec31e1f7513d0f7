"""The collections of a graph: names, texts, numbers, and messages decoded."""

from collections.abc import Mapping, Sequence
from typing import Any

from checkpoints.loading.tensor_info import format_shape
from tools.graph_inspection.collection_entries import Entry, decoded
from tools.graph_inspection.lines import listed, shortened
from tools.graph_inspection.saver_record import saver_text
from tools.graph_inspection.subject import Subject

_PLAIN_ON_A_LINE = 10


def record(subject: Subject) -> dict[str, Any]:
    """Collection -> its entries, see `collection_entries.decoded`."""
    meta = subject.meta
    return {key: decoded(meta, key) for key in sorted(meta.proto.collection_def)}


def lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    result = [f"collections ({len(found)})"]
    for key, entries in found.items():
        if all(not isinstance(entry, dict) for entry in entries):
            result.append(f"  {key} = {listed(entries, _PLAIN_ON_A_LINE)}")
        elif all(isinstance(entry, dict) and entry["kind"] == "bytes" for entry in entries):
            result.append(f"  {key} = {_undecoded(entries)}")
        else:
            texts = [f"    {_text(entry)}" for entry in entries]
            result += [f"  {key} ({len(entries)})", *shortened(texts, most, "    ")]
    return result


def _undecoded(entries: Sequence[Mapping[str, Any]]) -> str:
    """Entries of a kind that is not known."""
    types = ", ".join(sorted({entry["type"] for entry in entries if entry.get("type")}))
    total = sum(entry["bytes"] for entry in entries)
    return f"({len(entries)} entries, {total} bytes{f', {types}' if types else ''})"


def _text(entry: Entry) -> str:
    return _TEXTS[entry["kind"]](entry) if isinstance(entry, dict) else str(entry)


def _variable(entry: Mapping[str, Any]) -> str:
    part = ""
    if "slice" in entry:
        found = entry["slice"]
        part = (
            f", {format_shape(found['sizes'])} of {found['full_name']} "
            f"{format_shape(found['full_shape'])} from {format_shape(found['starts'])}"
        )
    kind = "resource" if entry["is_resource"] else "ref"
    return f"{entry['variable']} ({kind}), set by {entry['initializer']}{part}"


def _cond(entry: Mapping[str, Any]) -> str:
    nested = f", holds {listed(entry['nested'], _PLAIN_ON_A_LINE)}" if entry["nested"] else ""
    branch = "true" if entry["branch"] else "false"
    return (
        f"{entry['name']}: where {entry['predicate']} is {branch}, {entry['values']} values{nested}"
    )


def _while(entry: Mapping[str, Any]) -> str:
    nested = f", holds {listed(entry['nested'], _PLAIN_ON_A_LINE)}" if entry["nested"] else ""
    return (
        f"{entry['name']}: while {entry['condition']}, {entry['values']} values, "
        f"{entry['parallel_iterations']} turns at a time, "
        f"gives {listed(entry['exits'], _PLAIN_ON_A_LINE)}{nested}"
    )


def _queue_runner(entry: Mapping[str, Any]) -> str:
    enqueue = listed(entry["enqueue"], _PLAIN_ON_A_LINE)
    return f"{entry['queue']}: filled by {enqueue}; closed by {entry['close']}"


def _bytes(entry: Mapping[str, Any]) -> str:
    kind = f" of {entry['type']}" if entry.get("type") else ""
    return f"{entry['bytes']} bytes{kind}"


_TEXTS = {
    "variable": _variable,
    "cond_context": _cond,
    "while_context": _while,
    "queue_runner": _queue_runner,
    "saver": saver_text,
    "asset": lambda entry: f"{entry['filename']}, its path in {entry['tensor']}",
    "graph": lambda entry: f"a graph of {entry['nodes']} nodes, {entry['bytes']} bytes",
    "signatures": lambda entry: f"the signatures {listed(entry['names'], _PLAIN_ON_A_LINE)}",
    "bytes": _bytes,
}
