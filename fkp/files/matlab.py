"""Read arrays from MATLAB files of unknown origin: version 5 by scipy, and 7.3 (HDF5) by h5py."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fkp.errors import FkpError, one_line
from fkp.files.reading import read_bytes, read_start

# Bytes of a file of version 5, and of the arrays in it once they are decompressed, at most.
BYTES, UNPACKED = 1 << 20, 1 << 24
# Bytes of a file of version 7.3, and of one array in it, at most.
HDF5_BYTES, ARRAY_BYTES = 1 << 34, 1 << 30
# The header of a file of version 5, and where it says the order of bytes; a compressed array.
HEADER, ORDER, COMPRESSED = 128, slice(126, 128), 15
SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Classes of arrays of numbers. Others (cells, structures, objects) are not read: they nest.
NUMBERS = {"double", "single"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32)}


def read_mat(path: Path, names: Sequence[str], most: int = BYTES) -> dict[str, np.ndarray]:
    """Read arrays of numbers from a MATLAB file of version 5.

    Args:
        path: the file.
        names: of the arrays.
        most: bytes of the file, at most.

    Returns:
        those arrays that the file has, by name.

    Raises:
        FkpError: scipy is not installed; the file is missing, is not of version 5, is damaged or
            too large; or an array of these names does not hold numbers.
    """
    io = _module("scipy.io", "scipy")
    data = read_bytes(path, most)
    if data.startswith(SIGNATURE) or SIGNATURE in data[:1024]:
        raise _not_read(path, "of version 7.3, not 5; save it with `save -v7`")
    try:
        plain = _decompressed(data)
        kinds = [(name, kind) for name, _, kind in io.whosmat(BytesIO(plain)) if name in names]
        for name, kind in kinds:
            if kind not in NUMBERS:
                raise ValueError(f"{name} is of class {kind}, not of numbers")
        found = io.loadmat(BytesIO(plain), variable_names=[name for name, _ in kinds])
        for name, _ in kinds:
            if found[name].dtype.kind not in "uif":
                raise ValueError(f"{name} has complex numbers")
    except Exception as error:  # scipy and zlib raise many kinds of errors on damaged files
        raise _not_read(path, f"not a MATLAB file of version 5 ({one_line(error)})") from None
    return {name: found[name] for name, _ in kinds}


def _decompressed(data: bytes) -> bytes:
    """Decompress the arrays of a file of version 5, so that no small file can become a huge one."""
    order = {b"IM": "<", b"MI": ">"}.get(data[ORDER])
    if order is None:
        raise ValueError("its header is another")

    parts, place, left = [data[:HEADER]], HEADER, UNPACKED
    while place < len(data):
        kind, count = struct.unpack_from(f"{order}II", data, place)
        end = place + 8 + count
        if end > len(data):
            raise ValueError("its end is missing")
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            part = unpacker.decompress(data[place + 8 : end], left + 1)
            left -= len(part)
            if left < 0:
                raise ValueError(f"more than {UNPACKED} bytes of arrays")
            if not unpacker.eof:
                raise ValueError("its end is missing")
        else:
            part = data[place:end]
        parts.append(part)
        place = end
    return b"".join(parts)


@contextmanager
def open_hdf5(path: Path, most: int = HDF5_BYTES) -> Iterator[Any]:
    """Open a MATLAB file of version 7.3 as an `h5py.File`; read it by `array` and `cells`.

    Raises:
        FkpError: h5py is not installed; or the file is missing, too large, or not of version 7.3.
            Errors of h5py within the block are reported so, too.
    """
    h5py = _module("h5py", "h5py")
    start = read_start(path, 1024, most)
    if SIGNATURE not in (start[:8], start[512:520]):
        raise _not_read(path, "not a MATLAB file of version 7.3")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FkpError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _not_read(path, f"damaged ({one_line(error)})") from None


def array(file: Any, name: str, most: int = ARRAY_BYTES) -> np.ndarray:
    """Read an array of numbers from an open file; its axes are in the reverse of MATLAB's order.

    Raises:
        FkpError: there is none of this name, or it is not of numbers, is too large, or lies in
            another file.
    """
    return np.asarray(_checked(file, _named(file, name), name, "uif", most)[()])


def cells(file: Any, name: str) -> list[Any]:
    """Return the references of a cell array's cells, in order; read each by `cell`.

    Raises:
        FkpError: as `array`, or it is not a cell array.
    """
    references = _checked(file, _named(file, name), name, "O", ARRAY_BYTES)
    return list(np.asarray(references[()]).ravel())


def cell(file: Any, reference: Any, name: str, most: int = ARRAY_BYTES) -> np.ndarray:
    """Read the array of numbers in a cell; axes as in `array`.

    Raises:
        FkpError: as `array`.
    """
    h5py = import_module("h5py")
    if not isinstance(reference, h5py.Reference):
        raise _not_read(Path(file.filename), f"{name} is no array of cells")
    return np.asarray(_checked(file, file[reference], name, "uif", most)[()])


def _named(file: Any, name: str) -> Any:
    """Return an object of the file itself: links to other files are not followed."""
    h5py = import_module("h5py")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise _not_read(Path(file.filename), f"no array {name}")
    return file[name]


def _checked(file: Any, found: Any, name: str, kinds: str, most: int) -> Any:
    """Return an HDF5 data set if it may be read: of some kinds, in this file, and not too large."""
    h5py, path = import_module("h5py"), Path(file.filename)
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in kinds:
        raise _not_read(path, f"{name} holds no such array")
    if found.external or found.is_virtual:
        raise _not_read(path, f"{name} lies in another file")
    size = max(math.prod(found.shape), math.prod(found.chunks or ())) * found.dtype.itemsize
    if size > most:
        raise _not_read(path, f"{name} has {size} bytes, more than the {most} that fkp reads")
    return found


def _module(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise FkpError(f'{package} is not installed; pip install "fkp[labels]"') from None


def _not_read(path: Path, what: str) -> FkpError:
    return FkpError(f"{path}: {what}", file=path)
