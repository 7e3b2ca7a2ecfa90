"""Read COFW: two MATLAB files of version 7.3 with images, 29 points, occlusion and face boxes.

Coordinates: pixels, counted from 1, as MATLAB does. The publisher's code reads the pixel of a point
as `img(y + (x - 1) * height)`, with x from 1 to the width (`shapeGt.m` of `rcpr_v1`).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fkp.console import track
from fkp.data.formats.contents import LabelledFace
from fkp.data.formats.published import Published
from fkp.data.table import OnBad
from fkp.errors import FkpError
from fkp.files.cache import cache_folder, fingerprint
from fkp.files.images import write_image
from fkp.files.matlab import array, cell, cells, open_hdf5
from fkp.geometry import from_one

POINTS = 29
# Of the split: the file, and the names of its arrays of images, points and boxes.
FILES = {
    "train": ("COFW_train_color.mat", "IsTr", "phisTr", "bboxesTr"),
    "test": ("COFW_test_color.mat", "IsT", "phisT", "bboxesT"),
}
FOLDERS = (".", "COFW_color", "common/xpburgos/behavior/code/pose")
# Bytes of an image, at most.
MOST = 1 << 26


class Cofw(Published):
    """COFW: 1345 training faces, the first 845 of them from LFPW, and 507 occluded test faces.

    Source: Burgos-Artizzu et al., "Robust Face Landmark Estimation under Occlusion" (2013),
    data.caltech.edu/records/20099 (the archive with color images). The images are in the files, and
    are written once to fkp's cache folder, as PNG.

    Args:
        root: folder of `COFW_train_color.mat` and `COFW_test_color.mat`.
        occluded: `keep` the points that are marked as occluded, which is usual, or `leave_out`.
        protocol: see `Published`. Each image counts as a person.
        markup: see `Published`.
        boxes: see `Published`.
        on_bad: `stop` or `skip`.
        folds, fold: see `Source`.
    """

    shipped, kind = "cofw29", "COFW"

    def __init__(
        self,
        root: str,
        occluded: Literal["keep", "leave_out"] = "keep",
        protocol: Literal["official", "identity", "strict", "train"] = "official",
        markup: str | None = None,
        boxes: Literal["points", "file"] = "points",
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        super().__init__(
            root, r"(.+)\.\w+$", protocol, markup, boxes, on_bad, folds=folds, fold=fold
        )
        if occluded not in ("keep", "leave_out"):
            message = f"data.occluded={occluded}: there is keep and leave_out"
            raise FkpError(message, key="data.occluded")
        self.occluded = occluded

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        """List the two files below a folder."""
        found = []
        for name, *_ in FILES.values():
            paths = (root / folder / name for folder in FOLDERS)
            found += [path for path in paths if path.is_file()][:1]
        return found

    def faces(self) -> list[LabelledFace]:
        """Read the faces of both files."""
        splits = {names[0]: split for split, names in FILES.items()}
        files = self.label_files(f"file of COFW ({', '.join(splits)})")
        return [face for file in files for face in self._stored(file, splits[file.name])]

    def _stored(self, file: Path, split: str) -> list[LabelledFace]:
        """Read one file, and write its images to the cache."""
        _, images, phis, bboxes = FILES[split]
        with open_hdf5(file) as opened:
            labels, boxes = array(opened, phis), array(opened, bboxes)
            references = cells(opened, images)
            count = len(references)
            if labels.shape != (3 * POINTS, count) or boxes.shape != (4, count):
                shapes = f"{phis} {labels.shape[::-1]} and {bboxes} {boxes.shape[::-1]}"
                what = f"{file}: {shapes} do not fit {count} images of {POINTS} points"
                raise FkpError(what, file=file)
            folder = _extracted(file, opened, references, images)

        # MATLAB's (count, 87): x of all points, y of all points, and whether each is occluded.
        x, y, hidden = labels.T.reshape(count, 3, POINTS).swapaxes(0, 1)
        points = from_one(np.stack([x, y], -1))  # (count, K, 2)
        if self.occluded == "leave_out":
            points[hidden > 0] = np.nan

        # Left, top, width, height.
        corner, size = from_one(boxes[:2].T), boxes[2:].T
        boxes = np.concatenate([corner, corner + size], 1)
        return [
            LabelledFace(folder / _name(i), points[i], f"{file.name}:{i + 1}", boxes[i], who, split)
            for i, who in enumerate(f"{split}_{i + 1:04d}" for i in range(count))
        ]


def _extracted(file: Path, opened: Any, references: list[Any], name: str) -> Path:
    """Write the images of a file to the cache, if they are not there, and return their folder.

    An image that cannot be read is left out, so that its row is a fault.
    """
    found = file.stat()
    folder = cache_folder() / f"cofw-{fingerprint(name, f'{found.st_size} {found.st_mtime_ns}')}"
    if folder.is_dir():
        return folder

    folder.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for i, reference in enumerate(
            track(references, f"extracting {file.name}", len(references))
        ):
            image = _image(cell(opened, reference, f"{name}{{{i + 1}}}", MOST))
            if image is not None:
                write_image(half / _name(i), image)
        half.chmod(0o755)
        try:
            half.rename(folder)
        except OSError:
            # Another run was faster: its images are the same.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder


def _image(stored: np.ndarray) -> np.ndarray | None:
    """Return a stored image as (H, W) or (H, W, 3); None if it is none.

    HDF5 has the axes in the reverse of MATLAB's order: (W, H) or (3, W, H).
    """
    image = np.ascontiguousarray(stored.T)
    gray, color = image.ndim == 2, image.ndim == 3 and image.shape[-1] == 3
    return image if image.dtype == np.uint8 and (gray or color) and min(image.shape) > 1 else None


def _name(index: int) -> str:
    return f"{index + 1:04d}.png"
