"""Read Label Studio's exports JSON and JSON-MIN.

Coordinates are percent of the image's width and height, so they count from the corner of the
top-left pixel (labelstud.io/tags/keypointlabels: "coordinate by percentage of the image size").
The browser that shows the image applies the EXIF orientation, as IMAGE space does.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from fkp.data.formats.base import LabelFormat
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

# Names of the choice or text field that says who is in an image.
PERSON = ("identity", "person")
# What Label Studio puts in front of the name of an uploaded file.
PREFIX = re.compile(r"^[0-9a-f]{8}-")
# Names of the field with the image's address, the likeliest first.
IMAGE = ("image", "img", "url", "picture", "photo")


class LabelStudio(LabelFormat):
    """Tasks with `KeyPointLabels`. The label of a point is its name.

    The faces of an image are distinguished by the rectangle that each point belongs to (its parent
    region), which is also the face box. Of several annotations of a task, the ground truth is read,
    or else the last that was not cancelled. A choice or a text field named `identity` or `person`
    says who it is.

    The image is looked for by the last parts of its address; the eight digits that Label Studio
    puts in front of the name of an uploaded file may be missing.
    """

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        return [file for file in sorted(root.glob("*.json")) if _is_export(file)]

    def contents(self) -> Contents:
        file = self.label_file("JSON of Label Studio")
        tasks = read_json(file)
        if not isinstance(tasks, list):
            raise FkpError(f"{file}: not a list of tasks", file=file)

        faces: list[NamedFace] = []
        for i, task in enumerate(tasks):
            try:
                row = f"{file.name}:task {task.get('id', i + 1)}"
                faces += _faces(task, row)
            except MALFORMED as error:
                row = f"{file.name}:[{i}]"
                faces.append(NamedFace("", {}, row, fault=malformed(error)))
        return named_contents(file.stem, faces, file)

    def alternatives(self, name: str) -> list[str]:
        # The address in a local storage begins with the name of the storage's folder.
        within, file = name.partition("/")[2], name.rpartition("/")[2]
        return [name, *filter(None, [within]), file, PREFIX.sub("", file)]


def _faces(task: dict[str, Any], row: str) -> list[NamedFace]:
    """Read the faces of a task."""
    image, person = _image_name(task), ""
    points = defaultdict[Any, dict[str, Any]](dict)
    boxes: dict[Any, list[float]] = {}
    faults: dict[Any, str] = {}

    for result in _results(task):
        value = result["value"]
        if result.get("from_name") in PERSON:
            person = str((value.get("choices") or value.get("text") or [""])[0])
        elif "rectanglelabels" in value and "keypointlabels" not in value:
            corner, size = _pixels(result, "x", "y"), _pixels(result, "width", "height")
            boxes[result.get("id")] = [*from_corner(corner), *from_corner(corner + size)]
        elif value.get("keypointlabels"):
            face, (name, *_) = result.get("parentID"), value["keypointlabels"]
            if name in points[face]:
                faults[face] = f"two points {name!r:.80}; give each face a rectangle as the parent"
            if result.get("image_rotation"):
                faults[face] = "the image is rotated in Label Studio; rotate the file instead"
            points[face][str(name)] = from_corner(_pixels(result, "x", "y")).tolist()

    only = next(iter(boxes.values())) if len(boxes) == 1 and len(points) == 1 else NO_BOX
    return [
        NamedFace(
            image,
            own,
            row if len(points) == 1 else f"{row}, face {number}",
            boxes.get(face, only),
            person,
            faults.get(face, ""),
        )
        for number, (face, own) in enumerate(points.items(), 1)
    ]


def _results(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the labels of a task, of either export, in the form of JSON."""
    if "annotations" in task:
        annotations = [a for a in task["annotations"] if not a.get("was_cancelled")]
        truth = [a for a in annotations if a.get("ground_truth")]
        yield from (truth or annotations)[-1]["result"] if annotations else []
        return

    # JSON-MIN: name of the tag -> its values, which have the size of the image.
    for name, values in task.items():
        if name in PERSON and isinstance(values, (str, dict)):
            choices = values["choices"] if isinstance(values, dict) else [values]
            yield {"from_name": name, "value": {"choices": choices}}
        for value in values if isinstance(values, list) else ():
            if isinstance(value, dict):
                yield {"from_name": name, "value": value, **value}


def _pixels(result: dict[str, Any], x: str, y: str) -> np.ndarray:
    """Convert percent of the image to pixels."""
    size = np.array([result["original_width"], result["original_height"]], float)
    if not (size > 0).all():
        raise ValueError("original_width and original_height must be positive")
    return np.array([result["value"][x], result["value"][y]], float) / 100 * size


def _image_name(task: dict[str, Any]) -> str:
    """Return the path of a task's image in its address, without scheme, host and query."""
    data = task.get("data", task)
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    keys = [key for key in (*IMAGE, *texts) if key in texts and key not in PERSON]
    address = urlsplit(texts[keys[0]])
    local = parse_qs(address.query).get("d")  # /data/local-files/?d=folder/name.jpg
    return (local[0] if local else unquote(address.path)).lstrip("/")


def _is_export(file: Path) -> bool:
    """Return whether a file is a list of tasks with key points."""
    try:
        tasks = read_json(file)
        return isinstance(tasks, list) and any(
            "keypointlabels" in result["value"] for task in tasks for result in _results(task)
        )
    except (FkpError, *MALFORMED):
        return False
