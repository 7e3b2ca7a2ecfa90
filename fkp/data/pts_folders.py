"""Folders of pictures with a `.pts` file beside each, the format of 300-W, AFW, HELEN and LFPW."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.identity import own_if_one_person, person, person_pattern, warn_of_video
from fkp.data.table import FAR, FaceTable, Fault, OnBad, Source
from fkp.errors import FkpError
from fkp.files.images import IMAGE_ENDINGS, VIDEO_ENDINGS
from fkp.files.reading import inside, read_bytes, text_in
from fkp.markup import load_markup

MOST = 1 << 20  # bytes of a file
# A clip of 300-VW; or a photo, without the number of the face on it and the mark of a mirrored copy.
IDENTITY = r"(.+?)(?:/annot/\d+|(?:_\d{1,2})?(?:_mirror)?)\.(?i:pts)$"


class PtsFolders(Source):
    """Every `.pts` file below a folder, with the picture of the same name.

    It may be of any kind that `predict.py` reads, with an ending in small or large letters. If there are no pictures
    beside the files, it may lie in the folder above or in another folder there.

    Args:
        root: the folder; those below it are read too. A link that leads out of it is a bad row.
        identity: regular expression; group 1 of a file's name is the person, or the photo, as faces of one photo
            should not be shared between parts either.
        same: names, as `identity` gives them, of photos that are one: each list counts as its first.
        protocol: `identity`, which is `strict` too; these sets come without a publisher's test part of their own.
        markup: name of a markup that comes with fkp, or path of a YAML file.
        on_bad: `stop` or `skip`.
    """

    def __init__(
        self,
        root: str,
        identity: str = IDENTITY,
        same: list[list[str]] | None = None,
        protocol: Literal["identity", "strict"] = "identity",
        markup: str = "ibug68",
        on_bad: OnBad = "stop",
    ):
        self.root, self.protocol, self.on_bad, self.identity = (
            Path(root),
            protocol,
            on_bad,
            person_pattern(identity),
        )
        self.markup = load_markup(markup)
        self.one = {name: names[0] for names in same or [] for name in names}

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """All faces, in the order of their paths.

        Raises:
            FkpError: no such folder, nothing in it, or videos whose frames have not been extracted.
        """
        files = _Files(self.root)
        if not files.pts:
            raise FkpError(
                f"{self.root}: no .pts file in it; set data.root=… to a folder of pictures and .pts files"
            )
        if self.on_bad == "stop":
            files.refuse_videos()

        paths, points, rows, faults = [], [], [], []
        for file in files.pts:
            row, images = file.relative_to(self.root).as_posix(), files.images(file)
            found, where, what = self._face(file, images)
            if found is None:
                faults.append(Fault(row + where, what))
            else:
                paths.append(images[0])
                points.append(found)
                rows.append(row)

        people = [person(self.identity, row) for row in rows]
        people = [self.one.get(name, name) for name in people]
        table = FaceTable(
            paths, np.array(points).reshape(-1, len(self.markup.points), 2), people, rows
        )
        if self.identity.pattern == IDENTITY and not any("/annot/" in row for row in rows):
            own_if_one_person(table, self.root, IDENTITY)
        warn_of_video(table)
        return table, faults

    def _face(self, file: Path, images: list[Path]) -> tuple[np.ndarray | None, str, str]:
        """The points (K, 2); or None, the line that is wrong, and what is wrong with the file or its images."""
        if out := next((path for path in (file, *images) if not inside(self.root, path)), None):
            return (
                None,
                "",
                f"{out.name} leads out of {self.root}; set data.root to a folder above both",
            )
        try:
            found = read_pts(file)
        except FkpError as error:
            where, _, what = str(error).removeprefix(str(file)).partition(": ")
            return None, where, what
        fault = self._fault(found)
        if not images:
            fault = f"no picture of that name beside it ({', '.join(IMAGE_ENDINGS)}, in small or large letters)"
        elif len(images) > 1:
            fault = (
                f"{len(images)} images of that name, and it is not said whose points these are: "
            )
            fault += ", ".join(path.name for path in images)
        return (None if fault else found), "", fault

    def _fault(self, points: np.ndarray) -> str:
        """What is wrong with the points of a file; nothing if they can be used."""
        if len(points) != len(self.markup.points):
            return f"{len(points)} points, but {self.markup.name} has {len(self.markup.points)}; see data.markup"
        if (far := (np.abs(points) >= FAR).any(1)).any():
            return f"{self.markup.points[int(far.argmax())]} is at a place in no picture"
        if (half := np.isnan(points).sum(1) == 1).any():
            return f"{self.markup.points[int(half.argmax())]} has one coordinate of two"
        return "no point is labelled" if np.isnan(points).all() else ""


class _Files:
    """The `.pts` files below a folder, and the images that are beside them.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path):
        self.pts: list[Path] = []
        self._images = defaultdict[Path, dict[str, list[Path]]](
            dict
        )  # folder -> stem, as `_key` -> files
        self._videos = defaultdict[Path, list[Path]](list)
        self._labelled: set[Path] = set()  # folders with .pts files
        self._folders = defaultdict[Path, list[Path]](list)
        for place, folders, files in os.walk(root):
            here = Path(place)
            folders[:] = sorted(name for name in folders if name != "__MACOSX")
            self._folders[here] = [here / name for name in folders]
            for name in (*folders, *files):
                if not name.startswith("._"):  # what macOS puts beside a file
                    self._add(here, here / name)
        self.pts.sort()

    def _add(self, folder: Path, file: Path) -> None:
        ending = file.suffix.lower()
        if ending == ".pts":
            self.pts.append(file)
            self._labelled.add(folder)
        elif ending in IMAGE_ENDINGS and file.is_file():
            self._images[folder].setdefault(_key(file.stem), []).append(file)
        elif ending in VIDEO_ENDINGS:
            self._videos[folder].append(file)

    def images(self, pts: Path) -> list[Path]:
        """The images that a .pts file may belong to: of the same name beside it, whatever their kind and letter case;
        or, if it lies among no images, in the folder above and those beside, as far as they have no .pts files."""
        places = [pts.parent]
        if pts.parent not in self._images:
            places = [pts.parent.parent, *self._folders.get(pts.parent.parent, [])]
            places = [place for place in places if place not in self._labelled]
        same = [
            path for place in places for path in self._images.get(place, {}).get(_key(pts.stem), [])
        ]
        exact = [path for path in same if path.stem == pts.stem]
        named = self._images.get(pts.parent, {}).get(
            _key(Path(pts.stem).stem), []
        )  # a.jpg and a.jpg.pts
        return exact or same or [path for path in named if path.name == pts.stem]

    def refuse_videos(self) -> None:
        """Stop if .pts files belong to the frames of a video, as in 300-VW, and these are no image files yet.

        Raises:
            FkpError: how to extract them.
        """
        clips = defaultdict[Path, list[Path]](list)
        for file in self.pts:
            clips[file.parent].append(file)
        bare = {
            folder: videos[0]
            for folder, some in clips.items()
            if (videos := self._videos.get(folder) or self._videos.get(folder.parent))
            and not any(map(self.images, some))
        }
        if not bare:
            return
        folder, video = next(iter(bare.items()))
        stem = clips[folder][0].stem
        digits, start = len(stem), int(stem == "0" * len(stem)) ^ 1
        command = (
            f"ffmpeg -i {shlex.quote(str(video))} -fps_mode passthrough -start_number {start} "
        )
        command += shlex.quote(f"{folder}/%0{digits}d.png")
        raise FkpError(
            f"{folder}: .pts files of the frames of {video.name}, but no images ({len(bare)} such videos in all); "
            f"extract the frames of each video beside its .pts files and under their names, here by: {command}"
        )


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", stem).casefold()


