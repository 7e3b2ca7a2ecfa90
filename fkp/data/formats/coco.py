"""Read COCO key points, as CVAT, Label Studio, Datumaro, mmpose and COCO itself write them.

The format does not say what its coordinates count from, and its writers differ:

- the corner of the top-left pixel: tools that draw on a canvas and export its coordinates (CVAT and
  Datumaro, whose exporter copies them; Label Studio, whose converter multiplies percent by the
  width, but rounds to whole pixels: its JSON is exact);
- the centre of the top-left pixel: COCO itself ("keypoint coordinates are integers in [0, H-1 or
  W-1]", detectron2/data/datasets/coco.py, which adds 0.5), and what was computed with OpenCV or
  mmpose.

`origin=auto` takes the corner for files that CVAT, Datumaro, Label Studio or fkp have written, as
`info` and `licenses` tell, and the centre for all others.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fkp.data.formats.base import IDENTITY, LabelFormat
from fkp.data.formats.contents import MALFORMED, NO_BOX, Contents, LabelledFace, malformed
from fkp.data.table import OnBad
from fkp.errors import FkpError
from fkp.files.plain import read_json
from fkp.geometry import from_corner
from fkp.markup import load_markup

# `info.contributor` of writers that count from the corner.
FROM_CORNER = ("label studio", "fkp")
# What CVAT and Datumaro write into each file (datumaro/plugins/data_formats/coco/exporter.py).
CVAT_LICENSES = [{"name": "", "id": 0, "url": ""}]

log = logging.getLogger(__name__)


class Coco(LabelFormat):
    """COCO key points: one JSON file. A point of visibility 0 has no label.

    Annotations without key points, such as COCO's crowds, are left out and counted in the log.

    Args:
        origin: what coordinates count from: the `corner` or the `centre` of the top-left pixel;
            `auto` tells it by the program that wrote the file.
        root: see `LabelFormat`, as all others. In `file`, a pattern reads several files; those with
            `test` in their name are the publisher's test split.
        file: see `LabelFormat`.
        images: see `LabelFormat`.
        identity: see `LabelFormat`.
        protocol: see `LabelFormat`.
        markup: see `LabelFormat`; it also chooses between several categories.
        boxes: see `LabelFormat`.
        on_bad: see `LabelFormat`.
    """

    def __init__(
        self,
        root: str,
        file: str | None = None,
        origin: Literal["auto", "corner", "centre"] = "auto",
        images: str | None = None,
        identity: str = IDENTITY,
        protocol: Literal["official", "identity", "strict", "train"] = "identity",
        markup: str | None = None,
        boxes: Literal["points", "file"] = "points",
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
    ):
        super().__init__(
            root, file, images, identity, protocol, markup, boxes, on_bad, folds=folds, fold=fold
        )
        if origin not in ("auto", "corner", "centre"):
            raise FkpError(
                f"data.origin={origin}: there is auto, corner, centre", key="data.origin"
            )
        self.origin = origin

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        """List the files with key points in a folder and in its folder `annotations`."""
        found = [*sorted(root.glob("*.json")), *sorted(root.glob("annotations/*.json"))]
        return [file for file in found if _has_key_points(file)]

    def contents(self) -> Contents:
        kind = "COCO key points (JSON)"
        files = self.label_files(kind) if self.file else [self.label_file(kind)]
        names: list[str] | None = None
        edges: list[tuple[int, int]] = []
        faces: list[LabelledFace] = []
        for file in files:
            data = read_json(file)
            try:
                chosen, points, edges = self._category(file, data)
                images = {image["id"]: image for image in data["images"]}
                corner = self._from_corner(file, data)
            except MALFORMED as error:
                raise FkpError(
                    f"{file}: no COCO key points ({malformed(error)})", file=file
                ) from None
            if names not in (None, points):
                what = f"{file}: other points than {files[0].name}: {', '.join(points)[:300]}"
                raise FkpError(what, key="data.file", file=file)
            names = points
            found = self._faces(file, data["annotations"], images, chosen, len(points))
            if corner:
                for face in found:
                    face.points, face.box = from_corner(face.points), from_corner(face.box)
            faces += found
        return Contents(files[0].stem, names or [], faces, edges=edges, file=files[0])

    def _category(self, file: Path, data: Any) -> tuple[set[Any], list[str], list[tuple[int, int]]]:
        """Choose the categories whose points are read.

        Returns:
            their ids, the names of their points, and the edges between these.
        """
        used = {a["category_id"] for a in data["annotations"] if a.get("keypoints")}
        categories = {c["id"]: c for c in data["categories"] if c["id"] in used}
        named = {key: tuple(map(str, c.get("keypoints") or ())) for key, c in categories.items()}

        if self.markup_name is not None and len(set(named.values())) > 1:
            wanted = set(load_markup(self.markup_name).points)
            named = {key: names for key, names in named.items() if wanted <= set(names)} or named
        if len(set(named.values())) != 1:
            listed = "; ".join(
                f"{categories[key]['name']}: {', '.join(n)}" for key, n in named.items()
            )
            what = "categories with different points" if named else "no annotation with key points"
            fix = "set data.markup to a YAML file with the points of one of them" if named else ""
            raise FkpError(f"{file}: {what}. {fix} {listed[:500]}".rstrip(" ."), file=file)

        (names,) = set(named.values())
        if not names:  # mmpose's converters do not name the points
            lengths = [len(a["keypoints"]) for a in data["annotations"] if a.get("keypoints")]
            names = tuple(f"point_{k + 1}" for k in range(lengths[0] // 3))
        skeleton = [edge for key in named for edge in categories[key].get("skeleton") or []]
        # COCO counts points from 1.
        edges = [(int(first) - 1, int(second) - 1) for first, second in skeleton]
        return set(named), list(names), edges

    def _faces(
        self,
        file: Path,
        annotations: list[Any],
        images: dict[Any, Any],
        chosen: set[Any],
        count: int,
    ) -> list[LabelledFace]:
        """Read the annotations of one file, in its own coordinates."""
        split = "test" if "test" in file.stem.lower() else "train"

        faces, empty = [], 0
        for i, annotation in enumerate(annotations):
            row = f"{file.name}:annotations[{i}]"
            try:
                if annotation["category_id"] not in chosen and annotation.get("keypoints"):
                    empty += 1
                    continue
                points, box = _numbers(annotation, count)
                if np.isnan(points).all():
                    empty += 1
                    continue
                image = str(images[annotation["image_id"]]["file_name"])
            except MALFORMED as error:
                nothing = np.full((count, 2), np.nan)
                faces.append(LabelledFace("", nothing, row, fault=malformed(error)))
                continue
            faces.append(LabelledFace(image, points, row, box, split=split))

        if empty:
            log.info("%s: %d annotations without these key points left out", file, empty)
        return faces

    def _from_corner(self, file: Path, data: Any) -> bool:
        """Return whether the coordinates of a file count from the corner of the top-left pixel."""
        if self.origin != "auto":
            return self.origin == "corner"
        info = data.get("info") or {}
        writer = str(info.get("contributor", "")).casefold()
        corner = writer in FROM_CORNER or (
            data.get("licenses") == CVAT_LICENSES and not any(info.values())
        )
        log.info(
            "%s: coordinates count from the %s of the top-left pixel; data.origin changes that",
            file,
            "corner" if corner else "centre",
        )
        return corner


def _numbers(annotation: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points (K, 2), NaN where not labelled, and the box (4,), as they stand in the file."""
    values = np.array(annotation.get("keypoints") or [np.nan] * 3 * count, float)
    if len(values) != 3 * count:
        raise ValueError(f"{len(values)} numbers in keypoints, but {count} points have {3 * count}")
    points, visible = values.reshape(-1, 3)[:, :2], values[2::3]
    points[~(visible > 0)] = np.nan

    x, y, width, height = annotation.get("bbox") or NO_BOX
    return points, np.array([x, y, x + width, y + height], float)


def _has_key_points(file: Path) -> bool:
    """Return whether a file is JSON with annotations that have key points."""
    try:
        data = read_json(file)
        return any("keypoints" in annotation for annotation in data["annotations"])
    except (FkpError, *MALFORMED):
        return False
