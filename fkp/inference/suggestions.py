"""Suggest photos to label: describe their faces, leave out near duplicates, rank, and write."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fkp.console import track
from fkp.data.formats.writing import LabelledImage
from fkp.draw import visualize_output
from fkp.errors import FkpError
from fkp.files.images import read_image, write_image
from fkp.files.reading import safe_cell
from fkp.files.writing import write_whole
from fkp.geometry import apply, centre_and_side, compose, rescaling, square, translation, warp
from fkp.inference.media import ImageCollection
from fkp.inference.portraits import Portrait, describe, vectors
from fkp.inference.predictor import Predictor
from fkp.inference.ranking import Choice, near_duplicates, rank
from fkp.markup import Markup

# Side of a face on the grid, pixels, and what it shows around the face box, in sides of the box.
TILE, MARGIN = 224, 1.7

COLUMNS = ("image", "rank", "confidence", "cluster", "why")


@dataclass
class Suggestions:
    """What was found in unlabelled photos.

    Args:
        chosen: the faces to label, best first, and why.
        duplicates: photo -> the photo that it nearly equals.
        without_face: photos in which no face was found.
        failed: photo that cannot be read -> the reason.
        others: number of further faces, which are not suggested.
    """

    chosen: list[tuple[Portrait, Choice]] = field(default_factory=list)
    duplicates: dict[Path, Path] = field(default_factory=dict)
    without_face: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    others: int = 0


def suggest(
    predictor: Predictor, photos: Sequence[Path], labelled: Sequence[Path], count: int
) -> Suggestions:
    """Choose the photos to label next.

    Args:
        predictor: finds the faces.
        photos: that are not labelled.
        labelled: photos that are.
        count: number of photos to choose, at most.

    Raises:
        FkpError: no face was found in any of the photos.
    """
    # Describe the largest face of each photo.
    result = Suggestions()
    stream = describe(predictor, [*photos, *labelled], result.failed)
    total, is_labelled = len(photos) + len(labelled), set(labelled)
    new: list[Portrait] = []
    known: list[Portrait] = []
    for path, portrait in track(stream, f"{total} photos", total):
        if portrait is not None:
            (known if path in is_labelled else new).append(portrait)
        elif path not in is_labelled:
            result.without_face.append(path)
    if not new:
        raise FkpError(
            f"no face found in {len(photos)} photos; detector=yunet also finds rotated and occluded"
            " ones",
            key="image",
        )

    # Leave out near duplicates.
    thumbnails = np.array([portrait.thumbnail for portrait in [*new, *known]])
    twice = near_duplicates(thumbnails[: len(new)], thumbnails[len(new) :])
    for i, (in_labelled, other) in twice.items():
        result.duplicates[new[i].path] = (known if in_labelled else new)[other].path
    new = [portrait for i, portrait in enumerate(new) if i not in twice]

    # Rank the others.
    confidence = np.array([portrait.confidence for portrait in [*new, *known]])
    points = np.array([portrait.face.points for portrait in [*new, *known]])
    features = np.array([portrait.features for portrait in [*new, *known]])
    choices = rank(vectors(points, features), confidence, count, len(known))
    result.chosen = [(new[choice.index], choice) for choice in choices]
    result.others = len(new) - len(choices)
    return result


def write(
    found: Suggestions, run_dir: Path, collection: ImageCollection, markup: Markup, shown: int
) -> list[Path]:
    """Write the table and the grid, and the list of photos without a face; return the files."""
    run_dir.mkdir(parents=True, exist_ok=True)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for number, (portrait, choice) in enumerate(found.chosen, 1):
        row = [number, round(portrait.confidence, 3), choice.cluster, _why(portrait, choice)]
        table.writerow([safe_cell(str(collection.relative(portrait.path))), *row])
    # Names of files may contain bytes that are not UTF-8.
    files = [run_dir / "suggestions.csv"]
    write_whole(files[0], out.getvalue().encode("utf-8", "surrogateescape"))

    if shown:
        files.append(write_image(run_dir / "suggestions.png", _grid(found, shown, markup)))
    if found.without_face:
        files.append(run_dir / "without_face.txt")
        lines = "".join(f"{path.absolute()}\n" for path in found.without_face)
        write_whole(files[-1], lines.encode("utf-8", "surrogateescape"))
    return files


def _why(portrait: Portrait, choice: Choice) -> str:
    """Say why a face is suggested."""
    alike = f"one of {choice.alike} alike" if choice.alike > 1 else "no other is like it"
    why = f"covers {100 * choice.gain:.1f} % of what is not covered yet; {alike}"
    return why + (f"; the largest of {portrait.faces} faces" if portrait.faces > 1 else "")


def _grid(found: Suggestions, shown: int, markup: Markup) -> np.ndarray:
    """Draw the best suggestions, RGB uint8."""
    crops, points, captions = [], [], []
    for number, (portrait, _) in enumerate(found.chosen[:shown], 1):
        x, y, side = centre_and_side(portrait.face.box)
        left, top, _, _ = square(x, y + 0.1 * side, MARGIN * side)
        scale = rescaling(TILE / (MARGIN * side))
        to_tile = compose(translation(-left - 0.5, -top - 0.5), scale)
        crops.append(warp(read_image(portrait.path), to_tile, (TILE, TILE)))
        points.append(apply(to_tile, portrait.face.points))
        captions.append(f"{number}: {portrait.path.name[-30:]}")
    return visualize_output(crops, points, side=TILE, markup=markup, captions=captions)


def labelled_images(found: Suggestions, collection: ImageCollection) -> list[LabelledImage]:
    """Return the suggested photos with the face that was found in each."""
    return [
        LabelledImage(collection.relative(portrait.path), portrait.size, [portrait.face])
        for portrait, _ in found.chosen
    ]
