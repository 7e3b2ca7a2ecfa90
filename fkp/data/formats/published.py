"""Read data sets as their publishers ship them: what their formats have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from fkp.data.formats.base import LabelFormat
from fkp.data.formats.contents import NO_BOX, Contents, LabelledFace
from fkp.data.identity import person
from fkp.data.pts_folders import lfpw_duplicates
from fkp.data.table import OnBad
from fkp.errors import FkpError
from fkp.files.reading import inside, read_bytes, text_in
from fkp.markup import load_markup

# Bytes of a text with the points of one face, at most.
MOST = 1 << 16
NOTHING = np.zeros((0, 2))
Reader = Callable[[Path], np.ndarray]
# Photos of 300-W in the names of the sets that were made from it: the name without the number of
# the face, of the rendered pose and of the mirrored copy.
PHOTO = (
    r"(?:.*/)?((?:AFW|HELEN)_[0-9]+|IBUG_image_[0-9]+|LFPW_image_(?:train|test)_[0-9]+|[^/]+?)"
    r"(?:_[0-9]+)*\.\w+(?:\.txt)?$"
)


class Published(LabelFormat):
    """A data set in its publisher's layout and format; a subclass reads its files, in `faces`.

    Args:
        root: folder of the data set.
        identity: regular expression; group 1 of an image's path below root is the person, or the
            photo. The whole path is the person if the expression does not match.
        protocol: the rule that splits the faces; `official` and `strict` need a publisher's test
            split; `train`, as a source of `Joined`, is for training only.
        markup: name of a markup that comes with fkp, or path of a YAML file: it chooses and orders
            the points by their names. None takes the data set's own.
        boxes: `points` measures the face boxes around the points; `file` takes those of the data
            set, which must all follow the convention of the detector.
        on_bad: `stop` or `skip`.
        folds, fold: see `Source`.
        images: folder of the images, relative to root, where the data set names one.
    """

    # The markup of the data set, and what it is called in messages.
    shipped: ClassVar[str]
    kind: ClassVar[str]

    def __init__(
        self,
        root: str,
        identity: str,
        protocol: Literal["official", "identity", "strict", "train"] = "identity",
        markup: str | None = None,
        boxes: Literal["points", "file"] = "points",
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
        images: str | None = None,
    ):
        super().__init__(
            root, None, images, identity, protocol, markup, boxes, on_bad, folds=folds, fold=fold
        )
        if markup is None:
            # The meaning of the points is known before any file is read.
            self.markup = load_markup(self.shipped)

    @abstractmethod
    def faces(self) -> list[LabelledFace]:
        """Read all faces of the data set.

        Raises:
            FkpError: its files are missing, or are not of this format.
        """

    def contents(self) -> Contents:
        """Read the data set."""
        markup = load_markup(self.shipped)
        faces = self.faces()
        if self.protocol in ("official", "strict") and not any(f.split == "test" for f in faces):
            raise FkpError(
                f"data.protocol={self.protocol}: {self.root} has no test split of {self.kind}; "
                "take data.protocol=identity",
                key="data.protocol",
                file=self.root,
            )
        return Contents(markup.name, markup.points, faces, file=self.root, markup=markup)

    def label_files(self, kind: str) -> list[Path]:
        """List the label files, all of which the layout names: there is no `data.file`."""
        try:
            return super().label_files(kind)
        except FkpError as error:
            if error.key != "data.file":
                raise
            what = f"{self.root}: no {kind} below it; set data.root to the folder of {self.kind}"
            raise FkpError(what, key="data.root", file=self.root) from None

    def face(
        self, label: Path, points: np.ndarray, image: Path, split: str = "train", fault: str = ""
    ) -> LabelledFace:
        """Return the face of a label file that has one face.

        Args:
            label: the label file.
            points: (K, 2), IMAGE pixels.
            image: the image file.
            split: of the publisher.
            fault: what is wrong with the label file.
        """
        if not fault and not inside(self.root, image):
            fault = f"{self.below(image)} leads out of {self.root}; set data.root to a folder above"
        who = person(self.identity, self.below(image))
        who = _same_photos().get(who, who)
        return LabelledFace(image, points, self.below(label), NO_BOX, who, split, fault)

    def read_face(self, label: Path, image: Path, split: str, reader: Reader) -> LabelledFace:
        """Read a label file that has one face; what is wrong with it is the face's fault.

        Args:
            label: the label file.
            image: the image file.
            split: of the publisher.
            reader: returns the points of a file (K, 2), IMAGE pixels, or raises an FkpError.
        """
        try:
            return self.face(label, reader(label), image, split)
        except FkpError as error:
            what = str(error).removeprefix(f"{label}: ")
            return self.face(label, NOTHING, image, split, what)

    def below(self, path: Path) -> str:
        """Return a path relative to root, for messages."""
        return path.relative_to(self.root).as_posix()


def read_points(file: Path, count: int, header: int = 1) -> np.ndarray:
    """Read a text with one point, `x y`, a line.

    Args:
        file: the text.
        count: of the points.
        header: lines before the points.

    Returns:
        (count, 2), as the file has them.

    Raises:
        FkpError: as `fkp.files.reading.read_bytes`; a line that is not two numbers, or another
            number of points.
    """
    lines = text_in(read_bytes(file, MOST)).splitlines()
    points = []
    for row, line in enumerate(lines[header:], header + 1):
        if not line.strip():
            continue
        try:
            x, y = map(float, line.split())
        except ValueError:
            what = f"{file}:{row}: not two numbers: {line.strip()[:60]!r}"
            raise FkpError(what, file=file, row=row) from None
        points.append((x, y))
    if len(points) != count:
        raise FkpError(f"{file}: {len(points)} points, but there must be {count}", file=file)
    return np.array(points)


@cache
def _same_photos() -> dict[str, str]:
    """Map the names of photos that LFPW has several times, as in 300W-LP, to the first of each."""
    names = [
        [name.replace("lfpw/", "LFPW_").replace("image_", "image_train_") for name in same]
        for same in lfpw_duplicates()
    ]
    return {name: same[0] for same in names for name in same}
