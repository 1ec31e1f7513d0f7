"""The campaigns of kills and of damage, short, and the pictures of the documents."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from benchmarks import damage_campaign
from tests.conftest import PROJECT

KILLS = 10  # Each kind of run, once with a stop.
MOST_BYTES = 100_000  # of a picture of the documents


def test_killed_runs_end_as_if_they_had_not_been(campaign: Callable[..., str]) -> None:
    said = campaign("kill_campaign", f"--kills={KILLS}", "--steps=60")
    counts = re.findall(r"after a kill(?: and a stop)?: ended as the unbroken run: (\d+)", said)
    assert counts == ["1"] * KILLS
    assert "LOST" not in said


def test_damage_is_found_or_harmless(tmp_path: Path) -> None:
    found = damage_campaign.run_campaign(tmp_path, damages=24, seed=1)
    assert [finding for finding in found if finding.startswith("LOST")] == []
    outcomes = Counter({k: v for k, v in found.items() if ":" in k or "," in k})
    assert sum(outcomes.values()) == 24
    assert outcomes["found, said and stepped over"] >= 6


def test_the_damage_campaign_notices_silent_damage(tmp_path: Path) -> None:
    """A changed line of the metrics, which no checksum covers: the comparison sees it."""
    each = damage_campaign.prepare(tmp_path, damage_campaign.LINEAR)
    metrics = each.stopped / "logs" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes().replace(b'"loss"', b'"lost"', 1))
    found = damage_campaign.go_on(each, each.stopped, "flip state")
    assert found == "LOST: wrong bytes after damage to state"


def test_the_pictures_are_made(campaign: Callable[..., str], tmp_path: Path) -> None:
    campaign("default_runs", "--kills=1", f"--pictures={tmp_path}")
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in PROJECT.glob("docs/pictures/*")}
    for path in [*tmp_path.iterdir(), *PROJECT.glob("docs/pictures/*")]:
        assert path.stat().st_size < MOST_BYTES
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 2  # Something is drawn.
