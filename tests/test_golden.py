"""What runs are made of stays as it was, unless a change is meant: see CONTRIBUTING.md.

    GOLDEN=write python -m pytest tests/test_golden.py

writes tests/golden.json anew. The bytes of a run depend on the processor, so they are not in it:
what is compared exactly are the graphs and the batches, and the numbers of the log to four digits.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

import train_cnn
import train_linear
from cli.fields import parse
from tests import runs

GOLDEN = Path(__file__).with_name("golden.json")


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()


RUNS = {
    "linear": (train_linear, train_linear.LinearConfig, "--train_steps=40"),
    "cnn": (
        train_cnn,
        train_cnn.CnnConfig,
        "--train_steps=20 --log_every_steps=5 --schedule=cosine --warmup_steps=4 --augment",
    ),
}


def _told(name: str, folder: Path) -> dict[str, Any]:
    """What a run is made of, and what it logs."""
    trainer, request, flags = RUNS[name]
    config: Any = parse(request, [name, f"--ckpt_dir={folder}", *flags.split()])
    task = trainer.make_task(config)
    batches = [array.tobytes() for batch in task.batches(0, 20) for array in batch]
    trainer.train(config)
    return {
        "meta graph": _digest(task.meta_graph),
        "first 20 batches": _digest(*batches),
        "identity": dict(task.identity),
        "log": runs.lines(config.run),
    }


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_made_of_what_it_was(name: str, tmp_path: Path) -> None:
    found = json.loads(json.dumps(_told(name, tmp_path / name)))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("GOLDEN") == "write":
        golden[name] = found
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    expected = dict(golden[name])
    logged, expected_log = found.pop("log"), expected.pop("log")
    assert found == expected
    assert len(logged) == len(expected_log)
    for line, expected_line in zip(logged, expected_log, strict=True):
        assert line.keys() == expected_line.keys()
        for key, value in line.items():  # Another processor may take an image for another class.
            room = 0.02 if "accuracy" in key else 0
            assert value == pytest.approx(expected_line[key], rel=1e-3, abs=room), key
