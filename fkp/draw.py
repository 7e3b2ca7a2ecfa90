"""Draw boxes and points on images, and grids of face crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fkp.face import Face
from fkp.geometry import apply, rescaling
from fkp.markup import IBUG68, Markup

if TYPE_CHECKING:
    from torch import Tensor

    from fkp.data.dataset import FacialKeypointsDataset

GREEN, ORANGE, WHITE, BLACK = (60, 230, 90), (255, 160, 40), (255, 255, 255), (0, 0, 0)
SHIFT = 4  # OpenCV draws at fractions of a pixel where coordinates are multiplied by 2**SHIFT


def draw(image: np.ndarray, faces: Sequence[Face], markup: Markup = IBUG68) -> np.ndarray:
    """Draw the box and the points of each face, and its track number in a video.

    Args:
        image: RGB (H, W, 3) or gray (H, W) uint8; it is copied.
        faces: from a Predictor.
        markup: of the points.

    Returns:
        RGB (H, W, 3) uint8.
    """
    drawing = _rgb(image)
    for face in faces:
        side = float(face.box[2] - face.box[0])
        left, top, right, bottom = np.round(face.box).astype(int).tolist()
        thickness = max(1, round(side / 150))
        cv2.rectangle(drawing, (left, top), (right, bottom), ORANGE, thickness, cv2.LINE_AA)
        draw_points(drawing, face.points, GREEN, markup)
        if face.track is not None:
            _write(drawing, str(face.track), (left, top - 4), max(0.4, side / 250))
    return drawing


def draw_points(
    drawing: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], markup: Markup = IBUG68
) -> None:
    """Draw points (K, 2) and the lines of their markup into an RGB image, in place.

    Points that are NaN, and lines through them, are left out.
    """
    labelled = np.isfinite(points).all(1)
    if not labelled.any():
        return
    extent = np.ptp(points[labelled], axis=0)
    radius = max(0.8, float(extent.max()) / 110)
    thickness = max(1, round(radius / 2))

    for kind, spans in markup.lines.items():
        for first, last in spans:
            line = slice(first, last + 1)
            if labelled[line].all():
                corners = [_fixed(points[line])]
                cv2.polylines(
                    drawing, corners, kind == "ring", colour, thickness, cv2.LINE_AA, SHIFT
                )

    for point in points[labelled]:
        centre = _fixed(point).tolist()
        cv2.circle(drawing, centre, round(radius * 2**SHIFT), colour, -1, cv2.LINE_AA, SHIFT)


def visualize_output(
    images: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray] | None = None,
    labels: Sequence[np.ndarray] | None = None,
    columns: int = 6,
    side: int = 224,
    markup: Markup = IBUG68,
    captions: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw a grid of face crops with predicted points (green) and labels (orange).

    Args:
        images: gray (h, w) or RGB (h, w, 3) uint8 crops.
        predicted: (K, 2) points for each crop, CROP pixels.
        labels: the same.
        columns: crops in a row.
        side: of a crop on the grid, pixels.
        markup: of the points.
        captions: one or more lines for each crop, written over its lower edge.

    Returns:
        RGB uint8.
    """
    tiles = []
    for i, image in enumerate(images):
        # Resize the crop, and its points with it: pixel edges onto pixel edges.
        factor = side / max(image.shape[:2])
        interpolation = cv2.INTER_LINEAR if factor > 1 else cv2.INTER_AREA
        tile = _rgb(cv2.resize(image, (side, side), interpolation=interpolation))
        to_tile = rescaling(factor)

        if labels is not None:
            draw_points(tile, apply(to_tile, labels[i]), ORANGE, markup)
        if predicted is not None:
            draw_points(tile, apply(to_tile, predicted[i]), GREEN, markup)
        for line, text in enumerate(reversed(captions[i].splitlines() if captions else [])):
            _write(tile, text, (3, side - 4 - 12 * line), 0.36)
        tiles.append(tile)
    return _grid(tiles, min(columns, len(tiles)))


def visualize_augmentations(
    dataset: FacialKeypointsDataset, markup: Markup, faces: int = 6, draws: int = 7
) -> np.ndarray:
    """Draw a grid of what training sees, with its labels.

    Each row shows one face: first without augmentation, then in `draws` epochs.

    Returns:
        RGB uint8.
    """
    from fkp.data.table import evenly_spaced  # here: predictions do not wait for it

    images, labels = [], []
    for face in evenly_spaced(len(dataset), faces).tolist():
        for key in (face, *((epoch, face) for epoch in range(draws))):
            item = dataset[key]
            images.append(as_image(item["image"]))
            labels.append(apply(item["to_crop"], item["points"]))
    return visualize_output(images, labels=labels, columns=1 + draws, side=160, markup=markup)


def as_image(image: Tensor) -> np.ndarray:
    """Convert a network's input (C, h, w) in [0, 1] to gray (h, w) or RGB (h, w, 3) uint8."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy().squeeze()


def _rgb(image: np.ndarray) -> np.ndarray:
    """Return an RGB copy of a gray or RGB image."""
    return np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image.copy()


def _grid(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    """Stack tiles of one size in rows, and fill the last row with black ones."""
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _write(drawing: np.ndarray, text: str, place: tuple[int, int], size: float) -> None:
    """Write white letters with a black outline, legible on any background."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    for colour, thickness in ((BLACK, 3), (WHITE, 1)):
        cv2.putText(drawing, text, place, font, size, colour, thickness, cv2.LINE_AA)


def _fixed(points: np.ndarray) -> np.ndarray:
    """Convert pixels to OpenCV's fixed-point integers."""
    return np.round(np.asarray(points, float) * 2**SHIFT).astype(np.int32)
