"""What to do with a file that --input does not take, for its error line."""

import difflib
from collections.abc import Iterable, Mapping

from checkpoints.file_kinds import HEAD_BYTES, kind_of
from data.files import open_binary

_TAKEN = (
    "--input takes .npy, .npz, .csv, PNG and JPEG images, a folder of those, IDX files, and for a "
    "tensor of strings .txt and .tfrecord"
)


def _advised(advice: str, *suffixes: str) -> Mapping[str, str]:
    return dict.fromkeys(suffixes, advice)


_ADVICE: Mapping[str, str] = {
    **_advised("convert it to .png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".heic", ".ppm"),
    **_advised(
        "pickles are code, and never opened: save the array with np.save, as .npy",
        *(".pkl", ".pickle", ".joblib", ".pt", ".pth"),
    ),
    **_advised(
        "save one array of it as .npy: np.save('x.npy', scipy.io.loadmat(file)[name])", ".mat"
    ),
    **_advised("save one array of it with np.save, as .npy", ".h5", ".hdf5", ".nc", ".bin", ".raw"),
    **_advised(
        "write its numbers as .csv, a row a line and without a header, or as .npy",
        *(".parquet", ".feather", ".arrow", ".tsv", ".dat", ".xls", ".xlsx", ".json", ".jsonl"),
    ),
    **_advised(
        "it is packed: unpack it first", ".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz"
    ),
}


def is_image(path: str) -> bool:
    """Whether a file starts as a PNG or JPEG image, whatever its name.

    Raises:
      DataError: it cannot be read.
    """
    return _kind(path) == "an image"


def why_not_taken(path: str, suffix: str, taken: Iterable[str]) -> str:
    """The error line for a file of rows of another kind than those that are read.

    Args:
      path: the file.
      suffix: of its name, in lower case.
      taken: the suffixes that are read.

    Raises:
      DataError: it cannot be read.
    """
    kind, near = _kind(path), difflib.get_close_matches(suffix, taken, n=1)
    if suffix in _ADVICE:
        advice = _ADVICE[suffix]
    elif kind is not None:
        advice = f"it is {kind}"
    else:
        advice = f"should its name end in {near[0]}?" if near else "its kind is told by its suffix"
    named = f"a {suffix} file" if suffix else "a file without a suffix"
    return f"{path}: {named} is not taken: {advice}; {_TAKEN}"


def _kind(path: str) -> str | None:
    with open_binary(path) as stream:
        return kind_of(stream.read(HEAD_BYTES))
