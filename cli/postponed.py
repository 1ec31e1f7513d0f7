"""TensorFlow's protos without TensorFlow, and TensorFlow itself only when something asks for it.

What reads files needs none of TensorFlow but the classes of its protos, and `import tensorflow`
costs fifty times as much as they do. Python finds them by the package's `__path__`, for which
the package need not have run: a bare module of its name stands in. Whatever else is asked of it
loads the true one, which takes its place.

So where TensorFlow is installed there is one class of each message, whichever way it came, and all
of TensorFlow takes it. Where it is not, TensorBoard's copies of the same protos do: no TensorFlow
is there to tell them apart. They lack `SavedModel`, which is described here.
"""

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any, NoReturn

from cli.terminal import import_tensorflow
from errors import NotInstalledError

_NAME = "tensorflow"
_SAVED_MODEL = """
name: "saved_model.proto" package: "tensorboard" syntax: "proto3"
dependency: "tensorboard/compat/proto/meta_graph.proto"
message_type { name: "SavedModel"
field { name: "saved_model_schema_version" number: 1 label: LABEL_OPTIONAL type: TYPE_INT64 }
field { name: "meta_graphs" number: 2 label: LABEL_REPEATED type: TYPE_MESSAGE
type_name: ".tensorboard.MetaGraphDef" } }
"""


class _Package(types.ModuleType):
    """A module of TensorFlow's that has not run; `get` has what its names stand for."""

    def __init__(self, name: str, path: list[str], get: Callable[[str], Any]) -> None:
        super().__init__(name)
        self.__path__ = path
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self._get = get

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # Python's own, such as `__file__`.
            raise AttributeError(name)
        return self._get(name)


def postpone_tensorflow() -> None:
    """Has `import tensorflow` cost nothing until something but a proto is asked of it.

    Call it in place of `import_tensorflow`, before a module that imports TensorFlow. Where that is
    not installed, what asks for more than a proto raises a NotInstalledError.
    """
    if _NAME in sys.modules:
        return
    found = importlib.util.find_spec(_NAME)
    if found is not None:
        path = [*(found.submodule_search_locations or ())]
        sys.modules[_NAME] = _Package(_NAME, path, _loaded)
        return
    board = importlib.util.find_spec("tensorboard")
    places = board.submodule_search_locations if board else None
    protos = [os.path.join(place, "compat", "proto") for place in places or ()]
    for name, path, get in (
        (_NAME, [], _not_installed),
        (f"{_NAME}.core", [], _no_name),
        (f"{_NAME}.core.framework", protos, _no_name),
        (f"{_NAME}.core.protobuf", protos, _no_name),
        (f"{_NAME}.core.protobuf.saved_model_pb2", [], _saved_model),
    ):
        sys.modules[name] = _Package(name, path, get)


def _loaded(name: str) -> Any:
    """A name of TensorFlow, which is loaded and takes its package's place."""
    bare = sys.modules.get(_NAME)
    if isinstance(bare, _Package):
        del sys.modules[_NAME]
        try:
            import_tensorflow()
        except BaseException:
            sys.modules[_NAME] = bare
            raise
        if "core" in vars(bare):  # It was loaded already, so that nobody adds it again.
            vars(sys.modules[_NAME])["core"] = vars(bare)["core"]
    return getattr(sys.modules[_NAME], name)


def _not_installed(name: str) -> NoReturn:
    raise NotInstalledError(
        f"this needs TensorFlow, which is not installed: pip install {_NAME} ({name})"
    )


def _no_name(name: str) -> NoReturn:
    raise AttributeError(name)  # Python then looks for a module of that name.


def _saved_model(_: str) -> Any:
    """The class of `SavedModel`, of TensorBoard's messages."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    importlib.import_module("tensorboard.compat.proto.meta_graph_pb2")
    pool = descriptor_pool.Default()
    pool.Add(text_format.Parse(_SAVED_MODEL, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorboard.SavedModel"))
