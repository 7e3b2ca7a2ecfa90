"""Write the table of faces as Parquet, with pyarrow: the extra `[parquet]`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import PurePath
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from fkp.errors import FkpError
from fkp.face import Face
from fkp.inference.result_files import as_plain, csv_header
from fkp.markup import Markup

# Rows that are written at once.
GROUP = 10_000


def writes_parquet(asked: bool | None) -> bool:
    """Return whether to write Parquet; None asks for it where pyarrow is installed.

    Raises:
        FkpError: it is asked for, and pyarrow is missing.
    """
    if asked is False:
        return False
    if find_spec("pyarrow") is not None:
        return True
    if asked:
        raise FkpError(
            'parquet=true: pyarrow is not installed; pip install "fkp[parquet]"', key="parquet"
        )
    return False


class ParquetTable:
    """A table with one row a face: the columns of `faces.csv`, numbers as 32-bit floats.

    Args:
        file: opened for writing.
        markup: of the points.
    """

    def __init__(self, file: BinaryIO, markup: Markup):
        import pyarrow
        from pyarrow import parquet

        self.arrow: Any = pyarrow
        names = csv_header(markup)
        self.schema = pyarrow.schema(
            [("image", pyarrow.string()), *((name, pyarrow.float32()) for name in names)]
        )
        self.writer = parquet.ParquetWriter(file, self.schema)
        self.images: list[str] = []
        self.rows: list[np.ndarray] = []

    def add(self, path: PurePath, faces: Sequence[Face]) -> None:
        """Add the faces of one image."""
        for face in faces:
            confidence = face.confidence.mean()
            self.images.append(as_plain(str(path)))
            self.rows.append(
                np.array([*face.box, face.score, confidence, *face.points.flatten()], np.float32)
            )
        if len(self.rows) >= GROUP:
            self._write()

    def _write(self) -> None:
        columns = np.stack(self.rows, 1)  # (columns, rows)
        arrays = [self.images, *map(self.arrow.array, columns)]
        self.writer.write_table(self.arrow.table(arrays, schema=self.schema))
        self.images, self.rows = [], []

    def __enter__(self) -> ParquetTable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.rows and error is None:
            self._write()
        self.writer.close()
