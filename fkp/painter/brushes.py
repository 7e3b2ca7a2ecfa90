"""Brushes: smooth curves, ribbons of varying width, soft masks and noise.

A mask covers only a window of the image, so that small things are cheap to draw.
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

# OpenCV takes polygon corners in units of 1/16 pixel.
SUBPIXEL = 4


class Mask(NamedTuple):
    """A window of the image, and the opacity (height, width) float32 in [0, 1] within it."""

    rows: slice
    columns: slice
    opacity: np.ndarray


def fill(size: tuple[int, int], polygons: list[np.ndarray], soft: float = 0.0) -> Mask:
    """Fill the union of polygons (N, 2).

    Args:
        size: height, width of the image.
        polygons: in pixels.
        soft: standard deviation of the blur of the edge, pixels.
    """
    x, y, width, height = cv2.boundingRect(np.concatenate(polygons).astype(np.float32))
    margin = 2 + int(np.ceil(2.5 * soft))
    left, top = max(x - margin, 0), max(y - margin, 0)
    right, bottom = min(x + width + margin, size[1]), min(y + height + margin, size[0])
    if right <= left or bottom <= top:
        return Mask(slice(0, 0), slice(0, 0), np.zeros((0, 0), np.float32))
    opacity = polygon_opacity((bottom - top, right - left), (left, top), polygons, soft)
    return Mask(slice(top, bottom), slice(left, right), opacity)


def draw_inside(mask: Mask, polygons: list[np.ndarray], soft: float = 0.0) -> Mask:
    """Intersect a mask with a union of polygons, in the mask's own window."""
    if not mask.opacity.size:
        return mask
    size, corner = mask.opacity.shape, (mask.columns.start, mask.rows.start)
    return mask._replace(opacity=mask.opacity * polygon_opacity(size, corner, polygons, soft))


def polygon_opacity(
    size: tuple[int, ...], corner: tuple[int, int], polygons: list[np.ndarray], soft: float
) -> np.ndarray:
    """Return the opacity of polygons in a window.

    Args:
        size: height, width of the window.
        corner: x, y of its first pixel in the image.
        polygons: (N, 2) each, pixels of the image.
        soft: standard deviation of the blur of the edge, pixels.
    """
    drawn = np.zeros(size, np.uint8)
    for polygon in polygons:
        # Clipped, because far outside the window the fixed-point numbers would overflow.
        fixed = np.round((np.clip(polygon, -4000, 4000) - corner) * 2**SUBPIXEL).astype(np.int32)
        cv2.fillPoly(drawn, [fixed], 255, cv2.LINE_AA, SUBPIXEL)
    opacity: np.ndarray = drawn.astype(np.float32) * np.float32(1 / 255)
    # A finer blur is not visible.
    if soft > 0.25:
        opacity = cv2.GaussianBlur(opacity, (0, 0), soft)
    return opacity


def blend(image: np.ndarray, mask: Mask, colour: ArrayLike, strength: float = 1.0) -> None:
    """Blend a colour, (3,) or (H, W, 3) of the whole image, over the image, in place."""
    window = image[mask.rows, mask.columns]
    colour = np.asarray(colour, np.float32)
    if colour.ndim == 3:
        colour = colour[mask.rows, mask.columns]
    window += (mask.opacity * np.float32(strength))[..., None] * (colour - window)


def lay(
    image: np.ndarray,
    polygons: list[np.ndarray],
    soft: float,
    colour: ArrayLike,
    strength: float = 1.0,
    within: Mask | None = None,
) -> None:
    """Blend a colour over the polygons, or over their part within a mask, in place."""
    mask = (
        fill(image.shape[:2], polygons, soft)
        if within is None
        else draw_inside(within, polygons, soft)
    )
    blend(image, mask, colour, strength)


def shade(image: np.ndarray, mask: Mask, factor: float) -> None:
    """Multiply the image under the mask by a factor (below 1 darkens), in place."""
    image[mask.rows, mask.columns] *= (1 + mask.opacity * np.float32(factor - 1))[..., None]


@cache
def spline_matrix(number: int, closed: bool, dense: int) -> np.ndarray:
    """Return the matrix from knots (number, 2) to points of the Catmull-Rom spline through them."""
    segments = number if closed else number - 1
    time = np.arange(dense) / dense
    basis = 0.5 * np.stack(
        [
            -(time**3) + 2 * time**2 - time,
            3 * time**3 - 5 * time**2 + 2,
            -3 * time**3 + 4 * time**2 + time,
            time**3 - time**2,
        ],
        axis=1,
    )
    rows = np.zeros((segments * dense + (not closed), number))
    for segment in range(segments):
        for offset in range(4):
            knot = segment + offset - 1
            knot = knot % number if closed else min(max(knot, 0), number - 1)
            rows[segment * dense : (segment + 1) * dense, knot] += basis[:, offset]
    if not closed:
        rows[-1, -1] = 1
    return rows


def curve(knots: np.ndarray, closed: bool = False, dense: int = 5) -> np.ndarray:
    """Return a smooth curve (M, 2) through knots (N, 2)."""
    return spline_matrix(len(knots), closed, dense) @ knots


def ribbon(line: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Return the outline of a stroke along a line (N, 2), of one width or of one per point."""
    around = np.concatenate([line[:1], line, line[-1:]])
    x, y = (around[2:] - around[:-2]).T
    half = np.reshape(width, -1) / (2 * np.maximum(np.hypot(x, y), 1e-6))
    aside = np.stack([-y * half, x * half], axis=1)
    return np.concatenate([line + aside, (line - aside)[::-1]])


def ellipse(
    centre: np.ndarray, across: np.ndarray, down: np.ndarray, corners: int = 24, power: float = 1.0
) -> np.ndarray:
    """Return the outline of an ellipse with two half axes (2,); `power` below 1 makes it boxy."""
    angle = 2 * np.pi * np.arange(corners) / corners
    cosine, sine = (
        np.sign(wave) * np.abs(wave) ** power for wave in (np.cos(angle), np.sin(angle))
    )
    return centre + cosine[:, None] * across + sine[:, None] * down


def noise(
    rng: np.random.Generator, size: tuple[int, int], cell: float | tuple[float, float]
) -> np.ndarray:
    """Return smooth noise (height, width) float32 of a standard deviation of about 1.

    Args:
        rng: is drawn from.
        size: height, width.
        cell: side of a grain, pixels, or (down, across).
    """
    down, across = cell if isinstance(cell, tuple) else (cell, cell)
    rows, columns = max(2, round(size[0] / down)), max(2, round(size[1] / across))
    grains = rng.standard_normal((rows, columns), dtype=np.float32)
    return cv2.resize(grains, size[::-1], interpolation=cv2.INTER_CUBIC)
