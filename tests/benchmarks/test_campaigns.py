"""The campaigns of kills and of damage, short; the documents have the commands of the long ones."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks import damage_campaign

KILLS = 3  # one of each kind of run


def test_killed_runs_end_as_if_they_had_not_been(campaign: Callable[..., str]) -> None:
    said = campaign("kill_campaign", f"--kills={KILLS}")
    counts = re.findall(r"ended as the unbroken run: (\d+)", said)
    assert sum(map(int, counts)) == KILLS
    assert len(counts) == 3
    assert "LOST" not in said


def test_damage_is_found_or_harmless(tmp_path: Path) -> None:
    found = damage_campaign.run_campaign(tmp_path, damages=24, seed=1)
    assert [finding for finding in found if finding.startswith("LOST")] == []
    outcomes = Counter({k: v for k, v in found.items() if ":" in k or "," in k})
    assert sum(outcomes.values()) == 24
    assert outcomes["found, said and stepped over"] >= 6


def test_the_damage_campaign_notices_silent_damage(tmp_path: Path) -> None:
    """A changed line of the metrics, which no checksum covers: the comparison sees it."""
    each = damage_campaign.prepare(tmp_path, "linear")
    metrics = each.stopped / "logs" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes().replace(b'"loss"', b'"lost"', 1))
    found = damage_campaign.go_on(each, each.stopped, "metrics", lost_manifest=False)
    assert found == "LOST: wrong bytes after damage to state"
