"""Read CSV files: detect encoding, separator and header from the first lines, then stream the rows.

Stages: refuse other kinds of file -> encoding (`fkp.files.reading.open_text`) -> separator ->
header -> blocks of rows.
"""

from __future__ import annotations

import csv
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from fkp.data.columns import BLOCK
from fkp.errors import FkpError
from fkp.files.images import IMAGE_ENDINGS
from fkp.files.reading import open_text, read_start

# Limits of a file.
BYTES, ROWS = 1 << 31, 1 << 21
# Limit of a row, in characters; and of the rows held at once, which take ten times as many bytes.
LETTERS = 1 << 24
# Lines at the beginning from which separator and header are detected, and the number of characters
# after which no further line is taken.
SAMPLE, SAMPLE_LETTERS = 32, 1 << 20
SEPARATORS = (",", ";", "\t", "|", " ")
# A first line that names the separator; Excel reads and writes it.
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\d+,\d+|[.,]\d+)([eE][-+]?\d+)?")
# First bytes of files that are taken for a CSV by mistake.
OTHERS = {
    b"PK\x03\x04": "an Excel or LibreOffice workbook, or another zip file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed by gzip",
    b"PAR1": "a Parquet file",
    b"{": "a JSON file",
    b"<": "an HTML or XML file",
}

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """One row of a table.

    Args:
        line: the number of its first line in the file, from 1.
        cells: as written, without quotation marks.
        more: the numbers of further lines, not blank, that a quoted cell with line breaks spans.
        last: the number of its last line.
    """

    line: int
    cells: list[str]
    more: list[int]
    last: int


class CsvReader:
    """Stream the rows of an open CSV; `open_csv` makes a reader.

    Args:
        path: of the file, for messages.
        text: the open file.

    Attributes:
        separator: between cells.
        header: names of the columns, stripped; empty if the file has none.
        sample: cells of the first rows.

    Raises:
        FkpError: the file has no rows, or no row can be separated into cells.
    """

    def __init__(self, path: Path, text: TextIO):
        self.path, self._text = path, text
        # Characters read since the last reset to 0.
        self._letters = 0

        with self._readable_errors():
            self._first = self._first_lines()

            # The separator: named by the first line, or detected.
            named = SEPARATOR_LINE.fullmatch(self._first[0]) if self._first else None
            self.separator = named[1] if named else _detect_separator(self._first)

            self.header, self.sample, self._skipped = self._find_header(1 if named else 0)
        if not self.sample:
            raise FkpError(f"{path}: not a CSV of key points (it has no rows)")

    def blocks(self) -> Iterator[list[Row]]:
        """Yield blocks of rows; rows without any text are left out.

        Raises:
            FkpError: too many rows, or a row that is too long.
        """
        count, block = 0, list[Row]()
        with self._readable_errors():
            self._letters = 0
            lines = itertools.chain(self._first[self._skipped :], self._lines())
            for row in self._rows(lines, self._skipped):
                block.append(row)
                count += 1
                if count > ROWS:
                    raise FkpError(
                        f"{self.path}: more than the {ROWS} rows that fkp reads of a file"
                    )
                if len(block) == BLOCK or self._letters > LETTERS:
                    yield block
                    self._letters, block = 0, []
        if block:
            yield block

    def _first_lines(self) -> list[str]:
        """Read the first lines: at least two with text, for a header and a row."""
        lines: list[str] = []
        count = total = 0
        for line in self._lines():
            lines.append(line)
            count += bool(line.strip())
            total += len(line)
            self._letters = 0
            if count == SAMPLE or (count != 1 and total > SAMPLE_LETTERS):
                break
        return lines

    def _lines(self) -> Iterator[str]:
        """Yield the next lines, as long as their row is not too long."""
        while line := self._text.readline(LETTERS + 1):
            self._letters += len(line)

            # Twice the limit, as complete rows of the same block may count, too.
            if len(line) > LETTERS or self._letters > 2 * LETTERS:
                raise csv.Error(f"a row of more than {LETTERS} letters")
            yield line

    def _rows(self, lines: Iterable[str], before: int) -> Iterator[Row]:
        """Yield the rows that have any text.

        Args:
            lines: of the file.
            before: the number of lines of the file before these.
        """
        # The csv module takes its lines through `recorded`, which keeps those of the current row.
        held: list[str] = []

        def recorded() -> Iterator[str]:
            for line in lines:
                held.append(line)
                yield line

        reader = csv.reader(recorded(), delimiter=self.separator, skipinitialspace=True)
        line = before + 1
        blank = self.separator + '" \t\r\n'
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise csv.Error(
                    f"line {line}: {error}; is a quotation mark missing or not closed?"
                ) from None

            if any(map(str.strip, cells)):
                more = [line + i for i, text in enumerate(held) if i and text.strip(blank)]
                yield Row(line, cells, more, line + len(held) - 1)
            line += len(held)
            held.clear()

    def _find_header(self, skipped: int) -> tuple[list[str], list[list[str]], int]:
        """Find the header in the first lines.

        Args:
            skipped: the number of lines at the beginning that are no rows.

        Returns:
            the header, empty if there is none; the cells of the first rows; the number of lines
            before the first row of data.
        """
        rows = list(self._rows(self._first[skipped:], skipped))

        # Remarks above the header.
        widths = Counter(len(_without_empty_end(row.cells)) for row in rows)
        usual = max(widths, key=lambda width: (widths[width], width), default=0)
        while rows and usual > 1 and _is_remark(rows[0].cells, usual):
            skipped = rows.pop(0).last
            log.info("%s: line %d is neither header nor data: skipped", self.path, skipped)

        if not rows or not _is_header(rows[0].cells):
            return [], [row.cells for row in rows], skipped
        first, rows = rows[0], rows[1:]
        header = [name.strip() for name in first.cells]

        # R, and the lists of CelebA, give the column of row names no header.
        one_more = rows and all(
            len(_without_empty_end(row.cells)) == len(header) + 1 for row in rows
        )
        if one_more and _without_empty_end(first.cells)[0]:
            header = ["", *header]
        return header, [row.cells for row in rows], first.last

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        """Turn errors of the csv module into messages that name the file."""
        try:
            yield
        except csv.Error as error:
            raise FkpError(f"{self.path}: not a CSV of key points ({error})") from None


