"""Derive the person of each face from file names, and detect frames of one video."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fkp.data.columns import Texts
from fkp.data.table import FaceTable, evenly_spaced
from fkp.errors import FkpError
from fkp.files.images import BYTES, header
from fkp.files.reading import read_bytes

# The default pattern is not believed if one person has more than this fraction of the faces, of
# which there are at least so many.
MOST, FEW = 0.5, 10
# Pairs of neighbouring files that are compared, and the least number that suffices for a warning.
PAIRS, FEWEST = 24, 8
# Differences between the numbers of neighbouring files.
STEPS = (1, 2, 3, 4, 5, 10)
# Pixels: side of the thumbnails that are compared, and the side from which an image is decoded at
# an eighth of its size.
THUMBNAIL, LARGE = 16, 512
# Frames of a video: neighbours differ by less than this fraction of the difference between other
# files, or by less than so many gray levels.
ALIKE, SAME = 0.4, 2.0
# The last number of a file's stem.
NUMBER = re.compile(r"\d{1,18}(?=\D*$)")

log = logging.getLogger(__name__)


def person_pattern(expression: str) -> re.Pattern[str]:
    """Compile `data.identity`.

    Raises:
        FkpError: it is not a regular expression, or has no group.
    """
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise FkpError(f"data.identity={expression}: not a regular expression ({error})") from None
    if not pattern.groups:
        raise FkpError(
            f"data.identity={expression}: put brackets around the person in the file name: (…)"
        )
    return pattern


def person(pattern: re.Pattern[str], name: str) -> str:
    """Return group 1 of a name; the whole name if it does not match."""
    match = pattern.match(name)
    return (match and match.group(1)) or name


def own_if_one_person(table: FaceTable, root: Path, pattern: str) -> None:
    """Make each file its own person if the pattern takes most files for one person.

    This is so for IMG_0001.jpg, IMG_0002.jpg, …

    Args:
        table: faces whose identity comes from file names; changed in place.
        root: folder relative to which the files are then named.
        pattern: the default of `identity`, for the warning.
    """
    most = _majority(table.identity)
    faces = [i for i, name in enumerate(table.identity) if name == most]
    if len(table) < FEW or len(faces) <= MOST * len(table):
        return

    # Several faces on a single image are one person.
    if len({str(table.paths[i]) for i in faces[:PAIRS]}) < 2:
        return

    names = (Path(os.path.relpath(path, root)).as_posix() for path in table.paths)
    table.identity = Texts.of(names, str)
    log.warning(
        "data.identity=%s takes %d of %d faces for one person, %r, which is unlikely: each file "
        "counts as its own person. If files share persons, set data.identity to a regular "
        "expression whose group 1 is the person",
        pattern,
        len(faces),
        len(table),
        most,
    )


def warn_of_video(table: FaceTable) -> None:
    """Warn if neighbouring files look like frames of a video, but count as different persons."""
    pairs = list(_neighbours(table))
    if len(pairs) < FEWEST:
        return

    # Thumbnails of both files of each pair, (n, 2, 16, 16).
    both = [(_thumbnail(first), _thumbnail(second)) for first, second in pairs]
    readable = [pair for pair in both if pair[0] is not None and pair[1] is not None]
    if len(readable) < FEWEST:
        return
    seen = np.array(readable, float)

    # The difference of neighbours, and of each file to one far away.
    first, second = seen[:, 0], seen[:, 1]
    far_away = np.roll(first, len(first) // 2, 0)
    near = float(np.median(np.abs(first - second).mean((1, 2))))
    apart = float(np.median(np.abs(first - far_away).mean((1, 2))))
    if near < max(ALIKE * apart, SAME):
        log.warning(
            "neighbouring files, such as %s and %s, look like frames of one video, but count as "
            "different persons. They may fall into train and test, which makes the test score too "
            "good. Set data.identity to a regular expression whose group 1 is the same for all "
            "frames of a video, or add a column identity",
            pairs[0][0].name,
            pairs[0][1].name,
        )


def _majority(names: Texts[str]) -> str:
    """Return the name that more than half of them are, if there is one; else any.

    Source: Boyer and Moore, "MJRTY: A Fast Majority Vote Algorithm" (1991).
    """
    candidate, votes = "", 0
    for name in names:
        if votes == 0:
            candidate = name
        votes += 1 if name == candidate else -1
    return candidate


def _neighbours(table: FaceTable) -> Iterator[tuple[Path, Path]]:
    """Yield pairs of files with close numbers, where each file is a person of its own."""
    if not len(table):
        return
    for i in evenly_spaced(len(table), PAIRS):
        path = table.paths[i]
        number = NUMBER.search(path.stem)
        if number is None or path.stem not in table.identity[i]:
            continue
        for step in STEPS:
            other = _numbered_sibling(path, number, step)
            if os.path.isfile(other):
                yield path, other
                break


def _numbered_sibling(path: Path, number: re.Match[str], step: int) -> Path:
    """Return the path with the number in its stem increased by `step`, with the same digits."""
    digits = str(int(number[0]) + step).zfill(len(number[0]))
    stem = path.stem[: number.start()] + digits + path.stem[number.end() :]
    return path.with_name(stem + path.suffix)


def _thumbnail(path: Path) -> np.ndarray | None:
    """Return the image, small and gray, (16, 16); None if it cannot be read."""
    try:
        data = read_bytes(path, BYTES)
        with header(data) as image:
            small = min(image.size) < LARGE
        flag = cv2.IMREAD_GRAYSCALE if small else cv2.IMREAD_REDUCED_GRAYSCALE_8
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except (FkpError, cv2.error):
        return None
    if pixels is None:
        return None
    return cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
