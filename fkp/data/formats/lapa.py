"""Read LaPa and JD-landmark: a text with the number of points, 106, and one point in each line.

Coordinates: pixels, counted from 0. The publisher's challenge on this markup says: "The coordinates
of the top left corner is [0, 0]" (fllc3-icme2021.github.io/evaluation.html).
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Literal

from fkp.data.formats.base import files_below
from fkp.data.formats.contents import LabelledFace
from fkp.data.formats.published import PHOTO, Published, read_points
from fkp.data.table import OnBad

SPLITS = ("train", "val", "test")
CORRECTED, PICTURE, ENDING = "corrected_landmark", "picture", ".jpg.txt"

read_label = partial(read_points, count=106)


class Lapa(Published):
    """LaPa: 18 176 training, 2000 validation and 2000 test faces with 106 points.

    Source: Liu et al., "A New Dataset and Boundary-Attention Semantic Segmentation for Face
    Parsing" (2020), github.com/JDAI-CV/lapa-dataset. Faces of the publisher's validation split
    count as training faces; fkp takes its own from them, without sharing a photo.

    Args:
        root: folder of `train`, `val` and `test`, each with `images` and `landmarks`.
        identity: see `Published`; by default, the faces of one photo stay together.
        protocol: see `Published`.
        markup: see `Published`.
        on_bad: `stop` or `skip`.
        folds, fold: see `Source`.
    """

    shipped, kind = "lapa106", "LaPa"

    def __init__(
        self,
        root: str,
        identity: str = r"(?:.*/)?(.+)_\d+\.\w+$",
        protocol: Literal["official", "identity", "strict", "train"] = "official",
        markup: str | None = None,
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        super().__init__(root, identity, protocol, markup, "points", on_bad, folds=folds, fold=fold)

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        """List the texts of all splits below a folder."""
        folders = [root / split / "landmarks" for split in SPLITS]
        folders = [folder for folder in folders if (folder.parent / "images").is_dir()]
        return [file for folder in folders for file in files_below(folder, (".txt",))]

    def faces(self) -> list[LabelledFace]:
        """Read the faces, one a file."""
        faces = []
        for file in self.label_files(f"text of {self.kind} in train/landmarks, …"):
            folder = file.parent.parent
            split = "test" if folder.name == "test" else "train"
            image = folder / "images" / f"{file.stem}.jpg"
            faces.append(self.read_face(file, image, split, read_label))
        return faces


class JdLandmark(Published):
    """JD-landmark: 11 393 training, 2000 validation and 2000 test faces with 106 points.

    Source: Liu et al., "Grand Challenge of 106-Point Facial Landmark Localization" (2019). The
    labels that the publisher corrected later, in `Corrected_landmark`, replace those in `landmark`.

    Args:
        root: folder of the parts: `Training_data/AFW/picture/NAME.jpg` and `…/landmark/
            NAME.jpg.txt`, or `Training_data/Corrected_landmark/NAME.jpg.txt`. Faces below a folder
            whose name begins with `test` are the publisher's test faces.
        identity: see `Published`; by default, the faces of one photo stay together.
        protocol: see `Published`.
        markup: see `Published`.
        on_bad: `stop` or `skip`.
        folds, fold: see `Source`.
    """

    shipped, kind = "lapa106", "JD-landmark"

    def __init__(
        self,
        root: str,
        identity: str = PHOTO,
        protocol: Literal["official", "identity", "strict", "train"] = "identity",
        markup: str | None = None,
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        super().__init__(root, identity, protocol, markup, "points", on_bad, folds=folds, fold=fold)

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        """List the texts below a folder, corrected ones instead of their first version."""
        texts = files_below(root, (ENDING,))
        folders = ("landmark", CORRECTED)
        texts = [file for file in texts if file.parent.name.lower() in folders]
        corrected = {file.name for file in texts if file.parent.name.lower() == CORRECTED}
        return [
            file
            for file in texts
            if file.name not in corrected or file.parent.name.lower() == CORRECTED
        ]

    def faces(self) -> list[LabelledFace]:
        """Read the faces, one a file."""
        files = self.label_files(f"text of {self.kind}, NAME{ENDING}")
        images = defaultdict[str, list[Path]](list)
        for image in files_below(self.root, (".jpg",)):
            if image.parent.name.lower() == PICTURE:
                images[image.name].append(image)

        faces = []
        for file in files:
            below = [part.lower() for part in file.relative_to(self.root).parts]
            split = "test" if any(part.startswith("test") for part in below[:-1]) else "train"
            name = file.name.removesuffix(".txt")
            faces.append(
                self.read_face(file, _nearest(file, images[name], name), split, read_label)
            )
        return faces


def _nearest(file: Path, images: list[Path], name: str) -> Path:
    """Return the image of a text: the one with the most folders in common."""
    beside = file.parent.with_name(PICTURE) / name

    def common(image: Path) -> int:
        return sum(1 for parent in image.parents if parent in file.parents)

    return max(images, key=common, default=beside)
