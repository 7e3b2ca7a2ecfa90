"""Read labels of any format into a table of faces: images, people, faults and markup are common."""

from __future__ import annotations

import logging
from abc import abstractmethod
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.formats.contents import NO_BOX, Contents, LabelledFace, fault
from fkp.data.identity import own_if_one_person, person, person_pattern, warn_of_video
from fkp.data.image_folder import ImageFolder, without_clashes
from fkp.data.table import FaceTable, Fault, OnBad, Source
from fkp.errors import FkpError
from fkp.files.reading import inside
from fkp.markup import Markup

IDENTITY = r"(.+)_\d+\.\w+$"
# Names of images by which a folder is recognised.
SAMPLE = 32

log = logging.getLogger(__name__)


class LabelFormat(Source):
    """Labels in one format; a subclass reads the files, in `contents`.

    Args:
        root: folder of the labels.
        file: name of the label file, relative to root; None for the only one that there is.
        images: folder of the images, relative to root. If it is missing: root, or the only folder
            in it with images. A name that leads out of it is a bad row; for names of missing files
            see `fkp.data.image_folder`.
        identity: regular expression; group 1 of an image's name is the person, where the format
            does not say it. The whole name is the person if the expression does not match, or if
            the default would make most of the set one person.
        protocol: `identity`; `official` and `strict` need a format with a publisher's test split;
            `train`, as a source of `Joined`, is for training only.
        markup: name of a markup that comes with fkp, or path of a YAML file: it chooses and orders
            the points by their names. None takes the markup from the file.
        boxes: `points` measures the face boxes around the points; `file` takes those of the file,
            which must all follow the convention of the detector.
        on_bad: `stop` or `skip`.
    """

    def __init__(
        self,
        root: str,
        file: str | None = None,
        images: str = "images",
        identity: str = IDENTITY,
        protocol: Literal["official", "identity", "strict", "train"] = "identity",
        markup: str | None = None,
        boxes: Literal["points", "file"] = "points",
        on_bad: OnBad = "stop",
    ):
        self.root, self.file, self.images = Path(root), file, images
        self.protocol, self.boxes, self.on_bad = protocol, boxes, on_bad
        self.identity = person_pattern(identity)
        self.markup_name = markup
        self._contents: Contents | None = None
        self._markup: Markup | None = None

    @abstractmethod
    def contents(self) -> Contents:
        """Read the label files below root.

        Raises:
            FkpError: they are missing, or are not of this format.
        """

    @property
    def markup(self) -> Markup:  # type: ignore[override]
        """Return the meaning of the points; the first call may read the files."""
        if self._markup is None:
            self._contents = self._read()
        assert self._markup is not None
        return self._markup

    @markup.setter
    def markup(self, markup: Markup) -> None:
        """Replace the markup by one that has been completed by what was measured."""
        self._markup = markup

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Read all faces.

        Raises:
            FkpError: as `contents`; or no image can be found, or the markup has other points.
        """
        contents = self._contents or self._read()
        self._contents = None
        if not contents.faces and not contents.faults:
            what = "no face is labelled in it"
            raise FkpError(f"{contents.file or self.root}: {what}", file=contents.file)

        faces, paths, faults, searched = self._usable(contents)
        people = [face.person or person(self.identity, _name(face)) for face in faces]
        boxes = [face.box if self.boxes == "file" else NO_BOX for face in faces]
        count = len(contents.points)

        table = FaceTable(
            paths,
            np.array([face.points for face in faces], float).reshape(-1, count, 2),
            people,
            [face.row for face in faces],
            [face.split for face in faces],
            np.array(boxes, float).reshape(-1, 4),
        )
        table, clashes = without_clashes(table, searched)
        if self.identity.pattern == IDENTITY and not any(face.person for face in faces):
            own_if_one_person(table, self.root, IDENTITY)
        warn_of_video(table)
        return table, contents.faults + faults + clashes

    def _read(self) -> Contents:
        """Read the files once, and arrange the points as the markup has them."""
        if not self.root.is_dir():
            raise FkpError(f"data.root={self.root}: no such folder", key="data.root")
        contents = self.contents()
        if self.markup_name is None:
            markup = contents.own_markup()
        else:
            contents, markup = contents.arranged(self.markup_name)
        # A second survey must not undo what was measured.
        self._markup = self._markup or markup
        return contents

    def _usable(
        self, contents: Contents
    ) -> tuple[list[LabelledFace], list[Path], list[Fault], dict[str, str]]:
        """Find the images of the faces.

        Returns:
            the faces that can be used, the path of each one's image, the faults of the others, and
            for the rows whose image was found by search, its name in the file.
        """
        faces, paths, faults, searched = [], [], [], {}
        folder: ImageFolder | None = None
        for face in contents.faces:
            path, what = face.image, fault(face, contents.points)
            if isinstance(path, str):
                if folder is None:
                    sample = [_name(other) for other in contents.faces[:SAMPLE]]
                    folder = ImageFolder(self.root, self.images, sample)
                found = folder.find(path)
                if isinstance(found, str):
                    what = found
                else:
                    path, by_search = found
                    if by_search:
                        searched[face.row] = _name(face)

            if what:
                faults.append(Fault(face.row, what))
                searched.pop(face.row, None)
            else:
                faces.append(face)
                paths.append(Path(path))
        return faces, paths, faults, searched

    def label_file(self, pattern: str, kind: str) -> Path:
        """Return the label file: the one that is named, or the only one that fits a pattern.

        Args:
            pattern: of names in root, such as `*.json`.
            kind: what the file should be, for messages.

        Raises:
            FkpError: there is none, or there are several.
        """
        found = [self.root / self.file] if self.file else sorted(self.root.glob(pattern))
        if len(found) != 1 or not found[0].is_file():
            names = ", ".join(path.name for path in found[:3] if path.is_file())
            fix = f"data.file may be {names}" if names else "set data.file to it"
            missing = found[0].name if len(found) == 1 else pattern
            what = f"several files may be {kind}" if len(found) > 1 else f"no {kind} {missing}"
            raise FkpError(f"{self.root}: {what}; {fix}", key="data.file", file=self.root)
        if not inside(self.root, found[0]):
            raise FkpError(f"{found[0]} leads out of {self.root}", key="data.file", file=found[0])
        return found[0]


def _name(face: LabelledFace) -> str:
    return str(face.image)
