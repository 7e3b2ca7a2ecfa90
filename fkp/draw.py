"""Boxes and points on pictures, and sheets of faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fkp.geometry import apply
from fkp.inference.predictor import Face
from fkp.markup import IBUG68, Markup

if TYPE_CHECKING:
    from torch import Tensor

    from fkp.data.dataset import FacialKeypointsDataset

GREEN, ORANGE, WHITE, BLACK = (60, 230, 90), (255, 160, 40), (255, 255, 255), (0, 0, 0)
SHIFT = 4  # OpenCV draws at fractions of a pixel when coordinates come multiplied by 2**SHIFT


def draw(image: np.ndarray, faces: Sequence[Face], markup: Markup = IBUG68) -> np.ndarray:
    """A copy of the picture with every face's box and points, and its number in a film.

    Args:
        image: RGB (H, W, 3) or gray (H, W) uint8.
        faces: what a Predictor gave for it.

    Returns:
        RGB (H, W, 3) uint8.
    """
    canvas = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image.copy()
    for face in faces:
        side = float(face.box[2] - face.box[0])
        corners = np.round(face.box).astype(int).tolist()
        cv2.rectangle(canvas, corners[:2], corners[2:], ORANGE, max(1, round(side / 150)), cv2.LINE_AA)
        draw_points(canvas, face.points, GREEN, markup)
        if face.track is not None:
            _write(canvas, str(face.track), (corners[0], corners[1] - 4), max(0.4, side / 250))
    return canvas


def draw_points(canvas: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], markup: Markup = IBUG68) -> None:
    """Draw points (K, 2) and the lines of their markup into an RGB picture, as large as the face asks for."""
    labelled = np.isfinite(points).all(1)
    if not labelled.any():
        return
    extent = points[labelled].max(0) - points[labelled].min(0)
    radius = max(0.8, float(extent.max()) / 110)
    lines = [(pair, False) for pair in markup.lines.get("open", [])]
    lines += [(pair, True) for pair in markup.lines.get("ring", [])]
    for (first, last), closed in lines:
        part = np.arange(first, last + 1)
        if labelled[part].all():
            cv2.polylines(canvas, [_fixed(points[part])], closed, colour, max(1, round(radius / 2)), cv2.LINE_AA, SHIFT)
    for point in points[labelled]:
        cv2.circle(canvas, _fixed(point).tolist(), round(radius * 2**SHIFT), colour, -1, cv2.LINE_AA, SHIFT)


def visualize_output(
    images: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray] | None = None,
    labels: Sequence[np.ndarray] | None = None,
    columns: int = 6,
    side: int = 224,
    markup: Markup = IBUG68,
    captions: Sequence[str] | None = None,
) -> np.ndarray:
    """A sheet of face crops with predicted points (green) and labels (orange).

    Args:
        images: gray (h, w) or RGB (h, w, 3) uint8 crops.
        predicted, labels: (K, 2) points for each, CROP pixels.
        side: of a crop on the sheet, pixels.
        captions: a line or more for each, written over its foot.

    Returns:
        RGB uint8.
    """
    tiles = []
    for i, image in enumerate(images):
        factor = side / max(image.shape[:2])
        tile = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR if factor > 1 else cv2.INTER_AREA)
        tile = np.repeat(tile[..., None], 3, 2) if tile.ndim == 2 else tile.copy()
        grow = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2]])
        if labels is not None:
            draw_points(tile, apply(grow, labels[i]), ORANGE, markup)
        if predicted is not None:
            draw_points(tile, apply(grow, predicted[i]), GREEN, markup)
        for line, text in enumerate(reversed(captions[i].splitlines() if captions else [])):
            _write(tile, text, (3, side - 4 - 12 * line), 0.36)
        tiles.append(tile)
    tiles += [np.zeros((side, side, 3), np.uint8)] * (-len(tiles) % min(columns, len(tiles)))
    columns = min(columns, len(tiles))
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def visualize_draws(dataset: FacialKeypointsDataset, markup: Markup, faces: int = 6, draws: int = 7) -> np.ndarray:
    """A sheet of what training sees, with its labels: a face a row, first without a draw, then in `draws` epochs.

    Returns:
        RGB uint8.
    """
    images, labels = [], []
    for face in np.unique(np.linspace(0, len(dataset) - 1, faces).astype(int)).tolist():
        for key in (face, *((epoch, face) for epoch in range(draws))):
            item = dataset[key]
            images.append(as_picture(item["image"]))
            labels.append(apply(item["to_crop"], item["points"]))
    return visualize_output(images, labels=labels, columns=1 + draws, side=160, markup=markup)


def as_picture(image: Tensor) -> np.ndarray:
    """A network's input (C, h, w) in [0, 1] as gray (h, w) or RGB (h, w, 3) uint8."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy().squeeze()


def _write(canvas: np.ndarray, text: str, place: tuple[int, int], size: float) -> None:
    """Letters that can be read on any ground."""
    for colour, thickness in ((BLACK, 3), (WHITE, 1)):
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, thickness, cv2.LINE_AA)


def _fixed(points: np.ndarray) -> np.ndarray:
    """Pixels to OpenCV's fixed-point integers."""
    return np.round(np.asarray(points, float) * 2**SHIFT).astype(np.int32)
