"""The order of a folder's checkpoints, and which is the newest of them."""

from collections.abc import Iterable

import tensorflow as tf

from checkpoints import naming
from tools.common.folder_entries import EMPTY_NAME, Entry, stem_and_step


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Checkpoints by age, the newest last: ours after all others.

    The steps of one run are an order. Others have none but when they were written.
    """
    found = list(entries)
    others = [(*stem_and_step(entry.name), entry) for entry in found if entry.step is None]
    if len({stem for stem, _, _ in others}) == 1 and all(step is not None for _, step, _ in others):
        others.sort(key=lambda other: other[1] or 0)
    else:
        others.sort(key=lambda other: (_written(other[2]), other[2].name))
    ours = sorted((e for e in found if e.step is not None), key=lambda entry: entry.step or 0)
    return [*(entry for _, _, entry in others), *ours]


def newest_of(entries: Iterable[Entry], named: str | None) -> Entry | None:
    """The newest of some checkpoints; None where there is none.

    Args:
      entries: the checkpoints.
      named: what the state file calls the newest, which decides where several runs that are not
        ours share a folder; None where it names none.
    """
    ordered = in_order(entries)
    newest = ordered[-1] if ordered else None
    if newest and newest.step is None and len({stem_and_step(e.name)[0] for e in ordered}) > 1:
        return next((e for e in ordered if e.state_name == (named or EMPTY_NAME)), newest)
    return newest


def _written(entry: Entry) -> float:
    """When a checkpoint was written, in seconds since 1970: its index last of all its values."""
    for suffix in (naming.INDEX_SUFFIX, "", naming.META_SUFFIX):
        try:
            return float(tf.io.gfile.stat(entry.prefix + suffix).mtime_nsec / 1e9)
        except tf.errors.OpError:
            continue
    return 0.0
