"""Read folders of images with a `.pts` file beside each: the format of 300-W, AFW, HELEN and LFPW.

The format counts pixels from 1: 1 is subtracted on reading and added on writing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.identity import own_if_one_person, person, person_pattern, warn_of_video
from fkp.data.pts_index import PtsIndex
from fkp.data.table import FAR, FaceTable, Fault, OnBad, Source
from fkp.errors import FkpError
from fkp.files.images import IMAGE_ENDINGS
from fkp.files.reading import inside, read_bytes, text_in
from fkp.files.writing import write_whole
from fkp.markup import load_markup

# Bytes of a .pts file, at most.
MOST = 1 << 20
# A clip of 300-VW; or a photo, without the number of the face and the mark of a mirrored copy.
IDENTITY = r"(.+?)(?:/annot/\d+|(?:_\d{1,2})?(?:_mirror)?)\.(?i:pts)$"


class PtsFolders(Source):
    """All `.pts` files below a folder, each with the image of the same name.

    The image may have any format that `predict.py` reads, with an ending in any letter case. If
    there are no images beside the files, it may lie in the folder above or another folder there.

    Args:
        root: the folder; those below it are read, too. A link that leads out of it is a bad row.
        identity: regular expression; group 1 of a file's path is the person, or the photo, as the
            faces of one photo must not be shared between splits either.
        same: lists of names, as `identity` gives them, of the same photo: each list counts as its
            first name. `lfpw` is the list of `lfpw_duplicates`.
        protocol: `identity` or `strict`, which are the same here: these sets have no official test
            split.
        markup: name of a markup that comes with fkp, or path of a YAML file.
        on_bad: `stop` or `skip`.
        folds, fold: number of folds of a cross-validation by person, and the one that is tested on,
            see `Source`.
    """

    def __init__(
        self,
        root: str,
        identity: str = IDENTITY,
        same: list[list[str]] | Literal["lfpw"] | None = None,
        protocol: Literal["identity", "strict"] = "identity",
        markup: str = "ibug68",
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        self.root, self.protocol, self.on_bad = Path(root), protocol, on_bad
        self.folds, self.fold = folds, fold
        self.identity = person_pattern(identity)
        self.markup = load_markup(markup)
        groups = lfpw_duplicates() if same == "lfpw" else same or []
        self.same_as = {name: names[0] for names in groups for name in names}

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Read all faces, in the order of their paths.

        Raises:
            FkpError: the folder is missing or holds no `.pts` files, or these belong to videos
                whose frames have not been extracted.
        """
        files = PtsIndex(self.root)
        if not files.pts:
            raise FkpError(
                f"{self.root}: no .pts file in it; set data.root=… to a folder of images and .pts "
                "files"
            )
        if self.on_bad == "stop":
            files.refuse_videos()

        # Images and labels.
        paths, points, rows, faults = [], [], [], []
        for file in files.pts:
            row, images = file.relative_to(self.root).as_posix(), files.images(file)
            label, line, fault = self._read(file, images)
            if label is None:
                faults.append(Fault(row + line, fault))
            else:
                paths.append(images[0])
                points.append(label)
                rows.append(row)

        # People.
        people = [person(self.identity, row) for row in rows]
        people = [self.same_as.get(name, name) for name in people]
        labels = np.array(points).reshape(-1, len(self.markup.points), 2)
        table = FaceTable(paths, labels, people, rows)
        if self.identity.pattern == IDENTITY and not any("/annot/" in row for row in rows):
            own_if_one_person(table, self.root, IDENTITY)
        warn_of_video(table)
        return table, faults

    def _read(self, file: Path, images: list[Path]) -> tuple[np.ndarray | None, str, str]:
        """Read a file, and check it and its images.

        Returns:
            the points (K, 2); or None, the line that is wrong, as `:line`, if it is known, and what
            is wrong.
        """
        outside = next((path for path in (file, *images) if not inside(self.root, path)), None)
        if outside:
            what = f"{outside.name} leads out of {self.root}; set data.root to a folder above both"
            return None, "", what

        try:
            points = read_pts(file)
        except FkpError as error:
            line, _, what = str(error).removeprefix(str(file)).partition(": ")
            return None, line, what
        if fault := _image_fault(images) or self._fault(points):
            return None, "", fault
        return points, "", ""

    def _fault(self, points: np.ndarray) -> str:
        """Say what is wrong with the points of a file; empty if they can be used."""
        count = len(self.markup.points)
        if len(points) != count:
            return f"{len(points)} points, but {self.markup.name} has {count}; see data.markup"
        if (far := (np.abs(points) >= FAR).any(1)).any():
            return f"{self.markup.points[int(far.argmax())]} lies outside of any image"
        if (half := np.isnan(points).sum(1) == 1).any():
            return f"{self.markup.points[int(half.argmax())]} has one coordinate of two"
        return "no point is labelled" if np.isnan(points).all() else ""


def _image_fault(images: list[Path]) -> str:
    """Say what is wrong with the images of a file; empty if there is just one."""
    if not images:
        endings = ", ".join(IMAGE_ENDINGS)
        return f"no image of that name beside it ({endings}, in any letter case)"
    if len(images) > 1:
        names = ", ".join(path.name for path in images)
        return f"{len(images)} images of that name, any of which the points may belong to: {names}"
    return ""


def read_pts(file: Path) -> np.ndarray:
    """Read a `.pts` file, with or without its header.

    Returns:
        points (K, 2), IMAGE pixels.

    Raises:
        FkpError: a line that is not two numbers, another count than `n_points` says, or a header
            without braces.
    """
    points: list[tuple[float, float]] = []
    count, has_header, braces = None, False, ""
    for number, line in enumerate(text_in(read_bytes(file, MOST)).splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("{", "}"):
            braces += words[0]
        elif words[0].startswith("version"):
            has_header = True
        elif words[0].startswith("n_points"):
            has_header = True
            digits = re.search(r"[0-9]{1,9}", line)
            count = int(digits[0]) if digits else -1
        else:
            points.append(_point(file, number, line, words))

    if count not in (None, len(points)):
        raise FkpError(f"{file}: says n_points: {count}, but has {len(points)}")
    if braces != ("{}" if has_header or braces else ""):
        raise FkpError(
            f"{file}: the points must stand between one {{ and one }}, each in a line of its own"
        )
    return np.array(points, float).reshape(-1, 2)


def _point(file: Path, number: int, line: str, words: list[str]) -> tuple[float, float]:
    """Convert the words of a line to x, y, counted from 0."""
    try:
        x, y = map(float, words)
    except ValueError:
        raise FkpError(f"{file}:{number}: {line.strip()[:40]!r} is not a point x y") from None
    return x - 1, y - 1


def write_pts(file: Path, points: np.ndarray) -> None:
    """Write points (K, 2), IMAGE pixels, atomically; `read_pts` reads them."""
    lines = [f"{x + 1:.3f} {y + 1:.3f}" for x, y in points]
    header = ["version: 1", f"n_points: {len(points)}"]
    write_whole(file, "\n".join([*header, "{", *lines, "}"]) + "\n")


def lfpw_duplicates() -> list[list[str]]:
    """Return the names of LFPW's photos that show the same image, one list per image.

    LFPW was collected twice, so it holds photos under several names; `python -m fkp.doctor` found
    them by comparing images.
    """
    text = Path(__file__).with_name("lfpw_duplicates.csv").read_text(encoding="utf-8")
    return [line.split(",") for line in text.splitlines()]
