"""Read YOLO pose labels: a YAML file with `kpt_shape`, and a text file for each image.

Coordinates are fractions of the image's width and height, so they count from the corner of the
top-left pixel; so do the boxes. Ultralytics, CVAT and Label Studio write pixels, as they have them,
over the size. Ultralytics applies the EXIF orientation to the size, as IMAGE space does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fkp.data.formats.base import LabelFormat, files_below
from fkp.data.formats.contents import MALFORMED, Contents, LabelledFace, malformed
from fkp.errors import FkpError
from fkp.files.images import IMAGE_ENDINGS, image_size
from fkp.files.plain import read_yaml
from fkp.files.reading import inside, read_bytes, text_in
from fkp.geometry import from_corner

# Bytes of a label file, and of a list of images.
MOST, LIST = 1 << 24, 1 << 28
SPLITS = ("train", "val", "test")


class Yolo(LabelFormat):
    """YOLO pose. A point of visibility 0 has no label; without visibility, one below 0.

    The names are those of `kpt_names`, the mirror pairs those of `flip_idx`. The images of `test`
    are the publisher's test split; `train` and `val` are pooled.
    """

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        found = [*sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))]
        return [file for file in found if _is_pose(file)]

    def contents(self) -> Contents:
        file = self.label_file("YAML of YOLO pose")
        data = read_yaml(file)
        try:
            count, dims = (int(number) for number in data["kpt_shape"])
            names = _names(data, count)
            pairs = _pairs(data.get("flip_idx"), names)
            edges = [(int(a), int(b)) for a, b in data.get("skeleton") or []]
            base = _folder(file, data)
            splits = [(image, s) for s in SPLITS for image in self._images(base, data.get(s))]
        except MALFORMED as error:
            what = f"{file}: no YOLO pose ({malformed(error)})"
            raise FkpError(what, file=file) from None
        if not count or dims not in (2, 3):
            raise FkpError(
                f"{file}: kpt_shape must be [points, 2 or 3]", key="kpt_shape", file=file
            )

        # An image that two splits name belongs to the later one, so that no test image is trained.
        faces: list[LabelledFace] = []
        for image, split in dict(splits).items():
            official = "test" if split == "test" else "train"
            faces += self._faces(image, count, dims, official)
        return Contents(file.stem, names, faces, pairs=pairs, edges=edges, file=file)

    def _images(self, base: Path, given: Any) -> Iterator[Path]:
        """Yield the images of a split: of a folder, a list in a text file, or a list of those."""
        if isinstance(given, list):
            for one in given:
                yield from self._images(base, one)
        elif given:
            place = base / str(given)
            if not inside(self.root, place):
                raise ValueError(f"{given} leads out of {self.root}")
            if place.is_dir():
                yield from files_below(place, tuple(IMAGE_ENDINGS))
                return
            for line in text_in(read_bytes(place, LIST)).splitlines():
                if line.strip():
                    start = place.parent if line.startswith("./") else base
                    yield Path(os.path.normpath(start / line.strip()))

    def _faces(self, image: Path, count: int, dims: int, split: str) -> Iterator[LabelledFace]:
        """Read the faces of an image; an image without a label file has none."""
        labels = _label_file(image)
        row = os.path.relpath(labels, self.root).replace(os.sep, "/")
        nothing = np.full((count, 2), np.nan)
        if not (inside(self.root, image) and inside(self.root, labels)):
            yield LabelledFace(image, nothing, row, fault=f"leads out of {self.root}")
            return
        if not labels.is_file():
            return

        try:
            pixels = np.array(image_size(image), float)
            lines = text_in(read_bytes(labels, MOST)).splitlines()
        except FkpError as error:
            yield LabelledFace(image, nothing, row, fault=str(error))
            return
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{row}:{number}"
            try:
                points, box = _numbers(line, count, dims)
                points, box = from_corner(points * pixels), from_corner(box * np.tile(pixels, 2))
                yield LabelledFace(image, points, place, box, split=split)
            except MALFORMED as error:
                yield LabelledFace(image, nothing, place, fault=malformed(error))


def _numbers(line: str, count: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Convert a line to points (K, 2), NaN where not labelled, and a box, in fractions."""
    values = np.array(line.split(), float)
    if len(values) != 5 + count * dims:
        raise ValueError(f"{len(values)} numbers, but {count} points have {5 + count * dims}")
    x, y, width, height = values[1:5]
    rows = values[5:].reshape(count, dims)
    points = rows[:, :2]
    visible = np.asarray(rows[:, 2] > 0 if dims == 3 else (rows >= 0).all(1))
    box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return np.where(visible[:, None], points, np.nan), box


def _names(data: Any, count: int) -> list[str]:
    """Return the names of the points, which may be written for each class, or not at all.

    sleap-io calls them `node_names`.
    """
    names = (
        data.get("kpt_names") or data.get("node_names") or [f"point_{k + 1}" for k in range(count)]
    )
    if isinstance(names, dict):
        different = {tuple(map(str, own)) for own in names.values()}
        if len(different) > 1:
            raise ValueError("kpt_names differ between the classes")
        (names,) = different
    if len(names) != count:
        raise ValueError(f"{len(names)} kpt_names, but kpt_shape says {count}")
    return [str(name) for name in names]


def _pairs(flips: Any, names: list[str]) -> list[list[str]] | None:
    """Return the mirror pairs; None if the file has none."""
    if not flips:
        return None
    order = [int(k) for k in flips]
    if sorted(order) != list(range(len(names))) or any(order[k] != i for i, k in enumerate(order)):
        raise ValueError("flip_idx must name each point once, and swap points in pairs")
    # sleap-io and some hands write the points in order, which says that nothing is known.
    return [[names[i], names[k]] for i, k in enumerate(order) if i < k] or None


def _folder(file: Path, data: Any) -> Path:
    """Return the folder that the splits are relative to: `path`, if it is there, or the file's."""
    folder = file.parent / str(data.get("path") or ".")
    return folder if folder.is_dir() and inside(file.parent, folder) else file.parent


def _label_file(image: Path) -> Path:
    """Return the label file of an image: the last folder `images` of its path becomes `labels`.

    As `img2label_paths` of ultralytics/data/utils.py; without such a folder, it lies beside it.
    """
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _is_pose(file: Path) -> bool:
    try:
        data = read_yaml(file)
    except FkpError:
        return False
    return isinstance(data, dict) and "kpt_shape" in data
