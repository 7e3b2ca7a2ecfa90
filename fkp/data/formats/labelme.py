"""Read labelme's JSON files: one per image, with a shape of type `point` for each key point.

Coordinates count from the corner of the top-left pixel: labelme draws the image into the rectangle
from (0, 0) to (width, height) of the canvas whose coordinates it saves (labelme/widgets/canvas.py).
It applies the EXIF orientation first, as IMAGE space does.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from fkp.data.formats.base import LabelFormat, files_below
from fkp.data.formats.contents import (
    MALFORMED,
    NO_BOX,
    Contents,
    NamedFace,
    malformed,
    named_contents,
)
from fkp.errors import FkpError
from fkp.files.plain import read_json
from fkp.geometry import from_corner

# Files that are looked at to recognise the format.
SAMPLED = 20


class Labelme(LabelFormat):
    """labelme's files, in root and the folders below it.

    The label of a point is its name; the points of one `group_id` are one face, and so are those
    without. A rectangle of the same group is its face box. Other shapes are left out.
    """

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        files = files_below(root, (".json",))
        return files if any(_is_labelme(file) for file in files[:SAMPLED]) else []

    def contents(self) -> Contents:
        faces: list[NamedFace] = []
        for file in self.label_files("JSON of labelme"):
            row = file.relative_to(self.root).as_posix()
            try:
                data = read_json(file)
                if not _has_shapes(data):
                    continue  # settings of another program
                faces += self._faces(file, data, row)
            except FkpError as error:
                faces.append(NamedFace("", {}, row, fault=str(error)))
            except MALFORMED as error:
                faces.append(NamedFace("", {}, row, fault=f"not labelme's ({malformed(error)})"))
        return named_contents("labelme", faces, self.root)

    def _faces(self, file: Path, data: Any, row: str) -> list[NamedFace]:
        """Read one file: a face for each group of points."""
        image = file.parent / str(data["imagePath"]).replace("\\", "/")
        name = Path(os.path.relpath(os.path.normpath(image), self.root)).as_posix()

        points = defaultdict[Any, dict[str, Any]](dict)
        boxes: dict[Any, Any] = {}
        twice = ""
        for shape in data["shapes"]:
            group = shape.get("group_id")
            if shape["shape_type"] == "point":
                label = str(shape["label"])
                if label in points[group]:
                    twice = f"two points {label!r:.80}; give each face a group_id of its own"
                points[group][label] = from_corner(shape["points"][0]).tolist()
            elif shape["shape_type"] == "rectangle":
                corners = from_corner(shape["points"])
                boxes[group] = [*corners.min(0), *corners.max(0)]

        return [
            NamedFace(
                name,
                own,
                row if group is None else f"{row}:group {group}",
                boxes.get(group, NO_BOX),
                fault=twice,
            )
            for group, own in points.items()
        ]


def _has_shapes(data: Any) -> bool:
    return isinstance(data, dict) and {"shapes", "imagePath"} <= set(data)


def _is_labelme(file: Path) -> bool:
    try:
        return _has_shapes(read_json(file))
    except FkpError:
        return False