def read_pts(file: Path) -> np.ndarray:
    """Points (K, 2), IMAGE pixels, of a `.pts` file, with or without its header.

    The format counts pixels from 1, so 1 is subtracted.

    Raises:
        FkpError: a line that is not two numbers, by its number, another count than `n_points` says, or a header
            without braces.
    """
    points: list[tuple[float, float]] = []
    said, heads, braces = None, False, ""
    for number, line in enumerate(text_in(read_bytes(file, MOST)).splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("{", "}"):
            braces += words[0]
        elif words[0].startswith("version"):
            heads = True
        elif words[0].startswith("n_points"):
            digits = re.search(r"[0-9]{1,9}", line)
            said = int(digits[0]) if digits else -1
        else:
            points.append(_point(file, number, line, words))
    if said not in (None, len(points)):
        raise FkpError(f"{file}: says n_points: {said}, but has {len(points)}")
    if braces != ("{}" if heads or braces or said is not None else ""):
        raise FkpError(
            f"{file}: the points must stand between one {{ and one }}, each in a line of its own"
        )
    return np.array(points, float).reshape(-1, 2)


def _point(file: Path, number: int, line: str, words: list[str]) -> tuple[float, float]:
    try:
        x, y = map(float, words)
    except ValueError:
        raise FkpError(f"{file}:{number}: {line.strip()[:40]!r} is not a point x y") from None
    return x - 1, y - 1


def write_pts(file: Path, points: np.ndarray) -> None:
    """Write points (K, 2), IMAGE pixels; `read_pts` reads them back."""
    lines = [f"{x + 1:.3f} {y + 1:.3f}" for x, y in points]
    file.write_text(
        "\n".join(["version: 1", f"n_points: {len(points)}", "{", *lines, "}"]) + "\n",
        encoding="utf-8",
    )
