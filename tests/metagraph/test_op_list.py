"""The lists of operations, held against the operations of the TensorFlow that is installed."""

from collections import Counter

import tensorflow as tf
from tensorflow.core.framework.op_def_pb2 import OpDef, OpList

# Private: nothing public lists what is registered beyond tf.raw_ops, such as the Xla operations.
from tensorflow.python.client import pywrap_tf_session

from metagraph.safety import HARMLESS_ATTRIBUTE, HARMLESS_IF_EMPTY, OPERATIONS, PURE, RISKS

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


def test_every_public_operation_is_classified() -> None:
    """A release of TensorFlow that brings one has to be looked at."""
    assert sorted(_public() - PURE - RISKS.keys()) == []


def test_every_other_operation_that_a_file_can_hold_is_classified_too() -> None:
    """What starts with `_` is made by TensorFlow as it runs; most of it is refused as unknown."""
    in_files = {name for name in _registered() if not name.startswith("_")}
    of_tests = set(OPERATIONS_OF_TENSORFLOW_TESTS.split())
    assert sorted(in_files - PURE - RISKS.keys() - of_tests) == []


def test_every_classified_operation_exists() -> None:
    """One that a release drops leaves the lists."""
    assert sorted((PURE | RISKS.keys()) - _registered().keys()) == []


def test_no_operation_is_classified_twice() -> None:
    counts = Counter(name for operations in OPERATIONS.values() for name in operations)
    assert [name for name, count in counts.items() if count > 1] == []
    assert counts.keys() == PURE | RISKS.keys()


def test_what_is_harmless_under_a_condition_is_risky_without_it() -> None:
    conditional = [*HARMLESS_ATTRIBUTE, *HARMLESS_IF_EMPTY]
    assert set(conditional) <= RISKS.keys()
    assert len(set(conditional)) == len(conditional)


def test_the_defaults_of_the_attributes_that_decide_are_harmless() -> None:
    """A node without the attribute has its default."""
    operations = _registered()
    for name, (attribute, pattern) in HARMLESS_ATTRIBUTE.items():
        (found,) = [attr for attr in operations[name].attr if attr.name == attribute]
        assert pattern.fullmatch(found.default_value.s)


def test_the_inputs_that_decide_are_the_names_of_files() -> None:
    operations = _registered()
    for name, index in HARMLESS_IF_EMPTY.items():
        assert operations[name].input_arg[index].name == "filename"
