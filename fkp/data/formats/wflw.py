"""Read WFLW: lists of 98 points, a face box, six attributes and an image in each line.

Coordinates: pixels, counted from 0, as mmpose and other readers take them; the publisher does not
say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fkp.data.formats.contents import NO_BOX, LabelledFace
from fkp.data.formats.published import NOTHING, Published
from fkp.data.table import OnBad
from fkp.errors import FkpError
from fkp.files.reading import open_text

# Bytes of a list, at most: that of the training faces has 16 million.
MOST = 1 << 28
POINTS = 98
Attribute = Literal["pose", "expression", "illumination", "make-up", "occlusion", "blur"]
ATTRIBUTES = get_args(Attribute)  # in the order of the lists
NUMBERS = 2 * POINTS + 4 + len(ATTRIBUTES)  # in a line, before the image's name
# Where the lists lie below root, and their names.
LISTED = "list_98pt_rect_attr_train_test"
FOLDERS = (f"WFLW_annotations/{LISTED}", "WFLW_annotations", LISTED, ".")
LISTS = {"train": "list_98pt_rect_attr_train.txt", "test": "list_98pt_rect_attr_test.txt"}


class Wflw(Published):
    """WFLW: 7500 training and 2500 test faces with 98 points.

    Source: Wu et al., "Look at Boundary: A Boundary-Aware Face Alignment Algorithm" (2018),
    wywu.github.io/projects/LAB/WFLW.html; the format of a line is that of its README: `x0 y0 … x97
    y97 x_min_rect y_min_rect x_max_rect y_max_rect pose expression illumination make-up occlusion
    blur image_name`.

    Args:
        root: folder of `WFLW_annotations` and `WFLW_images`.
        images: folder of the images, relative to root.
        subset: one of the publisher's six test subsets: only test faces with this attribute are
            read, together with all training faces.
        identity: see `Published`; by default, the faces of one photo stay together.
        protocol: see `Published`.
        markup: see `Published`.
        boxes: see `Published`.
        on_bad: `stop` or `skip`.
        folds, fold: see `Source`.
    """

    shipped, kind = "wflw98", "WFLW"

    def __init__(
        self,
        root: str,
        images: str = "WFLW_images",
        subset: Attribute | None = None,
        identity: str = r"(.+)\.\w+$",
        protocol: Literal["official", "identity", "strict", "train"] = "official",
        markup: str | None = None,
        boxes: Literal["points", "file"] = "points",
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        super().__init__(
            root, identity, protocol, markup, boxes, on_bad, images=images, folds=folds, fold=fold
        )
        if subset not in (None, *ATTRIBUTES):
            names = ", ".join(ATTRIBUTES)
            raise FkpError(f"data.subset={subset}: there is {names}", key="data.subset")
        self.subset = subset

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        """List the lists below a folder."""
        found = []
        for name in LISTS.values():
            paths = (root / folder / name for folder in FOLDERS)
            found += [path for path in paths if path.is_file()][:1]
        return found

    def faces(self) -> list[LabelledFace]:
        """Read the faces of both lists."""
        splits = {name: split for split, name in LISTS.items()}
        faces: list[LabelledFace] = []
        for file in self.label_files(f"list of WFLW ({', '.join(splits)})"):
            faces += self._listed(file, splits[file.name])
        return faces

    def _listed(self, file: Path, split: str) -> list[LabelledFace]:
        """Read one list.

        Raises:
            FkpError: none of its lines has the format.
        """
        with open_text(file, MOST) as lines:
            rows = [(row, line) for row, line in enumerate(lines, 1) if line.strip()]
        faces = [self._face(file, row, line, split) for row, line in rows]
        if all(face and face.fault for face in faces):
            why = faces[0].fault if faces and faces[0] else "it is empty"
            raise FkpError(f"{file}: not a list of WFLW: {why}", file=file)
        return [face for face in faces if face]

    def _face(self, file: Path, row: int, line: str, split: str) -> LabelledFace | None:
        """Read one line; return None for a test face that is not in the subset."""
        where, words = f"{file.name}:{row}", line.split(maxsplit=NUMBERS)
        try:
            numbers = np.array(words[:NUMBERS], float)
            if len(words) != NUMBERS + 1 or not np.isfinite(numbers).all():
                raise ValueError
        except ValueError:
            fault = f"not {NUMBERS} numbers and the name of an image, but {len(words)} words"
            return LabelledFace(file, NOTHING, where, NO_BOX, "", split, fault)

        attributes = dict(zip(ATTRIBUTES, numbers[-len(ATTRIBUTES) :], strict=True))
        if split == "test" and self.subset and not attributes[self.subset]:
            return None
        points, box = numbers[: 2 * POINTS].reshape(POINTS, 2), numbers[2 * POINTS :][:4]
        return LabelledFace(words[-1].strip(), points, where, box, "", split)
