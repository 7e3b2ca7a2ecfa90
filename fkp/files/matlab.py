"""Read arrays of numbers from MATLAB files of unknown origin: versions 5, and 7.3 (HDF5) by h5py.

Version 5 is decoded here, as `scipy.io.loadmat` (1.17) ends the process on some damaged files.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fkp.errors import FkpError, one_line
from fkp.files.reading import read_bytes, read_start

# Bytes of a file of version 5, and of the arrays in it once they are decompressed, at most.
BYTES, UNPACKED = 1 << 20, 1 << 24
# Bytes of a file of version 7.3, and of one array in it, at most.
HDF5_BYTES, ARRAY_BYTES = 1 << 34, 1 << 30
SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Version 5: the header, where it says the order of bytes, and the types of elements.
# Source: MathWorks, "MAT-File Format" (2024), chapter 1.
HEADER, ORDER = 128, slice(126, 128)
MATRIX, COMPRESSED = 14, 15
# The numbers in an element, by its type; and in MATLAB, by the class of the array. Arrays of other
# classes (text, cells, structures, objects) are not read.
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
STORED |= {12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
CLASSES |= {14: "i8", 15: "u8"}
COMPLEX = 0x0800  # a flag of an array


def read_mat(path: Path, names: Sequence[str], most: int = BYTES) -> dict[str, np.ndarray]:
    """Read arrays of numbers from a MATLAB file of version 5.

    Args:
        path: the file.
        names: of the arrays.
        most: bytes of the file, at most.

    Returns:
        those arrays that the file has, by name.

    Raises:
        FkpError: the file is missing, is not of version 5, is damaged or too large; or an array of
            these names does not hold real numbers.
    """
    data = read_bytes(path, most)
    if SIGNATURE in (data[:8], data[512:520]):
        raise _not_read(path, "of version 7.3, not 5; save it with `save -v7`")
    order = {b"IM": "<", b"MI": ">"}.get(data[ORDER])
    if order is None:
        raise _not_read(path, "not a MATLAB file of version 5")

    found = {}
    try:
        for kind, content in _unpacked(data, order):
            if kind == MATRIX and (named := _array(content, order, names)):
                found[named[0]] = named[1]
    except (ValueError, struct.error, zlib.error, OverflowError) as error:
        raise _not_read(path, f"damaged ({one_line(error)})") from None
    return found


def _unpacked(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the elements of a file of version 5, decompressed.

    No small file can become a huge one: their sum is bounded.
    """
    left = UNPACKED
    for kind, content in _elements(data[HEADER:], order, pad=False):
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(content, left + 1)
            left -= len(content)
            if left < 0:
                raise ValueError(f"more than {UNPACKED} bytes of arrays")
            if not unpacker.eof:
                raise ValueError("the end of an array is missing")
            yield from _elements(content, order, pad=False)
        else:
            yield kind, content


def _elements(data: bytes, order: str, pad: bool = True) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each element; inside an array, they are padded to 8 bytes."""
    place = 0
    while place < len(data):
        (word,) = struct.unpack_from(f"{order}I", data, place)
        if word >> 16:
            # At most 4 bytes lie in the tag itself.
            kind, count, start, size = word & 0xFFFF, word >> 16, place + 4, 8
            if count > 4:
                raise ValueError("a small element is too long")
        else:
            kind, count = struct.unpack_from(f"{order}II", data, place)
            start, size = place + 8, 8 + (-(-count // 8) * 8 if pad else count)
        if start + count > len(data):
            raise ValueError("the end of an array is missing")
        yield kind, data[start : start + count]
        place += size


def _array(content: bytes, order: str, names: Sequence[str]) -> tuple[str, np.ndarray] | None:
    """Decode an array, if it has one of the names: its flags, dimensions, name and numbers."""
    elements = _elements(content, order)
    heads = [next(elements, (0, b"")) for _ in range(3)]
    (_, flags), (_, dimensions), (_, name) = heads
    if (found := name.decode("latin-1")) not in names:
        return None

    (word,) = struct.unpack_from(f"{order}I", flags)
    stored, numbers = next(elements, (0, b""))
    if word & 0xFF not in CLASSES or word & COMPLEX or stored not in STORED:
        raise ValueError(f"{found} does not hold real numbers")
    shape = np.frombuffer(dimensions, f"{order}i4").tolist()
    values = np.frombuffer(numbers, order + STORED[stored])
    if min(shape, default=-1) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{found} has {len(values)} numbers for the size {shape}")
    return found, values.reshape(shape, order="F").astype(CLASSES[word & 0xFF])


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
