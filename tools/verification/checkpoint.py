"""One checkpoint, looked at as a whole: its manifest, its values, its graph."""

import os

from checkpoints import manifest, naming
from checkpoints.errors import CheckpointError, first_few
from tools.common.folder_entries import Entry
from tools.verification.findings import Findings, Verdict
from tools.verification.graph import GraphChecks
from tools.verification.values import Values, read_all

NO_MANIFEST = "no manifest, as this project writes it: only TensorFlow's own checksums tell"
_MAX_NAMED = 4


def verify_entry(entry: Entry, graphs: GraphChecks) -> Verdict:
    """Reads all there is of a checkpoint; whatever is wrong is in what is returned."""
    found = _of_manifest(entry)
    values = _of_values(entry, found)
    if entry.graph is not None or not entry.committed:  # Else the manifest says what is missing.
        found.add(graphs.check(entry))
    found.problems = list(dict.fromkeys(found.problems))
    return Verdict(entry, found, values and values.tensors, values and values.value_bytes)


def _of_manifest(entry: Entry) -> Findings:
    """Compares each file with what the manifest says, where there is one."""
    if entry.step is None or not entry.committed:
        return Findings(remarks=[NO_MANIFEST])
    path = os.path.dirname(entry.prefix)
    problems = []
    try:
        found = manifest.read(path, entry.step)
    except CheckpointError as error:
        return Findings([str(error)])
    if found is None:
        return Findings(["its manifest was taken away"])
    for suffix in naming.CONTENT_SUFFIXES:
        try:
            manifest.verify_files(path, found, [suffix])
        except CheckpointError as error:
            problems.append(str(error))
    return Findings(problems)


def _of_values(entry: Entry, found: Findings) -> Values | None:
    """Reads the values and adds to `found` what is wrong with them."""
    if not entry.has_values and entry.graph is not None:
        return None  # A graph may have no variables; if it has, they are found missing.
    try:
        values = read_all(entry.prefix)
    except CheckpointError as error:
        found.problems.append(str(error))
        return None
    found.problems += values.problems
    if values.unread:
        found.remarks.append(f"not read, as no reader can: {first_few(values.unread, _MAX_NAMED)}")
    if entry.step is not None and values.step not in (None, entry.step):
        line = f"it is of step {values.step}, whatever its name says"
        (found.problems if entry.committed else found.remarks).append(line)
    return values
