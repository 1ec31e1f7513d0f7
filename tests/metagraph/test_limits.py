"""The table of operations, held against the installed TensorFlow, and the limit on time."""

from collections import Counter
from collections.abc import Callable

import pytest
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef, OpList
from tensorflow.python.client import pywrap_tf_session

from metagraph.safety import (
    GRACE_SECONDS,
    OPERATIONS,
    PURE,
    RISKS,
    TimeLimit,
    only_prints,
)

v1 = tf.compat.v1

# Of the tests of TensorFlow itself, which its package carries along: of no use to a model.
OPERATIONS_OF_TENSORFLOW_TESTS = """
    A Attr AttrBool AttrBoolList AttrDefault AttrEmptyListDefault AttrEnum AttrEnumList AttrFloat
    AttrListDefault AttrListMin AttrListTypeDefault AttrMin AttrPartialShape AttrPartialShapeList
    AttrShape AttrShapeList AttrTypeDefault B Binary ComplexStruct ConstructionFails CopyOp
    DefaultAttrs DevicePlacementOp DtypeWithDefaultOp FiveFloatOutputs FloatInput FloatOutput
    FloatOutputStringOutput Foo1 Foo2 Foo3 FuncAttr FuncListAttr GetDeadline GraphDefVersion
    InPolymorphicTwice Int64Output IntAttr IntInput IntInputFloatInput IntInputIntOutput IntOutput
    IntOutputFloatOutput IsResourceHandleRefCounting KernelLabel KernelLabelRequired ListInput
    ListOutput MakeWeakResourceHandle MixedStruct Namespace>TestStringOutput NInPolymorphicTwice
    NIntsIn NIntsOut NIntsOutDefault NInTwice NInTwoTypeVariables None NPolymorphicIn
    NPolymorphicOut NPolymorphicOutDefault NPolymorphicRestrictIn NPolymorphicRestrictOut Old
    OpWithDefaultAttr OpWithFutureDefaultAttr OutT OutTypeList OutTypeListRestrict Polymorphic
    PolymorphicDefaultOut PolymorphicOut RefIn RefInputFloatInput RefInputFloatInputIntOutput
    RefInputIntInput RefOut RefOutput RefOutputFloatOutput RequiresOlderGraphVersion ReservedAttr
    ReservedInput ResourceCreateOp ResourceInitializedOp ResourceUsingOp Restrict Simple
    SimpleStruct SleepIdentityOp SleepOp StringListAttr StubResourceHandleOp TestAttr
    TestStringOutput TwoFloatInputs TwoFloatInputsFloatOutput TwoFloatInputsIntOutput
    TwoFloatOutputs TwoIntInputs TwoIntOutputs TwoRefsIn TypeList TypeListRestrict TypeListTwice
    Unary
"""


def _registered() -> dict[str, OpDef]:
    buffer = pywrap_tf_session.TF_GetAllOpList()
    op_list = OpList.FromString(bytes(pywrap_tf_session.TF_GetBuffer(buffer)))
    return {op.name: op for op in op_list.op}


def _public() -> set[str]:
    return {name for name in dir(tf.raw_ops) if not name.startswith("_")}


def test_every_operation_that_a_file_can_hold_is_classified_once() -> None:
    """One that a release brings has to be looked at; one that it drops leaves the lists.

    What starts with `_` is made by TensorFlow as it runs; most of it is refused as unknown.
    """
    in_files = {name for name in _registered() if not name.startswith("_")}
    public = {name for name in dir(tf.raw_ops) if not name.startswith("_")}
    of_tests = set(OPERATIONS_OF_TENSORFLOW_TESTS.split())
    assert sorted(public - PURE - RISKS.keys()) == []
    assert sorted(in_files - PURE - RISKS.keys() - of_tests) == []
    assert sorted((PURE | RISKS.keys()) - _registered().keys()) == []
    counts = Counter(name for operations in OPERATIONS.values() for name in operations)
    assert [name for name, count in counts.items() if count > 1] == []
    assert counts.keys() == PURE | RISKS.keys()


def test_what_prints_to_a_stream_by_default() -> None:
    (stream,) = [attr for attr in _registered()["PrintV2"].attr if attr.name == "output_stream"]
    assert stream.default_value.s == b"stderr"
    assert "PrintV2" in RISKS
    assert only_prints(NodeDef(op="PrintV2"))
    assert not only_prints(NodeDef(op="WriteFile"))


# What is said of a run without an end; the limit itself is tested on whole predictions.


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, 0), (0.0001, 1), (0.25, 250), (60.0, 60_000), (1e300, 0)],
)
def test_milliseconds(seconds: float, expected: int) -> None:
    assert TimeLimit(seconds).milliseconds == expected


def _calls(seconds: float) -> list[tuple[float, str]]:
    """What ends the process is told when something takes its time."""
    calls: list[tuple[float, str]] = []
    limit = TimeLimit(seconds, lambda after, line: calls.append((after, line)))
    with limit.over("the import"):
        calls.append((-1, "works"))
    return calls


def test_what_does_not_stop_in_time_ends_the_process() -> None:
    begun, work, stopped = _calls(2.5)
    assert (begun[0], work[0], stopped[0]) == (2.5 + GRACE_SECONDS, -1, 0)
    assert begun[1] == (
        "the import took longer than --time_limit=2.5 seconds, and does not end: give it more (0 "
        "is no limit)"
    )


def test_an_error_stops_the_clock() -> None:
    calls: list[float] = []
    limit = TimeLimit(1, lambda after, _: calls.append(after))
    with pytest.raises(ZeroDivisionError), limit.over("the import"):
        raise ZeroDivisionError
    assert calls[-1] == 0


@pytest.mark.parametrize("seconds", [0, 1e300])
def test_without_a_limit_nothing_is_ended(seconds: float) -> None:
    assert _calls(seconds) == [(-1, "works")]


def _reading() -> None:
    v1.WholeFileReader().read(v1.FIFOQueue(1, [tf.string], [[]]), name="read")


def _dequeuing() -> None:
    v1.FIFOQueue(1, [tf.int32, tf.int32], [[], []]).dequeue(name="q")


def _computing() -> None:
    tf.constant(1)


def _enqueuing() -> None:
    queue = v1.FIFOQueue(1, [tf.int32], [[]])
    for _ in range(9):
        queue.enqueue(1)


@pytest.mark.parametrize(
    ("build", "end"),
    [
        (_reading, "it waits for read (ReaderReadV2), which nobody fills; feed read:0, read:1"),
        (_dequeuing, "it waits for q (QueueDequeueV2), which nobody fills; feed q:0, q:1"),
        (_enqueuing, "and 6 more, which nobody fills; feed what comes after it"),
        (_computing, "give it more (0 is no limit), or fewer rows a run with --batch_size"),
    ],
)
def test_what_waits_is_named_with_what_to_feed(build: Callable[[], object], end: str) -> None:
    with tf.Graph().as_default() as graph:
        build()
    line = TimeLimit(1.5).overrun("one run", graph)
    assert line.startswith("one run took longer than --time_limit=1.5 seconds: ")
    assert line.removesuffix(" in its place").endswith(end)
