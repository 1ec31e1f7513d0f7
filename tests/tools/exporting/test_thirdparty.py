"""Real checkpoints of public projects, in each format; each is compared there with its session.

They are at ../shared/thirdparty; its index.json names inputs and an output of each.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from errors import ToolError
from tools.export import FORMATS, SUFFIXES, ExportConfig, Shape
from tools.exporting import export

THIRD_PARTY = Path(__file__).resolve().parents[4] / "shared" / "thirdparty"

# Placeholders of unknown rank, and the shapes that the projects feed them.
SHAPES: Mapping[str, Mapping[str, Shape]] = {
    "regression/checkpoint/model.meta": {"X": (None,)},
    "bad_half_plus_two/00000123/export.meta": {"Placeholder": (None, 1)},
}


def _entries() -> list[dict[str, Any]]:
    """The index, or one empty entry where the folder is not there."""
    index = THIRD_PARTY / "index.json"
    entries: list[dict[str, Any]] = json.loads(index.read_text()) if index.exists() else [{}]
    return entries


@pytest.mark.parametrize("entry", _entries(), ids=lambda entry: entry.get("kind", "absent"))
def test_every_format_computes_what_the_session_does(entry: dict[str, Any], tmp_path: Path) -> None:
    if not entry:
        pytest.skip("needs the checkpoints of public projects at ../shared/thirdparty")
    shapes = next((s for name, s in SHAPES.items() if entry["meta"].endswith(name)), {})
    for to in FORMATS:
        config = ExportConfig(
            str(THIRD_PARTY / entry["meta"]),
            f"{tmp_path}/m{SUFFIXES.get(to, '')}",
            to=to,
            outputs=(entry["suggested_output"],),
            inputs=tuple(tensor["name"] for tensor in entry["inputs"] if not shapes),
            shapes=shapes,
        )
        if shapes and to != "saved_model":
            with pytest.raises(ToolError, match="may have any shape"):
                export(ExportConfig(config.meta, config.output, to=to, outputs=config.outputs))
        record = export(config)
        assert record["largest_difference"] <= 1e-5
        (output,) = record["signatures"]["serving_default"]["outputs"].values()
        assert output["name"] == entry["suggested_output"]
