"""Read DeepLabCut's H5 as the rows of the CSV beside it, without pandas, which would run pickles.

pandas writes a table of format "fixed" as plain arrays: the names of each level of the header and
of the images, a code for each column or row, and the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fkp.errors import FkpError, one_line

# Numbers and names of an array, at most: compressed, they may be far more than the file's bytes.
MOST = 1 << 27


def h5_rows(file: Path) -> Iterator[list[str]]:
    """Yield the rows of the CSV that DeepLabCut writes of the same table.

    Raises:
        FkpError: h5py is missing, or the file is damaged, or of pandas' format "table".
    """
    try:
        import h5py
    except ImportError:
        what = f"{file}: H5 is read by h5py; pip install 'fkp[labels]', or read the CSV beside it"
        raise FkpError(what, file=file, hint="pip install 'fkp[labels]'") from None
    try:
        with h5py.File(file) as opened:
            (name,) = opened
            header, images, numbers = _table(opened[name])
    except FkpError:
        raise
    except Exception as error:
        # h5py raises errors of many types for damaged files.
        what = f"{file}: no table of DeepLabCut that can be read without running code"
        raise FkpError(f"{what} ({one_line(error)}); read the CSV beside it", file=file) from None

    blank = [""] * (images.shape[1] - 1)
    for level, names in header.items():
        yield [level, *blank, *names]
    for image, row in zip(images.tolist(), numbers.tolist(), strict=True):
        yield [*image, *("" if value != value else repr(value) for value in row)]


def _table(group: Any) -> tuple[dict[str, list[str]], np.ndarray, np.ndarray]:
    """Return the header, level -> names (m); the parts of the images' names (n, p); numbers (n, m).

    Their columns may be in another order than those of the header.
    """
    header = {}
    for level in range(int(group.attrs["block0_items_nlevels"])):
        names = group[f"block0_items_level{level}"]
        header[_text(names.attrs["name"])] = _decoded(group, "block0_items", level)

    if "axis1_nlevels" in group.attrs:
        parts = [_decoded(group, "axis1", k) for k in range(int(group.attrs["axis1_nlevels"]))]
    else:
        parts = [list(map(_text, _array(group, "axis1")))]
    return header, np.array(parts, object).T, _array(group, "block0_values").astype(float)


def _decoded(group: Any, axis: str, level: int) -> list[str]:
    """Return the names of one level of an axis."""
    names = [_text(name) for name in _array(group, f"{axis}_level{level}")]
    return [names[code] for code in _array(group, f"{axis}_label{level}").tolist()]


def _array(group: Any, name: str) -> np.ndarray:
    """Read an array of the file itself, not of another one that it names."""
    import h5py

    link, array = group.get(name, getlink=True), group[name]
    if not isinstance(link, h5py.HardLink) or array.external or array.is_virtual:
        raise ValueError(f"{name} lies in another file")
    if array.size > MOST or array.dtype.kind == "O":
        raise ValueError(f"{name} is no plain array")
    return array[()]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
