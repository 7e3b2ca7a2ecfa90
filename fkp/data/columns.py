"""Columns of a table of faces that take little memory however many faces there are."""

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

LARGE = (
    1 << 20
)  # bytes of a column: what is more lies in a file, whose pages the kernel takes back when it needs them
BLOCK = 1024  # rows that are handled at once

Text = TypeVar("Text", bound="str | Path")


class Roll:
    """Arrays that come one after the other and become one: in memory, or, if they are large, in a file without a name
    that goes with the array."""

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.file: BinaryIO | None = None
        self.rows = 0

    def add(self, block: np.ndarray) -> None:
        """Put an array (f, …) at the end."""
        self.blocks.append(block)
        self.rows += len(block)
        if sum(block.nbytes for block in self.blocks) > LARGE:
            self._write()

    def array(self) -> np.ndarray:
        """All of them, (F, …); what is written to it stays in memory.

        Raises:
            FkpError: no file can be written.
        """
        if self.file is None:
            return np.concatenate(self.blocks)
        first = self.blocks[0]
        self._write()
        with self.file as file:
            return np.asarray(
                np.memmap(file, first.dtype, "c", shape=(self.rows, *first.shape[1:]))
            )

    def _write(self) -> None:
        folder = cache_folder()
        try:
            if self.file is None:
                folder.mkdir(parents=True, exist_ok=True)
                self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            for block in self.blocks:
                self.file.write(np.ascontiguousarray(block, self.blocks[0].dtype).data)
            self.file.flush()
        except OSError as error:
            told = (
                f"no room for a table of faces ({error.strerror}); FKP_CACHE names another folder"
            )
            raise FkpError(f"{folder}: {told}") from error
        self.blocks = [
            np.zeros_like(self.blocks[0], shape=(0, *self.blocks[0].shape[1:]))
        ]  # of what kind they are


def taken(column: Any, chosen: np.ndarray | slice | list[int]) -> Any:
    """The rows of a column, array or Texts, at these indices (or where this mask is true). A slice shares memory."""
    if isinstance(chosen, slice) or isinstance(column, Texts):
        return column[chosen]
    chosen = np.arange(len(column))[chosen]
    roll = Roll()
    for start in range(0, max(1, len(chosen)), BLOCK):
        roll.add(column[chosen[start : start + BLOCK]])
    return roll.array()


class Texts(Generic[Text]):
    """F texts, or paths, as letters in one run: no object for each of them.

    An index gives one, a slice, array of indices or mask gives Texts. As an array it is one of objects.

    Args:
        letters: (bytes,) uint8, UTF-8.
        spans: (F, 2) int64, where each begins and ends.
        kind: str or Path.
    """

    def __init__(self, letters: np.ndarray, spans: np.ndarray, kind: Callable[[str], Text]):
        self.letters, self.spans, self.kind = letters, spans, kind

    @staticmethod
    def of(texts: Iterable[Text], kind: Callable[[str], Text]) -> Texts[Text]:
        """Some texts, or paths; themselves if they are such already."""
        if isinstance(texts, Texts):
            return texts
        left, letters, spans = iter(texts), Roll(), Roll()
        letters.add(np.zeros(0, np.uint8))
        spans.add(np.zeros((0, 2), np.int64))
        while some := [str(text).encode("utf-8", "surrogatepass") for text in islice(left, BLOCK)]:
            lengths = np.array([len(text) for text in some])
            ends = letters.rows + lengths.cumsum()
            spans.add(np.stack([ends - lengths, ends], 1))
            letters.add(np.frombuffer(b"".join(some), np.uint8))
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
        more = np.frombuffer(str(text).encode("utf-8", "surrogatepass"), np.uint8)
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
        """All of them, as objects."""
        return list(self)


def joined(tables: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Tables of the same columns, by name, as one; each may be made when its turn comes."""
    rolls: dict[str, Roll] = defaultdict(Roll)
    kinds: dict[str, Callable[[str], Any]] = {}
    names: list[str] = []
    for table in tables:
        names = list(table)
        for name, column in table.items():
            if isinstance(column, Texts):
                kinds[name] = column.kind
                rolls[name].add(column.spans + rolls[f"letters of {name}"].rows)
                rolls[f"letters of {name}"].add(column.letters)
            else:
                rolls[name].add(column)
    made = {name: roll.array() for name, roll in rolls.items()}
    return {
        n: Texts(made[f"letters of {n}"], made[n], kinds[n]) if n in kinds else made[n]
        for n in names
    }