@contextmanager
def open_csv(path: Path) -> Iterator[CsvReader]:
    """Open a CSV, and detect its separator and header.

    Raises:
        FkpError: the file is missing, is of another kind, or has an unreadable encoding.
    """
    start = read_start(path, 8, BYTES).lstrip()
    for magic, kind in OTHERS.items():
        if start.startswith(magic):
            raise FkpError(
                f"{path}: {kind}, not a CSV; open it in a spreadsheet and save it as 'CSV UTF-8'"
            )
    with open_text(path, BYTES) as text:
        yield CsvReader(path, text)


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, with a decimal point or comma."""
    return NUMBER.fullmatch(cell.strip()) is not None


def is_image(cell: str) -> bool:
    """Return whether a cell is a file name with the ending of an image."""
    return os.path.splitext(cell.strip())[1].lower() in IMAGE_ENDINGS


def _detect_separator(lines: list[str]) -> str:
    """Return the separator with the most characters in cells that are numbers.

    At a tie, the first of `SEPARATORS`.
    """

    def digits(separator: str) -> int:
        rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        try:
            return sum(len(cell) for row in rows if len(row) > 1 for cell in row if is_number(cell))
        except csv.Error:
            # A row without this separator is one cell, and too long.
            return 0

    return max(SEPARATORS, key=digits)


def _without_empty_end(cells: list[str]) -> list[str]:
    end = len(cells)
    while end and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def _is_remark(cells: list[str], usual: int) -> bool:
    """Return whether a row above the header is a title, a count of rows or a comment.

    Args:
        cells: of the row.
        usual: the number of cells that most rows have.
    """
    filled = [cell for cell in cells if cell.strip()]
    if any(map(is_image, filled)):
        return False
    return len(filled) == 1 or (
        filled[0].startswith("#") and len(_without_empty_end(cells)) != usual
    )


def _is_header(cells: list[str]) -> bool:
    """Return whether the first row names columns.

    A header has mostly words, or consecutive whole numbers; a file name and coordinates are data.
    """
    filled = [cell.strip() for cell in cells if cell.strip()]
    if any(map(is_image, filled)):
        return False

    numbers = [cell for cell in filled if is_number(cell)]
    if len(filled) > 2 * len(numbers) or not cells[0].strip():
        return True
    whole = [int(cell) for cell in numbers if cell.isdecimal() and len(cell) < 9]
    return len(whole) == len(numbers) and all(b == a + 1 for a, b in itertools.pairwise(whole))
