"""Hold what a label file says: its faces, and the names, mirror pairs and lines of its points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fkp.data.table import FAR
from fkp.errors import FkpError, one_line
from fkp.markup import Markup, load_markup

NO_BOX = (np.nan,) * 4
# With fewer videos the split is by image: train, val and test each need one that is its own.
VIDEOS = 6
# What reading raises where a file has another structure than its format.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


@dataclass
class LabelledFace:
    """One face as a label file gives it.

    Args:
        image: name of its image, as the file has it; or the Path of an image that the reader of
            the format has found itself, and which lies below root.
        points: (K, 2), IMAGE pixels, in the order of `Contents.points`; NaN where not labelled.
        row: where it was read from, `file:row`, for messages.
        box: left, top, right, bottom, IMAGE pixels; NaN if there is none.
        person: name of the person, or of the group that must not be split; empty to take it from
            the image's name.
        split: "train" or "test" of the publisher, or `fkp.data.table.EXTRA`.
        fault: what is wrong with the row, if it cannot be read.
    """

    image: str | Path
    points: np.ndarray
    row: str
    box: Sequence[float] | np.ndarray = NO_BOX
    person: str = ""
    split: str = "train"
    fault: str = ""


@dataclass
class Contents:
    """What label files say.

    Args:
        name: of the markup.
        points: K names.
        faces: all that are labelled, and those that cannot be read.
        pairs: the pairs of names that mirroring swaps; None if the format does not say.
        edges: pairs of points, as indices, that the tool joins by a line.
        file: the file that names the points, for messages.
        markup: what the points mean, if fkp has a markup of the format; the names, pairs and edges
            are then not used.
    """

    name: str
    points: list[str]
    faces: list[LabelledFace]
    pairs: list[list[str]] | None = None
    edges: list[tuple[int, int]] = field(default_factory=list)
    file: Path | None = None
    markup: Markup | None = None

    def own_markup(self) -> Markup:
        """Return the markup that the file describes.

        Raises:
            FkpError: a name, or a pair, that no markup can have.
        """
        if self.markup is not None:
            return self.markup
        try:
            lines = spans(self.edges, len(self.points))
            return Markup(self.name, self.points, pairs=self.pairs, lines=lines)
        except FkpError as error:
            what = f"{error}; rename the points where they are labelled"
            raise FkpError(what, key=error.key, file=self.file) from None

    def arranged(self, name: str) -> tuple[Contents, Markup]:
        """Arrange the points as a markup, or a YAML file, has them: matched by their names.

        If no name agrees, as where the file only numbers its points, there must be as many, and
        the order is kept. Points of the file that the markup does not have are left out.

        Raises:
            FkpError: the markup has points that the file does not have.
        """
        markup = load_markup(name)
        place = {point: i for i, point in enumerate(self.points)}
        missing = [point for point in markup.points if point not in place]
        if missing and (len(missing) < len(markup.points) or len(place) != len(missing)):
            raise FkpError(
                f"data.markup={name}: {self.file or self.name} has no point {missing[0]!r:.80}"
                f" ({len(missing)} such); its points are {', '.join(self.points)[:500]}",
                key="data.markup",
                file=self.file,
            )

        order = range(len(self.points)) if missing else [place[p] for p in markup.points]
        faces = [
            face if face.fault else replace(face, points=face.points[list(order)])
            for face in self.faces
        ]
        return replace(self, points=markup.points, faces=faces), markup


@dataclass
class NamedFace:
    """One face of a format that writes the name at each point.

    Args:
        image: as of `LabelledFace`, as the others.
        points: name -> x, y, IMAGE pixels.
        row: see there.
        box: see there.
        person: see there.
        fault: see there.
    """

    image: str | Path
    points: Mapping[str, Sequence[float]]
    row: str
    box: Sequence[float] | np.ndarray = NO_BOX
    person: str = ""
    fault: str = ""


def named_contents(name: str, faces: Sequence[NamedFace], file: Path) -> Contents:
    """Make contents of faces whose points have names; a point that a face lacks has no label.

    Names that are numbers are ordered as such, others as they were met first.

    Args:
        name: of the markup.
        faces: the faces.
        file: for messages.
    """
    names = list(dict.fromkeys(point for face in faces for point in face.points))
    if all(point.isdecimal() for point in names):
        names.sort(key=int)
    index = {point: k for k, point in enumerate(names)}

    labelled = []
    for face in faces:
        points = np.full((len(names), 2), np.nan)
        for point, place in face.points.items():
            points[index[point]] = place
        labelled.append(
            LabelledFace(face.image, points, face.row, face.box, face.person, fault=face.fault)
        )
    return Contents(name, names, labelled, file=file)


def keep_videos_together(faces: Sequence[LabelledFace] | Sequence[NamedFace]) -> None:
    """Keep the frames of one video in one split, if there are enough videos for three splits.

    Args:
        faces: `person` names their video; it is emptied if there are too few.
    """
    if len({face.person for face in faces}) < VIDEOS:
        for face in faces:
            face.person = ""


def spans(edges: Iterable[tuple[int, int]], count: int) -> dict[str, list[list[int]]]:
    """Convert edges between points to the lines of a markup, which join consecutive points.

    Other edges are left out.

    Args:
        edges: pairs of indices, in any order and direction.
        count: of the points.

    >>> spans([(1, 0), (1, 2), (4, 3), (4, 5), (3, 5), (0, 5)], 6)
    {'open': [[0, 2]], 'ring': [[3, 5]]}
    """
    known = {(min(edge), max(edge)) for edge in edges}
    lines: dict[str, list[list[int]]] = {"open": [], "ring": []}

    first = 0
    for last in range(count):
        if (last, last + 1) in known:
            continue
        if last > first:
            # A closing edge makes a ring, but of two points it is the same edge.
            kind = "ring" if last > first + 1 and (first, last) in known else "open"
            lines[kind].append([first, last])
        first = last + 1
    return {kind: found for kind, found in lines.items() if found}


def malformed(error: Exception) -> str:
    """Describe an error of `MALFORMED`: a missing key has no other words than its name."""
    return f"no {error}" if isinstance(error, KeyError) else one_line(error)


def fault(face: LabelledFace, names: Sequence[str], boxed: bool = True) -> str:
    """Say what is wrong with the numbers of a face; empty if they can be used.

    Args:
        face: as the file gives it.
        names: of the points.
        boxed: whether its box will be used.
    """
    points, box = face.points, np.asarray(face.box, float)
    if face.fault:
        return face.fault
    if points.shape != (len(names), 2):
        return f"{len(points)} points, but there must be {len(names)}"
    if (far := ~(np.abs(points) < FAR) & ~np.isnan(points)).any():
        return f"{names[int(far.any(1).argmax())]} lies outside of any image"
    if (half := np.isnan(points).sum(1) == 1).any():
        return f"{names[int(half.argmax())]} has one coordinate of two"
    if np.isnan(points).all():
        return "no point is labelled"
    if boxed and np.isfinite(box).all() and (box[2:] <= box[:2]).any():
        return "its box has no area"
    return ""
