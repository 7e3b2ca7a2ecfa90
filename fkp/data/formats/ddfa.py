"""Read 300W-LP and AFLW2000-3D, the sets of 3DDFA: a `.mat` file with 68 points for each `.jpg`.

Coordinates: pixels, counted from 1, as MATLAB does. The publisher's `main_show_without_BFM.m` plots
`pt3d_68(1, :), pt3d_68(2, :)` on `imshow(img)`, whose first pixel is (1, 1).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.formats.base import files_below
from fkp.data.formats.contents import LabelledFace
from fkp.data.formats.published import PHOTO, Published
from fkp.data.table import OnBad
from fkp.errors import FkpError
from fkp.files.matlab import read_mat
from fkp.geometry import from_one

LANDMARKS, ENDING = "landmarks", "_pts.mat"
# Folders of images and `.mat` files; those of mirrored images end in _Flip.
PART = re.compile(r"(?:AFW|HELEN|IBUG|LFPW)(?:_Flip)?")
AFLW2000 = re.compile(r"image[0-9]{5}\.mat")


class ThreeHundredWLp(Published):
    """300W-LP: 61 225 rendered poses of the photos of 300-W, and the mirrored images of all.

    Source: Zhu et al., "Face Alignment Across Large Poses: A 3D Solution" (2016),
    www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm. All faces of one photo, in any pose,
    mirrored or not, stay together; so do the photos that LFPW has under several names.

    Args:
        root: folder of `AFW`, `AFW_Flip`, …, and `landmarks`.
        labels: `pts_2d`: `landmarks/AFW/NAME_pts.mat`, the contour that is visible, as in 300-W;
            `pts_3d`: the same files, the projection of points of the head, as in AFLW2000-3D;
            `pt2d`: the `.mat` file beside each image, mirrored ones included.
        identity: see `Published`.
        protocol: see `Published`; the set has no test split of its own, as it is tested on
            AFLW2000-3D.
        markup: see `Published`.
        on_bad: `stop` or `skip`.
        folds, fold: see `Source`.
    """

    shipped, kind = "ibug68", "300W-LP"

    def __init__(
        self,
        root: str,
        labels: Literal["pts_2d", "pts_3d", "pt2d"] = "pts_2d",
        identity: str = PHOTO,
        protocol: Literal["identity", "train"] = "identity",
        markup: str | None = None,
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        super().__init__(root, identity, protocol, markup, "points", on_bad, folds=folds, fold=fold)
        if labels not in ("pts_2d", "pts_3d", "pt2d"):
            message = f"data.labels={labels}: there is pts_2d, pts_3d and pt2d"
            raise FkpError(message, key="data.labels")
        self.labels = labels

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        """List the `.mat` files of the set below a folder, of both kinds."""
        parts = [path for path in _folders(root) if PART.fullmatch(path.name)]
        parts += [path for path in _folders(root / LANDMARKS) if PART.fullmatch(path.name)]
        return [file for part in parts for file in files_below(part, (".mat",))]

    def faces(self) -> list[LabelledFace]:
        """Read the faces of the folder `landmarks`, or those beside the images."""
        beside = self.labels == "pt2d"
        wanted = "beside the images" if beside else f"in {LANDMARKS}/; take data.labels=pt2d"
        files = self.label_files(f".mat file of {self.kind}")
        files = [file for file in files if file.name.endswith(ENDING) != beside]
        if not files:
            what = f"{self.root}: no .mat file of {self.kind} {wanted}"
            raise FkpError(what, key="data.labels", file=self.root)

        return [self.read_face(file, self._image(file), "train", self._points) for file in files]

    def _image(self, file: Path) -> Path:
        """Return the image of a `.mat` file: `AFW/NAME.jpg`."""
        name = file.name.removesuffix(".mat" if self.labels == "pt2d" else ENDING)
        return self.root / file.parent.name / f"{name}.jpg"

    def _points(self, file: Path) -> np.ndarray:
        return from_one(read_shape(file, self.labels))


class Aflw2000(Published):
    """AFLW2000-3D: 2000 test faces of any pose, with the points of a head that was fitted to them.

    Source: as `ThreeHundredWLp`. The points are projections of a head, also where it hides them.
    The publisher tests on all faces what was trained on 300W-LP: join both, with
    `protocol=official`.

    Args:
        root: folder of `image00002.jpg`, `image00002.mat`, …
        identity: see `Published`.
        protocol: `identity`, as there are no training faces.
        markup: see `Published`.
        on_bad: `stop` or `skip`.
        folds, fold: see `Source`.
    """

    shipped, kind = "ibug68", "AFLW2000-3D"

    def __init__(
        self,
        root: str,
        identity: str = r"(.+)\.\w+$",
        protocol: Literal["identity"] = "identity",
        markup: str | None = None,
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        super().__init__(root, identity, protocol, markup, "points", on_bad, folds=folds, fold=fold)

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        """List the `.mat` files of the set in a folder."""
        return sorted(path for path in root.glob("*.mat") if AFLW2000.fullmatch(path.name))

    def faces(self) -> list[LabelledFace]:
        """Read the faces, one a file."""
        files = self.label_files(f".mat file of {self.kind}")
        return [
            self.read_face(file, file.with_suffix(".jpg"), "test", _aflw2000_points)
            for file in files
        ]


def read_shape(file: Path, name: str) -> np.ndarray:
    """Read the points of a face from a `.mat` file of 3DDFA.

    Args:
        file: the file.
        name: of the array: (2, 68), (3, 68), (68, 2) or (68, 3).

    Returns:
        (68, 2), as the file has them.

    Raises:
        FkpError: as `fkp.files.matlab.read_mat`, or there is no such array.
    """
    shape = read_mat(file, [name]).get(name)
    if shape is None:
        raise FkpError(f"{file}: no array {name}", file=file)
    shape = shape.T if shape.shape[0] in (2, 3) else shape
    if shape.ndim != 2 or shape.shape[0] != 68 or shape.shape[1] not in (2, 3):
        raise FkpError(f"{file}: {name} is not 68 points, but {shape.shape}", file=file)
    return shape[:, :2].astype(float)


def _aflw2000_points(file: Path) -> np.ndarray:
    return from_one(read_shape(file, "pt3d_68"))


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*") if path.is_dir())
