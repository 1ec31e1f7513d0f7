"""A new head on a trained network against the whole network from scratch, on few images a class.

  python -m benchmarks.finetuning --images=../shared/data/cifar4.tar.gz

The reference CNN is trained on two of four classes, for each choice of two. On 50 images of each of
the other two it is then fine-tuned, and, side by side, the same CNN is trained from scratch, for as
many steps of as many images. Both are tested on all test images of these classes. Each seed draws
other images. Exits 1 unless each way to fine-tune beats the CNN from scratch in the median of all
runs.
"""

import itertools
import logging
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks.measuring import CLASSES, few, run_config, test_accuracy, unpacked
from cli.run import run
from cli.terminal import import_tensorflow

BASE_EPOCHS = 20.0
BASE_BATCH = 128
BATCH = 32
SCRATCH = "the CNN from scratch"


class Way(NamedTuple):
    """One way to fine-tune.

    Attributes:
      name: as it is printed.
      changes: of the config, by field.
    """

    name: str
    changes: dict[str, Any]


WAYS = (
    Way("a head on conv2's maps, all else frozen", {"tensor": "conv2/MaxPool2d"}),
    Way(
        "a head on fc1, all trained on",
        {"tensor": "fc1/add", "train_scopes": ("conv1", "conv2", "fc1")},
    ),
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    flags.DEFINE_string(
        "images",
        "../shared/data/cifar4.tar.gz",
        "A .tar.gz with train/ and test/, each with a folder for each of the four classes.",
        flag_values=values,
    )
    flags.DEFINE_integer("seeds", 5, "Runs of each kind.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "per_class", 50, "Images of each class to fine-tune on.", lower_bound=2, flag_values=values
    )
    flags.DEFINE_integer("steps", 300, "Steps of each run.", lower_bound=1, flag_values=values)


def main(values: flags.FlagValues) -> int:
    """Trains all, and prints the medians of the test accuracies."""
    import_tensorflow()
    logging.getLogger("absl").setLevel(logging.ERROR)
    differences: dict[str, list[float]] = {way.name: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = unpacked(values.images, folder)
        for known in itertools.combinations(CLASSES, 2):
            others = tuple(name for name in CLASSES if name not in known)
            base = _train_base(images, folder / "-".join(known), known)
            results = [
                _compare(few(images, others, folder, values.per_class, seed), base, seed, values)
                for seed in range(values.seeds)
            ]
            _print(known, others, results)
            for way, found in differences.items():
                found += [result[way] - result[SCRATCH] for result in results]
    print(f"better than {SCRATCH} by, in the median of all {len(results) * 6} runs:")
    medians = {name: statistics.median(found) for name, found in differences.items()}
    for name, median in medians.items():
        wins = sum(difference > 0 for difference in differences[name])
        print(f"  {name:42} {median:+.4f}  (better in {wins})")
    return 0 if min(medians.values()) > 0 else 1


def _print(
    known: tuple[str, ...], others: tuple[str, ...], results: list[dict[str, float]]
) -> None:
    """The median and the range of the test accuracies over the seeds."""
    print(f"from {' and '.join(known)} to {' and '.join(others)}:")
    for name in results[0]:
        found = [result[name] for result in results]
        print(f"  {name:42} {statistics.median(found):.4f}  ({min(found):.4f} to {max(found):.4f})")


def _train_base(images: Path, folder: Path, classes: tuple[str, ...]) -> str:
    """The folder of the CNN trained on these classes."""
    from train_cnn import CnnConfig, train

    config = CnnConfig(
        run=run_config(folder, 0),
        data=str(images),
        validation_fraction=0.0,
        train_steps=None,
        epochs=BASE_EPOCHS,
        batch_size=BASE_BATCH,
        learning_rate=1e-3,
        classes=classes,
        augment=True,
    )
    train(config)
    return str(folder)


def _compare(data: Path, base: str, seed: int, values: flags.FlagValues) -> dict[str, float]:
    """The test accuracy from scratch, and of each way to fine-tune."""
    from finetune import train as finetune
    from finetuning.settings import FinetuneConfig
    from train_cnn import CnnConfig
    from train_cnn import train as train_cnn

    found = {}
    config = CnnConfig(
        run=run_config(data.with_name(f"{data.name}-scratch"), seed),
        data=str(data),
        validation_fraction=0.0,
        train_steps=values.steps,
        epochs=None,
        batch_size=BATCH,
        learning_rate=1e-3,
    )
    train_cnn(config)
    found[SCRATCH] = test_accuracy(data.with_name(f"{data.name}-scratch"))
    for number, way in enumerate(WAYS):
        folder = data.with_name(f"{data.name}-tuned{number}")
        tuned = FinetuneConfig(
            run=run_config(folder, seed),
            meta=base,
            data=str(data),
            train_steps=values.steps,
            batch_size=BATCH,
            **way.changes,
        )
        finetune(tuned)
        found[way.name] = test_accuracy(folder)
    return found


if __name__ == "__main__":
    run(main, define_flags, __doc__)
