"""Read labels of any format into a table of faces: images, people, faults and markup are common."""

from __future__ import annotations

import os
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
# Label files of a folder, at most; and those that a message names.
MOST, SHOWN = 1 << 20, 3


class LabelFormat(Source):
    """Labels in one format; a subclass reads the files, in `contents`.

    Args:
        root: folder of the labels.
        file: name of the label file, relative to root, or a pattern such as `annotations/*.json`;
            None for the only one that there is, or for all, where the format has many.
        images: folder of the images, relative to root; None for `images` or root itself. A name
            that leads out of it is a bad row; for names of missing files see
            `fkp.data.image_folder`.
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
        folds, fold: see `Source`.
    """

    def __init__(
        self,
        root: str,
        file: str | None = None,
        images: str | None = None,
        identity: str = IDENTITY,
        protocol: Literal["official", "identity", "strict", "train"] = "identity",
        markup: str | None = None,
        boxes: Literal["points", "file"] = "points",
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        self.root, self.file, self.images = Path(root), file, images
        self.protocol, self.boxes, self.on_bad = protocol, boxes, on_bad
        self.folds, self.fold = folds, fold
        self.identity = person_pattern(identity)
        self.markup_name = markup
        self._contents: Contents | None = None

    @abstractmethod
    def contents(self) -> Contents:
        """Read the label files.

        Raises:
            FkpError: they are missing, or are not of this format.
        """

    @classmethod
    @abstractmethod
    def recognise(cls, root: Path) -> list[Path]:
        """List the label files of this format in a folder."""

    def read_markup(self) -> Markup:
        """Read the files, whose faces the next survey then has."""
        self._contents, markup = self._read()
        return markup

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Read all faces.

        Raises:
            FkpError: as `contents`; or no image can be found, or the markup has other points.
        """
        # The files are read once for the markup and the faces, which are not kept.
        markup = self.markup
        contents = self._contents or self._read()[0]
        self._contents = None
        if not contents.faces:
            what = "no face is labelled in it"
            raise FkpError(f"{contents.file or self.root}: {what}", file=contents.file)
        if len(contents.points) != len(markup.points):
            what = f"{contents.file or self.root}: changed since its markup was read"
            raise FkpError(what, file=contents.file)

        faces, paths, faults, searched = self._usable(contents)
        people = [face.person or self._person(face) for face in faces]
        boxes = [face.box if self.boxes == "file" else NO_BOX for face in faces]
        count = len(markup.points)

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
        return table, faults + clashes

    def _read(self) -> tuple[Contents, Markup]:
        """Read the files, and arrange the points as the markup has them."""
        if not self.root.is_dir():
            raise FkpError(f"data.root={self.root}: no such folder", key="data.root")
        contents = self.contents()
        if self.markup_name is None:
            return contents, contents.own_markup()
        return contents.arranged(self.markup_name)

    def _usable(
        self, contents: Contents
    ) -> tuple[list[LabelledFace], list[Path], list[Fault], dict[str, str]]:
        """Find the images of the faces.

        Returns:
            the faces that can be used, the path of each one's image, the faults of the others, and
            for the rows whose image was found by search, its name in the file.
        """
        faces, paths, faults, searched = [], [], [], {}
        sample = [_name(face.image, self.root) for face in contents.faces[:SAMPLE]]
        folder: ImageFolder | None = None
        for face in contents.faces:
            if what := fault(face, contents.points, self.boxes == "file"):
                faults.append(Fault(face.row, what))
                continue

            if isinstance(face.image, Path):
                missing = f"no image {face.image}"
                found = (face.image, False) if face.image.is_file() else missing
            else:
                folder = folder or self._folder(sample)
                found = self._find(folder, face.image)
            if isinstance(found, str):
                faults.append(Fault(face.row, found))
                continue

            path, by_search = found
            if by_search:
                searched[face.row] = _name(face.image, self.root)
            faces.append(face)
            paths.append(path)
        return faces, paths, faults, searched

    def _person(self, face: LabelledFace) -> str:
        """Return the person that an image's name says."""
        name = _name(face.image, self.root)
        return person(self.identity, self.alternatives(name)[-1])

    def _find(self, folder: ImageFolder, name: str) -> tuple[Path, bool] | str:
        """Find an image by any of its names, as `ImageFolder.find` does; search comes last."""
        tried = [folder.find(other) for other in dict.fromkeys(self.alternatives(name))]
        found = [one for one in tried if not isinstance(one, str)]
        return min(found, key=lambda one: one[1]) if found else tried[0]

    def alternatives(self, name: str) -> list[str]:
        """Return the names under which an image may lie in the folder; the last is its own."""
        return [name]

    def _folder(self, names: list[str]) -> ImageFolder:
        """Return the folder in which some of the names are images."""
        folders = [self.images] if self.images is not None else ["images", "."]
        folders = [name for name in folders if (self.root / name).is_dir()] or folders[:1]
        holding = [f for f in folders if any(os.path.isfile(self.root / f / n) for n in names)]
        return ImageFolder(self.root, (holding or folders)[0], names)

    def label_files(self, kind: str) -> list[Path]:
        """List the label files: those that are named, or all that are recognised.

        Args:
            kind: what they should be, for messages.

        Raises:
            FkpError: there is none, or one leads out of root.
        """
        try:
            found = sorted(self.root.glob(self.file)) if self.file else self.recognise(self.root)
        except (ValueError, NotImplementedError) as error:  # an empty pattern, or an absolute one
            raise FkpError(f"data.file={self.file}: {error}", key="data.file") from None
        if not found:
            name = (
                f"{self.root / self.file}: no such file" if self.file else f"{self.root}: no {kind}"
            )
            raise FkpError(f"{name}; set data.root and data.file", key="data.file", file=self.root)
        for path in found:
            if not inside(self.root, path):
                what = f"{path}: leads out of {self.root}"
                raise FkpError(what, key="data.root", file=path)
        return found

    def label_file(self, kind: str) -> Path:
        """Return the only label file.

        Raises:
            FkpError: as `label_files`, or there are several.
        """
        found = self.label_files(kind)
        if len(found) > 1:
            names = ", ".join(path.relative_to(self.root).as_posix() for path in found[:SHOWN])
            what = f"{self.root}: {len(found)} files are {kind}; set data.file to one of {names}"
            raise FkpError(what, key="data.file", file=self.root)
        return found[0]


def _name(image: str | Path, root: Path) -> str:
    """Return the name that identifies an image on every computer."""
    if isinstance(image, str):
        return image
    if image.is_relative_to(root):
        return image.relative_to(root).as_posix()
    return "/".join(image.parts[-2:])


def files_below(root: Path, endings: tuple[str, ...]) -> list[Path]:
    """List the files below a folder with one of some endings, in order, at most `MOST`."""
    found: list[Path] = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        found += [Path(place) / name for name in sorted(files) if name.lower().endswith(endings)]
        if len(found) > MOST:
            raise FkpError(f"{root}: more than {MOST} files {', '.join(endings)}", file=root)
    return found
