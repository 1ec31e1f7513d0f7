"""The command that makes the documents' pictures still makes them, and small ones."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]
MOST_BYTES = 100_000


def test_the_pictures_are_made(campaign: Callable[..., str], tmp_path: Path) -> None:
    campaign("pictures", "--kills=2", f"--output={tmp_path}")
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in PROJECT.glob("docs/pictures/*")}
    for path in [*tmp_path.iterdir(), *PROJECT.glob("docs/pictures/*")]:
        assert path.stat().st_size < MOST_BYTES
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 2  # Something is drawn.
