"""Store the columns of a table of faces so that memory does not grow with the number of faces."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, repeat
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, overload

import numpy as np

from fkp.errors import FkpError
from fkp.files.cache import cache_folder

# Bytes: a larger column is mapped from a file, whose pages the kernel can take back.
LARGE = 1 << 20

BLOCK = 1024  # rows that are processed at once

Text = TypeVar("Text", bound="str | Path")


class ColumnBuilder:
    """Concatenate arrays in memory, or, if they become large, in a temporary file without a name.

    The file is deleted with the array that maps it.
    """

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.file: BinaryIO | None = None
        self.rows = 0

    def add(self, block: np.ndarray) -> None:
        """Append an array (f, …)."""
        self.blocks.append(block)
        self.rows += len(block)
        if sum(block.nbytes for block in self.blocks) > LARGE:
            self._write()

    def array(self) -> np.ndarray:
        """Return the whole column (F, …); changes to it stay in memory.

        Raises:
            FkpError: no file can be written.
        """
        if self.file is None:
            return np.concatenate(self.blocks)
        first = self.blocks[0]
        self._write()
        shape = (self.rows, *first.shape[1:])
        with self.file as file:
            return np.asarray(np.memmap(file, first.dtype, "c", shape=shape))

    def _write(self) -> None:
        """Move the blocks to the file."""
        folder, first = cache_folder(), self.blocks[0]
        try:
            if self.file is None:
                folder.mkdir(parents=True, exist_ok=True)
                self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            for block in self.blocks:
                self.file.write(np.ascontiguousarray(block, first.dtype).data)
            self.file.flush()
        except OSError as error:
            what = f"no room for a table of faces ({error.strerror})"
            fix = "set FKP_CACHE to another folder"
            raise FkpError(f"{folder}: {what}; {fix}") from error
        # An empty block keeps the dtype and the shape of a row.
        self.blocks = [np.zeros_like(first, shape=(0, *first.shape[1:]))]


def taken(column: Any, chosen: np.ndarray | slice | list[int]) -> Any:
    """Take rows of an array or Texts by indices, a mask, or a slice, which shares memory."""
    if isinstance(chosen, slice) or isinstance(column, Texts):
        return column[chosen]
    indices = np.arange(len(column))[chosen]
    rows = ColumnBuilder()
    for start in range(0, max(1, len(indices)), BLOCK):
        rows.add(column[indices[start : start + BLOCK]])
    return rows.array()


class Texts(Generic[Text]):
    """Hold F strings, or paths, in one array of letters instead of one object each.

    An integer index returns one; a slice, array of indices or mask returns Texts. As an array it is
    one of objects.

    Args:
        letters: (bytes,) uint8, UTF-8.
        spans: (F, 2) int64, where each begins and ends.
        kind: str or Path.
    """

    def __init__(self, letters: np.ndarray, spans: np.ndarray, kind: Callable[[str], Text]):
        self.letters, self.spans, self.kind = letters, spans, kind

    @staticmethod
    def of(texts: Iterable[Text], kind: Callable[[str], Text]) -> Texts[Text]:
        """Make Texts of strings or paths; Texts are returned as they are."""
        if isinstance(texts, Texts):
            return texts
        remaining, letters, spans = iter(texts), ColumnBuilder(), ColumnBuilder()
        letters.add(np.zeros(0, np.uint8))
        spans.add(np.zeros((0, 2), np.int64))
        while block := [_encode(text) for text in islice(remaining, BLOCK)]:
            lengths = np.array([len(text) for text in block])
            ends = letters.rows + lengths.cumsum()
            spans.add(np.stack([ends - lengths, ends], 1))
            letters.add(np.frombuffer(b"".join(block), np.uint8))
        return Texts(letters.array(), spans.array(), kind)

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[Text]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Text: ...

    @overload
    def __getitem__(self, key: slice | np.ndarray | list[int]) -> Texts[Text]: ...

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, (slice, np.ndarray, list)):
            return Texts(self.letters, taken(self.spans, key), self.kind)
        start, end = self.spans[key].tolist()
        return self.kind(self.letters[start:end].tobytes().decode("utf-8", "surrogatepass"))

    def __setitem__(self, key: int, text: Text) -> None:
        more = np.frombuffer(_encode(text), np.uint8)
        self.spans[key] = len(self.letters), len(self.letters) + len(more)
        self.letters = np.concatenate([self.letters, more])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.empty(len(self), object)
        array[:] = self.tolist()
        return array

    def __eq__(self, other: object) -> np.ndarray:  # type: ignore[override]
        others = other if isinstance(other, (Texts, np.ndarray, list)) else repeat(other)
        return np.array([one == another for one, another in zip(self, others, strict=False)], bool)

    __hash__ = None  # type: ignore[assignment]

    def tolist(self) -> list[Text]:
        """Return all of them as objects."""
        return list(self)


def _encode(text: object) -> bytes:
    """Encode a string or path; file names that are no valid Unicode survive."""
    return str(text).encode("utf-8", "surrogatepass")


def joined(tables: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Join tables of the same columns, by name; they are consumed one at a time."""
    builders: dict[str, ColumnBuilder] = defaultdict(ColumnBuilder)
    kinds: dict[str, Callable[[str], Any]] = {}
    names: list[str] = []

    for table in tables:
        names = list(table)
        for name, column in table.items():
            if isinstance(column, Texts):
                kinds[name] = column.kind
                letters = builders[_letters(name)]
                builders[name].add(column.spans + letters.rows)
                letters.add(column.letters)
            else:
                builders[name].add(column)

    arrays = {name: builder.array() for name, builder in builders.items()}
    return {
        name: Texts(arrays[_letters(name)], arrays[name], kinds[name])
        if name in kinds
        else arrays[name]
        for name in names
    }


def _letters(name: str) -> str:
    """Return the key of the letters of a column of Texts; its spans have the column's name."""
    return f"letters of {name}"
