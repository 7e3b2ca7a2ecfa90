"""Folders of pictures with a `.pts` file beside each, the format of 300-W, AFW, HELEN and LFPW."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.errors import FkpError
from fkp.files import inside, read_bytes
from fkp.markup import load_markup
from fkp.sources.table import FAR, FaceTable, Fault, OnBad, Source

MOST = 1 << 20  # bytes of a file
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


class PtsFolders(Source):
    """Every `.pts` file below a folder, with the picture of the same name.

    Args:
        root: the folder; those below it are read too. A link that leads out of it is a bad row.
        identity: regular expression; group 1 of a file's name is the person, or the photo, as faces of one photo
            should not be shared between parts either.
        same: names, as `identity` gives them, of photos that are one: each list counts as its first.
        split: `identity`, which is `strict` too; these sets come without a publisher's test part of their own.
        markup: name of a markup that comes with fkp, or path of a YAML file.
        on_bad: `stop` or `skip`.
    """

    def __init__(
        self,
        root: str,
        identity: str = r"(.+?)(?:_\d{1,2})?\.pts$",
        same: list[list[str]] | None = None,
        split: Literal["identity", "strict"] = "identity",
        markup: str = "ibug68",
        on_bad: OnBad = "stop",
    ):
        self.root, self.split, self.on_bad, self.identity = Path(root), split, on_bad, re.compile(identity)
        self.markup = load_markup(markup)
        self.one = {name: names[0] for names in same or [] for name in names}

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """All faces, in the order of their paths.

        Raises:
            FkpError: no such folder, or nothing in it.
        """
        files = sorted(self.root.rglob("*.pts"))
        if not files:
            raise FkpError(f"{self.root}: no .pts file in it; set data.root=… to a folder of pictures and .pts files")
        paths, points, rows, faults, wanted = [], [], [], [], len(self.markup.points)
        for file in files:
            row = file.relative_to(self.root).as_posix()
            beside = [path for ending in PICTURES if (path := file.with_suffix(ending)).is_file()]
            out = next((path for path in (file, *beside[:1]) if not inside(self.root, path)), None)
            if out:
                faults.append(Fault(row, f"{out.name} leads out of {self.root}; set data.root to a folder above both"))
                continue
            try:
                found = read_pts(file)
            except FkpError as error:
                where, _, what = str(error).removeprefix(str(file)).partition(": ")  # where: the line, if one is wrong
                faults.append(Fault(row + where, what))
                continue
            if not beside:
                faults.append(Fault(row, f"no picture of that name beside it ({', '.join(PICTURES)})"))
            elif len(found) != wanted:
                faults.append(Fault(row, f"{len(found)} points, but {self.markup.name} has {wanted}"))
            elif (far := (np.abs(found) >= FAR).any(1)).any():
                faults.append(Fault(row, f"{self.markup.points[int(far.argmax())]} is at a place in no picture"))
            elif (half := np.isnan(found).sum(1) == 1).any():
                faults.append(Fault(row, f"{self.markup.points[int(half.argmax())]} has one coordinate of two"))
            elif np.isnan(found).all():
                faults.append(Fault(row, "no point is labelled"))
            else:
                paths.append(beside[0])
                points.append(found)
                rows.append(row)
        people = [match.group(1) if (match := self.identity.match(row)) else row for row in rows]
        people = [self.one.get(name, name) for name in people]
        return FaceTable(paths, np.array(points).reshape(-1, wanted, 2), people, rows), faults


def read_pts(file: Path) -> np.ndarray:
    """Points (K, 2), IMAGE pixels, of a `.pts` file, with or without its header.

    The format counts pixels from 1, so 1 is subtracted.

    Raises:
        FkpError: a line that is not two numbers, by its number, or another count than `n_points` says.
    """
    points: list[tuple[float, float]] = []
    said = None
    for number, line in enumerate(read_bytes(file, MOST).decode(errors="replace").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0] in ("{", "}") or words[0].startswith(("version", "#")):
            continue
        if words[0].startswith("n_points"):
            digits = re.search(r"[0-9]{1,9}", line)
            said = int(digits[0]) if digits else -1
            continue
        try:
            x, y = map(float, words)
        except ValueError:
            raise FkpError(f"{file}:{number}: {line.strip()[:40]!r} is not a point x y") from None
        points.append((x - 1, y - 1))
    if said not in (None, len(points)):
        raise FkpError(f"{file}: says n_points: {said}, but has {len(points)}")
    return np.array(points, float).reshape(-1, 2)


def write_pts(file: Path, points: np.ndarray) -> None:
    """Write points (K, 2), IMAGE pixels; `read_pts` reads them back."""
    lines = [f"{x + 1:.3f} {y + 1:.3f}" for x, y in points]
    file.write_text("\n".join(["version: 1", f"n_points: {len(points)}", "{", *lines, "}"]) + "\n", encoding="utf-8")
