"""Convert rows of a CSV to points and face boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fkp.data.csv_layout import Layout
from fkp.data.csv_reader import is_number
from fkp.data.table import FAR
from fkp.markup import Markup

# Cells of a point without a label, as pandas, R, SQL and Excel write them.
UNLABELLED = ["", "nan", "NaN", "NA", "N/A", "#N/A", "<NA>", "None", "null", "NULL"]


@dataclass
class Labels:
    """The numbers of n rows.

    Args:
        points: (n, K, 2), IMAGE pixels; NaN where a point is not labelled.
        boxes: (n, 4), NaN where there is none.
        cells: (n, m), text of the columns of points and boxes.
        wrong: (n, m), whether a cell is neither empty nor a number of pixels.
        columns: (m,), the positions of these cells in a row.
        markup: the meaning of the points.
    """

    points: np.ndarray
    boxes: np.ndarray
    cells: np.ndarray
    wrong: np.ndarray
    columns: list[int]
    markup: Markup

    def __post_init__(self) -> None:
        labelled = np.isfinite(self.points)  # (n, K, 2)
        self.half = labelled.sum(2) == 1  # (n, K)
        self.none = ~labelled.any((1, 2))  # (n,)

        has_box = np.isfinite(self.boxes).all(1)
        no_area = (self.boxes[:, 2:] <= self.boxes[:, :2]).any(1)
        self.flat = np.asarray(has_box & no_area)  # (n,)

        self.bad = self.wrong.any(1) | self.half.any(1) | self.none | self.flat

    def fault(self, i: int) -> str:
        """Say what is wrong with row i; empty if it can be used."""
        if not self.bad[i]:
            return ""
        if self.wrong[i].any():
            column = int(np.flatnonzero(self.wrong[i])[0])
            cell = self.cells[i, column]
            what = f"{cell!r} in column {self.columns[column] + 1} is not a number of pixels"
            mixed = is_number(cell) and ("," in cell or "." in cell)
            return what + ("; decimal points and commas are mixed" if mixed else "")
        if self.half[i].any():
            return f"{self.markup.points[int(self.half[i].argmax())]} has one coordinate of two"
        return "no point is labelled" if self.none[i] else "its box has no area"


def read_labels(file: Path, layout: Layout, rows: list[list[str]], markup: Markup) -> Labels:
    """Convert the cells of n rows to points and boxes.

    Args:
        file: for messages.
        layout: of the table.
        rows: n rows with as many cells as the table is wide.
        markup: the meaning of the points.

    Raises:
        FkpError: commas that may separate thousands or decimals.
    """
    columns = layout.points + layout.boxes
    stripped = [[row[column].strip() for column in columns] for row in rows]
    cells = np.array(stripped, object).reshape(-1, len(columns))  # (n, m)

    numbers = layout.numbers(file, cells)
    wrong = ~(np.abs(numbers) < FAR) & ~np.asarray(np.isin(cells.astype(str), UNLABELLED))

    points = np.full((len(rows), len(markup.points), 2), np.nan)
    points[:, *layout.slots] = numbers[:, : len(layout.points)]
    boxes = numbers[:, len(layout.points) :] if layout.boxes else np.full((len(rows), 4), np.nan)
    return Labels(points, boxes, cells, wrong, columns, markup)
