"""The files of --asset, which lookup tables are filled from."""

from collections.abc import Sequence

from prediction.errors import PredictionError


def assets_by_name(texts: Sequence[str]) -> dict[str, str]:
    """Name -> path, of texts `name=path`.

    Raises:
      PredictionError: a name is given twice.
    """
    assets: dict[str, str] = {}
    for name, _, path in (text.partition("=") for text in texts):
        if name in assets:
            raise PredictionError(f"--asset {name} is given twice: {assets[name]}, {path}")
        assets[name] = path
    return assets
