"""Saves checkpoints beside the training: copied values in, a committed checkpoint on disk out.

It also makes the meta graph that goes with them, and the call by which a session gives values.
Format: `tensorflow/core/protobuf/meta_graph.proto`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.config_pb2 import CallableOptions

import file_io
from checkpoints import layout
from checkpoints.bundle import VariableSpec, write_bundle
from checkpoints.folder import Retention, after_save, delete_checkpoint, files_by_step, make_way
from checkpoints.lock import FolderLock
from errors import CheckpointError, FolderLostError, NotFiniteError, reason

Values = Mapping[str, np.ndarray[Any, Any]]
# Saves in a row: a disk that is full for a while is told from one that stays so.
MOST_FAILURES = 3
_MOST_TRIED_BYTES = 64 << 20


class Signed(Protocol):
    """A model's graph, and what its signature `serving_default` names, by argument and result."""

    graph: tf.Graph
    signature_inputs: Mapping[str, tf.Tensor]
    signature_outputs: Mapping[str, tf.Tensor]


def export_meta_graph(
    model: Signed,
    class_names: Sequence[str] = (),
    input_scale: float | None = None,
    trained_on: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> bytes:
    """Adds a stock Saver; returns the MetaGraphDef, of equal graphs the same bytes, on no device.

    It says beside the graph: the names of classes, by label; what an image of uint8 is multiplied
    by for the input; the name of a built-in data set; height, width and channels (1 or 3) of the
    image in a row of numbers of the input.
    """
    graph = model.graph
    with graph.as_default():
        saver = tf.compat.v1.train.Saver()
        meta_graph = tf.compat.v1.train.export_meta_graph(
            graph=graph,
            saver_def=saver.as_saver_def(),
            clear_devices=True,
            strip_default_attrs=True,
        )
        sign = tf.compat.v1.saved_model.predict_signature_def  # As TensorFlow Serving reads it.
        signature = sign(model.signature_inputs, model.signature_outputs)
    meta_graph.signature_def[layout.SIGNATURE].CopyFrom(signature)
    for name, kind, values in (
        (layout.CLASS_NAMES_COLLECTION, "bytes_list", [*map(str.encode, class_names)]),
        (layout.INPUT_SCALE_COLLECTION, "float_list", [] if input_scale is None else [input_scale]),
        (layout.IMAGE_SHAPE_COLLECTION, "int64_list", image_shape),
        (layout.TRAINED_ON_COLLECTION, "bytes_list", [trained_on.encode()] if trained_on else []),
    ):
        if values:
            getattr(meta_graph.collection_def[name], kind).value.extend(values)
    content: bytes = meta_graph.SerializeToString(deterministic=True)
    return content


class RunRecord(NamedTuple):
    """What every checkpoint of a run has in common; JSON values go into each manifest."""

    meta_graph: bytes  # The serialized MetaGraphDef, the same for every step.
    config: Mapping[str, Any]  # The run's identity: what its result follows from.
    environment: Mapping[str, Any]  # What the last bits depend on: versions, threads, processor.
    # What must be on the disk before a checkpoint is committed: the metrics.
    side_files: Sequence[str] = ()


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread of its own.

    A save that fails, such as on a full disk, is logged and leaves the checkpoints before it as
    they were; the next save tries again. The third failure in a row is raised, or that of the last
    save. Values that are not finite are not saved, and nothing is written into a folder that is no
    longer ours.
    """

    def __init__(
        self,
        folder: str,
        specs: Mapping[str, VariableSpec],
        record: RunRecord,
        retention: Retention,
        lock: FolderLock,
        previous: layout.Previous | None = None,
    ) -> None:
        """Takes the lock that is held, and what the first manifest is to follow."""
        self._folder = folder
        self._previous = previous
        self._lock = lock
        self._failures = 0
        self._record = record
        self._retention = retention
        self._meta_digest = layout.digest(record.meta_graph)
        # Kept from save to save: fresh memory for each would cost more than the copying.
        self._values = {n: np.empty(spec.shape, spec.dtype) for n, spec in specs.items()}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def check_space(self) -> None:
        """Writes what a checkpoint takes, or 64 MiB of it, and deletes it; else CheckpointError."""
        size = len(self._record.meta_graph) + sum(v.nbytes for v in self._values.values())
        state = os.path.join(self._folder, layout.STATE_FILE)
        tried = bytes(min(size, _MOST_TRIED_BYTES))
        try:
            try:
                file_io.write_file(state + file_io.TEMPORARY_SUFFIX, tried)
            finally:
                file_io.remove_leftover(state)
        except OSError as error:
            raise CheckpointError(
                f"{self._folder} takes no checkpoint, which needs {size:,} bytes: {reason(error)}"
            ) from error

    def save(self, step: int, values: Values, test_accuracy: float | None = None) -> None:
        """Copies the values of all variables and returns while they are being written.

        The save before it is waited for. CheckpointError where its values were not finite, its
        folder is lost, or it is the third in a row that failed; another failure is logged.
        """
        try:
            self._finish_pending()
            self._failures = 0
        except (NotFiniteError, FolderLostError):
            raise
        except CheckpointError as error:
            self._failures += 1
            if self._failures == MOST_FAILURES:
                raise CheckpointError(
                    f"{error}; the {MOST_FAILURES - 1} saves before it failed as well: what was "
                    "saved before them is whole, and the same command goes on from there"
                ) from error
            logging.warning("%s; training goes on", error)
        for name, copy in self._values.items():
            np.copyto(copy, values[name])
        self._pending = self._thread.submit(self._commit, step, test_accuracy)

    def _finish_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Finishes the save under way and ends the thread; CheckpointError where it failed."""
        try:
            self._finish_pending()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Closes; an error on its way is not replaced by one of the last save."""
        try:
            self.close()
        except CheckpointError:
            if kind is None:
                raise

    def _commit(self, step: int, test_accuracy: float | None) -> None:
        """Writes, flushes and commits one checkpoint, then lets the oldest go."""
        for name, value in self._values.items():
            if not np.isfinite(value).all():
                raise NotFiniteError(
                    f"{name} is not finite after step {step}: the checkpoints before it are kept; "
                    "try a lower --learning_rate"
                )
        prefix = layout.checkpoint_prefix(self._folder, step)
        self._lock.check()
        try:
            self._write(step, test_accuracy)
        except OSError as error:
            self._lock.check()
            self._discard(step)
            raise CheckpointError(f"could not save {prefix}: {reason(error)}") from error
        self._lock.check()
        try:
            after_save(self._folder, step, self._retention)
        except OSError as error:
            line = "%s is saved, but the state file or older checkpoints stay as they are: %s"
            logging.warning(line, prefix, reason(error))

    def _discard(self, step: int) -> None:
        """Frees the space of a save that failed, as far as the file system lets us."""
        try:
            if layout.is_leftover(files_by_step(self._folder).get(step, set())):
                delete_checkpoint(self._folder, step)
        except (OSError, CheckpointError) as error:
            logging.warning(
                "leftovers of step %d stay until the next start: %s", step, reason(error)
            )

    def _write(self, step: int, test_accuracy: float | None) -> None:
        """Puts a step's files on the disk; its manifest, which commits them, last."""
        prefix = layout.checkpoint_prefix(self._folder, step)
        pending = prefix + layout.PENDING_SUFFIX
        for path in make_way(self._folder, step):
            logging.warning("%s was in the way of a save, and is not ours: it stays", path)
        file_io.write_file(pending, b"")  # Whatever is written from here on is a leftover,
        file_io.flush(self._folder)  # until the manifest is complete and renamed.
        write_bundle(prefix, self._values)
        file_io.write_file(prefix + layout.META_SUFFIX, self._record.meta_graph)
        name = layout.checkpoint_name(step)
        digests = {name + layout.META_SUFFIX: self._meta_digest}
        for suffix in (layout.DATA_SUFFIX, layout.INDEX_SUFFIX):
            file_io.flush(prefix + suffix)
            digests[name + suffix] = layout.digest_file(prefix + suffix)
        for path in self._record.side_files:
            file_io.flush(path)
        told = layout.Manifest(
            step=step,
            saved_at=time.time(),
            environment=self._record.environment,
            config=self._record.config,
            files=digests,
            test_accuracy=test_accuracy,
            previous=self._previous,
        )
        content = layout.encode_manifest(told)
        file_io.write_file(pending, content)
        file_io.flush(self._folder)
        self._lock.check()
        file_io.rename(pending, prefix + layout.MANIFEST_SUFFIX)
        self._previous = layout.Previous(step, layout.digest(content).sha256)
        file_io.flush(self._folder)


# A step of a session, which a training loop and a prediction run many times.

FedCallable: TypeAlias = Callable[..., list[np.ndarray[Any, Any]]]


def make_fed_callable(
    session: tf.compat.v1.Session,
    feeds: Sequence[tf.Tensor],
    fetches: Sequence[tf.Tensor],
    targets: Sequence[tf.Operation] = (),
    timeout_ms: int = 0,
) -> FedCallable:
    """Prepares a call that feeds and fetches the same tensors every time, and runs the `targets`.

    A call takes an array for each of `feeds`, of its very dtype. A ref variable is fetched as its
    own memory, which later runs write to: copy it to keep it. After `timeout_ms` (0 for never) a
    call raises tf.errors.DeadlineExceededError, once the kernel that runs is done; queues and loops
    are broken off.
    """
    # The public `Session.make_callable` hands a call with a feed to `Session.run`, which works out
    # feeds and fetches anew: 144 microseconds a step of the linear model, against 19 in this way.
    # The private method is called here alone; a test notices when it goes.
    options = CallableOptions(
        feed=[tensor.name for tensor in feeds],
        fetch=[tensor.name for tensor in fetches],
        target=[operation.name for operation in targets],
    )
    options.run_options.timeout_in_ms = timeout_ms
    make: Callable[..., FedCallable] = session._make_callable_from_options  # noqa: SLF001
    return make(options)
