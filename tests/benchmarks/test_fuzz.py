"""The fuzz campaign, short; the README has the command of the long one."""

import faulthandler
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import tensorflow as tf

from benchmarks import fuzz_campaign

MUTATIONS = 100


def test_mutated_meta_graphs_are_predicted_with_or_refused_in_a_line(
    campaign: Callable[..., str],
) -> None:
    said = campaign("fuzz_campaign", f"--mutations={MUTATIONS}", "--first=20000")
    counts = {k: int(v) for k, v in re.findall(r"^  (.*): (\d+)$", said, re.MULTILINE)}
    assert sum(counts.values()) == MUTATIONS
    assert min(counts["listed, predicted"], counts["not listed, not predicted"]) > MUTATIONS // 5


def test_a_seed_makes_the_same_mutation_again() -> None:
    from benchmarks.graph_mutations import mutate
    from models import linear

    with linear.build(learning_rate=0.5, seed=0).graph.as_default():
        content = tf.compat.v1.train.export_meta_graph().SerializeToString()
    first, again = (
        [mutate(content, Random(f"0/{number}"), "/victim") for number in range(50)]
        for _ in range(2)
    )
    assert first == again
    assert sum(mutated != content for mutated in first) > 40


def _misbehave(number: int) -> str:
    """Well on even numbers."""
    if number == 1:
        faulthandler.disable()  # It would tell of what is meant to be.
        os.abort()
    if number == 3:
        time.sleep(60)
    if number == 5:
        raise KeyError("out of the harness itself")
    if number == 8:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # As outside tests, which have a time limit.
        signal.raise_signal(signal.SIGALRM)
    return "DEFECT exception: KeyError" if number == 7 else "done"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Its child needs no threads.
def test_defects_are_noticed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_campaign, "HANG_SECONDS", 5.0)
    found, number = Counter[str](), 0
    while number < 9:
        number = fuzz_campaign.run_batch(tmp_path, range(number, 9), _misbehave, found)
    assert {":".join(outcome.split(":")[:2]): times for outcome, times in found.items()} == {
        "done": 4,
        "ended by the time limit": 1,
        "mutation 1: DEFECT crash, exit code -6": 1,
        "mutation 3: DEFECT hang": 1,
        "mutation 5: DEFECT crash, exit code 1": 1,
        "mutation 7: DEFECT exception": 1,
    }


def test_a_file_that_is_touched_is_noticed(tmp_path: Path) -> None:
    inside = [tmp_path / name for name in ("work", "cwd")]
    for folder in inside:
        folder.mkdir()
    before = fuzz_campaign.snapshot(tmp_path)
    assert fuzz_campaign.snapshot(tmp_path) == before
    for folder in (*inside, tmp_path):
        (folder / "victim").write_text("owned")
        assert fuzz_campaign.snapshot(tmp_path) != before
        (folder / "victim").unlink()
