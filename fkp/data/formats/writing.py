"""Convert faces to labels that tools import: COCO key points, Label Studio and labelme.

All three count from the corner of the top-left pixel, as the readers of these formats here do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from fkp.face import Face
from fkp.geometry import to_corner
from fkp.markup import Markup

# Where Label Studio serves files below its LOCAL_FILES_DOCUMENT_ROOT.
LOCAL_FILES = "/data/local-files/?d="
# The label of a face box.
BOX = "face"


@dataclass
class LabelledImage:
    """One image and its faces.

    Args:
        name: of the file, relative to the folder of all images.
        size: width, height, pixels.
        faces: on it; a point that is NaN is not labelled.
    """

    name: PurePosixPath
    size: tuple[int, int]
    faces: Sequence[Face]


def as_coco(images: Sequence[LabelledImage], markup: Markup) -> dict[str, Any]:
    """Convert faces to COCO key points, as CVAT, mmpose and others import them.

    Visibility is 2 for a point, and 0 for a missing one. `score` of a face is the mean confidence
    of its points, as in COCO's results.
    """
    skeleton = [[first + 1, second + 1] for first, second in edges(markup)]
    category = {"id": 1, "name": BOX, "supercategory": "", "keypoints": markup.points}
    category |= {"skeleton": skeleton}

    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, 1):
        for face in image.faces:
            number = {"id": len(annotations) + 1, "image_id": image_id, "category_id": 1}
            annotations.append(number | _coco_face(face))

    listed = [
        {"id": image_id, "file_name": str(image.name), "width": width, "height": height}
        for image_id, image in enumerate(images, 1)
        for width, height in [image.size]
    ]
    # By the contributor, readers tell what the coordinates count from.
    info = {"contributor": "fkp", "description": "predicted key points"}
    return {
        "info": info,
        "licenses": [],
        "images": listed,
        "annotations": annotations,
        "categories": [category],
    }


def _coco_face(face: Face) -> dict[str, Any]:
    """Return what an annotation says about one face."""
    known = np.isfinite(face.points).all(1)
    points = np.where(known[:, None], to_corner(face.points), 0).round(3).tolist()
    values = [
        value
        for (x, y), visible in zip(points, known.tolist(), strict=True)
        for value in (x, y, 2 * visible)
    ]
    left, top, right, bottom = to_corner(face.box).round(2).tolist()
    width, height = round(right - left, 2), round(bottom - top, 2)
    return {
        "keypoints": values,
        "num_keypoints": int(known.sum()),
        "bbox": [left, top, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "segmentation": [],
        "score": _confidence(face),
    }


def as_label_studio(
    images: Sequence[LabelledImage], markup: Markup, root: str, model: str
) -> list[dict[str, Any]]:
    """Convert faces to Label Studio's tasks, each with a prediction, in percent of the image.

    The points of a face have its box as their parent. The images are those of a local storage, the
    folder `root` below Label Studio's LOCAL_FILES_DOCUMENT_ROOT.
    """
    tasks = []
    for image in images:
        results: list[dict[str, Any]] = []
        for number, face in enumerate(image.faces, 1):
            results += _label_studio_face(face, f"face{number}", image.size, markup)
        sure = [_confidence(face) for face in image.faces]
        url = LOCAL_FILES + quote(f"{root}/{image.name}", errors="surrogateescape")
        prediction = {
            "model_version": model,
            "score": round(float(np.mean(sure)), 4) if sure else 0.0,
            "result": results,
        }
        tasks.append({"data": {"image": url}, "predictions": [prediction]})
    return tasks


def _label_studio_face(
    face: Face, name: str, size: tuple[int, int], markup: Markup
) -> list[dict[str, Any]]:
    """Return the results of one face: its box, and its points."""
    width, height = size
    common: dict[str, Any] = {
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
    }

    percent = 100 / np.array(size)
    corners = to_corner(face.box.reshape(2, 2)) * percent
    (left, top), (right, bottom) = corners.round(5).tolist()
    value = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
    box = {"id": name, "type": "rectanglelabels", "from_name": "box", **common}
    results = [box | {"value": value | {"rectanglelabels": [BOX]}, "score": _confidence(face)}]

    points = (to_corner(face.points) * percent).round(5)
    for point, (x, y), sure in zip(markup.points, points.tolist(), face.confidence, strict=True):
        if not math.isfinite(x + y):
            continue
        result = {"id": f"{name}-{point}", "type": "keypointlabels", "from_name": "points"}
        value = {"x": x, "y": y, "width": 0.4, "keypointlabels": [point]}
        score = round(float(sure), 4)
        results.append(result | common | {"value": value, "score": score, "parentID": name})
    return results


def label_studio_interface(markup: Markup) -> str:
    """Return Label Studio's labelling interface for the points of a markup, as XML."""
    labels = [
        f"    <Label value={quoteattr(point)} model_index={quoteattr(str(number))}/>"
        for number, point in enumerate(markup.points)
    ]
    lines = [
        "<View>",
        '  <Image name="image" value="$image" zoom="true"/>',
        '  <RectangleLabels name="box" toName="image">',
        f"    <Label value={quoteattr(BOX)}/>",
        "  </RectangleLabels>",
        '  <KeyPointLabels name="points" toName="image">',
        *labels,
        "  </KeyPointLabels>",
        "</View>",
    ]
    return "\n".join(lines) + "\n"


def as_labelme(image: LabelledImage, markup: Markup) -> dict[str, Any]:
    """Convert the faces of one image to labelme's file, which is to lie beside the image.

    The shapes of one face have its number as their group.
    """
    shapes = []
    for number, face in enumerate(image.faces, 1):
        corners = to_corner(face.box.reshape(2, 2)).round(3).tolist()
        shapes.append(_shape(BOX, corners, "rectangle", number))
        points = to_corner(face.points).round(3).tolist()
        for name, point in zip(markup.points, points, strict=True):
            if all(map(math.isfinite, point)):
                shapes.append(_shape(name, [point], "point", number))

    width, height = image.size
    content = {"version": "5.0.0", "flags": {}, "shapes": shapes, "imagePath": image.name.name}
    return content | {"imageData": None, "imageHeight": height, "imageWidth": width}


def _shape(label: str, points: list[list[float]], kind: str, group: int) -> dict[str, Any]:
    shape = {"label": label, "points": points, "group_id": group, "description": ""}
    return shape | {"shape_type": kind, "flags": {}}


def edges(markup: Markup) -> list[tuple[int, int]]:
    """Return the pairs of points that the lines of a markup join, as indices."""
    found = []
    for kind, lines in markup.lines.items():
        for first, last in lines:
            found += [(point, point + 1) for point in range(first, last)]
            if kind == "ring" and last > first + 1:
                found.append((last, first))
    return found


def _confidence(face: Face) -> float:
    """Return the mean confidence of the points of a face."""
    return round(float(np.mean(face.confidence)), 4)
