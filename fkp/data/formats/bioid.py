"""Read the BioID face database: `.pgm` images, and `.pts` files with the 20 points of FGnet.

Coordinates: pixels, counted from 0. The publisher does not say so; the files are those of
`msm_points` of VXL (Manchester, who marked the points up), whose images count from 0. Other `.pts`
files count from 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.formats.base import files_below
from fkp.data.formats.contents import LabelledFace
from fkp.data.formats.published import Published
from fkp.data.pts_folders import read_pts
from fkp.data.table import OnBad
from fkp.geometry import to_one

PREFIX = "bioid_"


class BioId(Published):
    """BioID: 1521 gray frontal faces of 23 people, with 20 points.

    Source: ftp.fau.de/pub/facedb/readme.html. The publisher does not say who is in which image, but
    neighbouring images are of one person: a hundred consecutive images count as one person.

    Args:
        root: folder of the images `BioID_0000.pgm`, …, and of `points_20/bioid_0000.pts`, …, or
            the folder above both.
        identity: see `Published`; by default, the first two digits of the number.
        protocol: `identity`, as there is no test split.
        markup: see `Published`.
        on_bad: `stop` or `skip`.
        folds, fold: see `Source`.
    """

    shipped, kind = "bioid20", "BioID"

    def __init__(
        self,
        root: str,
        identity: str = r"(?:.*/)?(?i:bioid)_(\d\d)\d\d\.\w+$",
        protocol: Literal["identity", "train"] = "identity",
        markup: str | None = None,
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        super().__init__(root, identity, protocol, markup, "points", on_bad, folds=folds, fold=fold)

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        """List the `.pts` files of the database below a folder."""
        return [path for path in files_below(root, (".pts",)) if _is_part(path)]

    def faces(self) -> list[LabelledFace]:
        """Read the faces, one a file."""
        files = self.label_files("file bioid_0000.pts")
        images = {path.stem.lower(): path for path in files_below(self.root, (".pgm",))}
        return [
            self.read_face(
                file, images.get(file.stem.lower(), file.with_suffix(".pgm")), "train", _points
            )
            for file in files
        ]


def _is_part(path: Path) -> bool:
    return path.name.lower().startswith(PREFIX)


def _points(file: Path) -> np.ndarray:
    """Read a file that counts from 0, by the reader of files that count from 1."""
    return to_one(read_pts(file))
