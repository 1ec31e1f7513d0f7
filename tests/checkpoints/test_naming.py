"""File names of checkpoints."""

import pytest

from checkpoints import naming


def test_prefix_and_name() -> None:
    assert naming.checkpoint_prefix("model1", 190) == "model1/my-model-190"


@pytest.mark.parametrize("suffix", [*naming.CONTENT_SUFFIXES, naming.MANIFEST_SUFFIX])
def test_split_is_the_inverse(suffix: str) -> None:
    assert naming.split_name(naming.checkpoint_name(7) + suffix) == (7, suffix)


@pytest.mark.parametrize(
    "name", ["checkpoint", "my-model-.index", "my-model-7", "other-7.index", "xmy-model-7.index"]
)
def test_other_files_have_no_step(name: str) -> None:
    assert naming.split_name(name) is None
