"""The flags that say which images are trained on, and how they are read."""

from absl import flags

from cli import flag_types
from cli.model_flags import define_ignore_exif
from data.options import DEFAULT_MEMORY_MB, RAMP, SKIP, STOP


def define_data_flags(values: flags.FlagValues, default: str | None) -> None:
    """Defines them in `values`; `default` is that of --data, None where it has to be given."""
    flag_types.define_path(
        "data",
        default,
        f"Images to train on: '{RAMP}'; 'cifar10', 'mnist' or 'fashion_mnist', downloaded once; an "
        ".npz with X [N,32,32,3] and Y [N]; an .npy of any size, images.npy, with the labels in "
        "images.labels.npy; or a folder with one subfolder a class, or with train/ and test/ of "
        "that kind.",
        values,
    )
    if default is None:
        flags.mark_flag_as_required("data", flag_values=values)
    _define_split_flags(values)
    _define_reading_flags(values)


def _define_split_flags(values: flags.FlagValues) -> None:
    """Which of the images are taken, and what for."""
    flags.DEFINE_list(
        "classes",
        [],
        "Classes to train on, such as airplane,ship: in the order of their labels, by name, or by "
        "number where they have no names. All by default.",
        flag_values=values,
    )
    flag_types.define_non_negative_float(
        "validation_fraction",
        0.0,
        "Share of the images held out as the test split, where --data has no test/.",
        values,
        below=1.0,
    )


def _define_reading_flags(values: flags.FlagValues) -> None:
    """How images on disk are read."""
    flags.DEFINE_integer(
        "data_memory_mb",
        DEFAULT_MEMORY_MB,
        "Images of a folder or an .npy that take no more, decoded, are read into memory at the "
        "start; more of them are read as they are needed. It changes no numbers.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "on_bad_image",
        STOP,
        [STOP, SKIP],
        "What an image of a folder or an .npy that cannot be read does: stop the run, or be "
        "skipped, with the next one of the epoch in its place.",
        flag_values=values,
    )
    define_ignore_exif(values)
