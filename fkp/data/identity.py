"""Who is on each image, as file names tell; and whether neighbouring files are frames of one video."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fkp.data.columns import Texts
from fkp.data.table import FaceTable
from fkp.errors import FkpError
from fkp.files.images import BYTES, header
from fkp.files.reading import read_bytes

MOST = (
    0.5  # share of the faces that one person has at most, if the default pattern is to be believed
)
FEW = 10  # faces, of which most may well be one person
PAIRS, FEWEST = (
    24,
    8,
)  # pairs of neighbouring files that are compared, and below which nothing is said
STEPS = (1, 2, 3, 4, 5, 10)  # between the numbers of neighbouring files
THUMBNAIL, LARGE = (
    16,
    512,
)  # pixels: side of what is compared, and images that are decoded at an eighth of their size
ALIKE, SAME = (
    0.4,
    2.0,
)  # neighbours differ less than this share of what others do, or than so many gray levels
NUMBER = re.compile(r"\d{1,18}(?=\D*$)")

log = logging.getLogger(__name__)


def person_pattern(expression: str) -> re.Pattern[str]:
    """Compile `data.identity`.

    Raises:
        FkpError: it is no regular expression, or has no group.
    """
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise FkpError(f"data.identity={expression}: not a regular expression ({error})") from None
    if not pattern.groups:
        raise FkpError(
            f"data.identity={expression}: put the part of a file name that is the person in brackets: (…)"
        )
    return pattern


def person(pattern: re.Pattern[str], name: str) -> str:
    """Group 1 of a name; the whole name if it does not match."""
    match = pattern.match(name)
    return (match and match.group(1)) or name


def own_if_one_person(table: FaceTable, root: Path, pattern: str) -> None:
    """Make each file a person of its own if the pattern takes most of the files for one person, as it does for
    IMG_0001.jpg, IMG_0002.jpg, …

    Args:
        table: faces whose identity comes from the names of their files; changed.
        root: folder from which the files are then named.
        pattern: the default of `identity`, for the warning.
    """
    most = _majority(table.identity)
    faces = [i for i, name in enumerate(table.identity) if name == most]
    if (
        len(table) < FEW
        or len(faces) <= MOST * len(table)
        or len({str(table.paths[i]) for i in faces[:PAIRS]}) < 2
    ):
        return
    names = (Path(os.path.relpath(path, root)).as_posix() for path in table.paths)
    table.identity = Texts.of(names, str)
    log.warning(
        "data.identity=%s takes %d of %d faces for one person, %r: that is not believed, and each file counts as a "
        "person of its own. If files share persons, set data.identity to a regular expression whose group 1 is the "
        "person",
        pattern,
        len(faces),
        len(table),
        most,
    )


def warn_of_video(table: FaceTable) -> None:
    """Warn if files with neighbouring numbers, which count as different persons, look alike as frames of a video do."""
    pairs = list(_neighbours(table))
    if len(pairs) < FEWEST:
        return
    looks = [
        (first, second)
        for one, other in pairs
        for first, second in [(_thumbnail(one), _thumbnail(other))]
    ]
    seen = np.array([pair for pair in looks if pair[0] is not None and pair[1] is not None], float)
    if len(seen) < FEWEST:
        return
    near = float(np.median(np.abs(seen[:, 0] - seen[:, 1]).mean((1, 2))))
    apart = float(
        np.median(np.abs(seen[:, 0] - np.roll(seen[:, 0], len(seen) // 2, 0)).mean((1, 2)))
    )
    if near < max(ALIKE * apart, SAME):
        log.warning(
            "neighbouring files, as %s and %s, look like frames of one video, but count as different persons and may "
            "fall into train and test, which flatters the test. Set data.identity to a regular expression whose "
            "group 1 is the same for all frames of a video, or add a column identity",
            pairs[0][0].name,
            pairs[0][1].name,
        )


def _majority(names: Texts[str]) -> str:
    """The name that more than half of them are, if there is one; else any (Boyer and Moore's vote)."""
    leader, votes = "", 0
    for name in names:
        if votes == 0:
            leader = name
        votes += 1 if name == leader else -1
    return leader


def _neighbours(table: FaceTable) -> Iterator[tuple[Path, Path]]:
    """Of some faces whose file is a person of its own, the file and one with a number close by."""
    for i in np.unique(np.linspace(0, len(table) - 1, PAIRS).astype(int)) if len(table) else ():
        path = table.paths[i]
        number = NUMBER.search(path.stem)
        if number is None or path.stem not in table.identity[i]:
            continue
        for step in STEPS:
            digits = str(int(number[0]) + step).zfill(len(number[0]))
            other = path.with_name(
                path.stem[: number.start()] + digits + path.stem[number.end() :] + path.suffix
            )
            if os.path.isfile(other):
                yield path, other
                break


def _thumbnail(path: Path) -> np.ndarray | None:
    """The image, small and gray, (16, 16) float; None if it cannot be read."""
    try:
        data = read_bytes(path, BYTES)
        with header(data) as image:
            small = min(image.size) < LARGE
        flag = cv2.IMREAD_GRAYSCALE if small else cv2.IMREAD_REDUCED_GRAYSCALE_8
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except (FkpError, cv2.error):
        return None
    return (
        None
        if pixels is None
        else cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    )
