"""Data sets by their names, through `keras.datasets`, which downloads and caches them."""

import contextlib
import importlib
import os
import sys
from typing import NamedTuple

import numpy as np

from data.errors import DataError
from data.image_arrays import as_labels
from data.source import Array

_DIGITS = tuple("0123456789")


class NamedDataset(NamedTuple):
    """What is known of a data set before it is there."""

    class_names: tuple[str, ...]  # In the order of the labels.
    image_shape: tuple[int, ...]
    files: tuple[str, ...]  # As Keras keeps them, in the folder of its cache.
    address: str  # Where the files come from; an archive is kept under another name.


NAMED = {
    "mnist": NamedDataset(
        _DIGITS,
        (28, 28),
        ("mnist.npz",),
        "storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    ),
    "fashion_mnist": NamedDataset(
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        (28, 28),
        (
            "fashion-mnist/train-images-idx3-ubyte.gz",
            "fashion-mnist/train-labels-idx1-ubyte.gz",
            "fashion-mnist/t10k-images-idx3-ubyte.gz",
            "fashion-mnist/t10k-labels-idx1-ubyte.gz",
        ),
        "storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    "cifar10": NamedDataset(
        (
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        (32, 32, 3),
        ("cifar-10-batches-py-target_archive",),
        "www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
}


_NOT_FETCHED = "URL fetch failure"  # As Keras begins to say so.


class Split(NamedTuple):
    """Images uint8 [N, H, W] or [N, H, W, 3], and their labels int64 [N]."""

    images: Array
    labels: Array


def load_named(name: str) -> tuple[Split, Split]:
    """The training and the test images of a data set of `NAMED`, in memory.

    Keras downloads what is not in its cache, `$KERAS_HOME/datasets` or `~/.keras/datasets`, and
    checks it (of Fashion-MNIST only what is checked here: that it unpacks to images and labels).

    Raises:
      DataError: it cannot be downloaded, or what is in the cache is damaged or something else.
    """
    # Only now: importing Keras takes seconds and makes its folder.
    module = importlib.import_module(f"keras.datasets.{name}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints the progress of downloads.
            splits = module.load_data()
        return _checked(name, *splits[0]), _checked(name, *splits[1])
    except DataError:
        raise
    except Exception as error:  # Keras raises bare `Exception` itself, and what unpacking raises.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"--data={name}: {reason.rstrip('.')}; {_advice(name, reason)}") from error


def _advice(name: str, reason: str = "") -> str:
    """What to put where, or to remove."""
    known = NAMED[name]
    home = os.environ.get("KERAS_HOME", "~/.keras")
    places = [f"{home}/datasets/{file}" for file in known.files]
    offline = f"without a network, put {known.address} there as {', '.join(places)}"
    held = [place for place in places if os.path.exists(os.path.expanduser(place))]
    if not held or reason.startswith(_NOT_FETCHED):
        return offline
    return f"remove {', '.join(held)} to have that downloaded anew, or, {offline}"


def _checked(name: str, images: Array, labels: Array) -> Split:
    expected = NAMED[name].image_shape
    if images.shape[1:] != expected or images.dtype != np.uint8 or len(images) != labels.size:
        raise DataError(
            f"--data={name}: expected images uint8 {['N', *expected]} and N labels, found "
            f"{images.dtype} {list(images.shape)} and {labels.size}; {_advice(name)}"
        )
    checked = as_labels(labels.reshape(-1), f"--data={name}")
    num_classes = len(NAMED[name].class_names)
    if not len(checked) or checked.max() >= num_classes:
        raise DataError(f"--data={name}: expected labels from 0 to {num_classes - 1}")
    return Split(np.ascontiguousarray(images), checked)
