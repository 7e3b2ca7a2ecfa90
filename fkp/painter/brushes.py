"""Brushes: smooth curves, ribbons of varying width, soft masks and noise.

A mask is the part of the picture that it covers and its opacity there, so that a small thing costs little to draw.
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

SUBPIXEL = 4  # cv2 takes polygon corners in 1/16 pixel


class Mask(NamedTuple):
    """A window into the picture and the opacity (height, width) float32 in [0, 1] within it."""

    rows: slice
    columns: slice
    opacity: np.ndarray


def fill(size: tuple[int, int], polygons: list[np.ndarray], soft: float = 0.0) -> Mask:
    """The union of polygons (N, 2) in a picture of (height, width), all in pixels; `soft` blurs its edge."""
    x, y, width, height = cv2.boundingRect(np.concatenate(polygons).astype(np.float32))
    margin = 2 + int(np.ceil(2.5 * soft))
    left, top = max(x - margin, 0), max(y - margin, 0)
    right, bottom = min(x + width + margin, size[1]), min(y + height + margin, size[0])
    if right <= left or bottom <= top:
        return Mask(slice(0, 0), slice(0, 0), np.zeros((0, 0), np.float32))
    opacity = polygon_opacity((bottom - top, right - left), (left, top), polygons, soft)
    return Mask(slice(top, bottom), slice(left, right), opacity)


def draw_inside(mask: Mask, polygons: list[np.ndarray], soft: float = 0.0) -> Mask:
    """What a union of polygons covers of a mask, in the mask's own window."""
    if not mask.opacity.size:
        return mask
    size, corner = mask.opacity.shape, (mask.columns.start, mask.rows.start)
    return mask._replace(opacity=mask.opacity * polygon_opacity(size, corner, polygons, soft))


def polygon_opacity(
    size: tuple[int, ...], corner: tuple[int, int], polygons: list[np.ndarray], soft: float
) -> np.ndarray:
    """The union of polygons in a window of (height, width) whose first pixel is the picture's `corner` (x, y)."""
    drawn = np.zeros(size, np.uint8)
    for polygon in polygons:
        # Clipped, because far outside the window the fixed-point numbers would overflow.
        fixed = np.round((np.clip(polygon, -4000, 4000) - corner) * 2**SUBPIXEL).astype(np.int32)
        cv2.fillPoly(drawn, [fixed], 255, cv2.LINE_AA, SUBPIXEL)
    opacity: np.ndarray = drawn.astype(np.float32) * np.float32(1 / 255)
    if soft > 0.25:  # a blur finer than that is lost on pixels
        opacity = cv2.GaussianBlur(opacity, (0, 0), soft)
    return opacity


def blend(picture: np.ndarray, mask: Mask, colour: ArrayLike, strength: float = 1.0) -> None:
    """Lay a colour, (3,) or (H, W, 3) of the whole picture, over the picture in place."""
    window = picture[mask.rows, mask.columns]
    colour = np.asarray(colour, np.float32)
    if colour.ndim == 3:
        colour = colour[mask.rows, mask.columns]
    window += (mask.opacity * np.float32(strength))[..., None] * (colour - window)


def lay(
    picture: np.ndarray,
    polygons: list[np.ndarray],
    soft: float,
    colour: ArrayLike,
    strength: float = 1.0,
    within: Mask | None = None,
) -> None:
    """Lay a colour over what polygons cover, of the picture or of a mask, in place."""
    mask = (
        fill(picture.shape[:2], polygons, soft)
        if within is None
        else draw_inside(within, polygons, soft)
    )
    blend(picture, mask, colour, strength)


def shade(picture: np.ndarray, mask: Mask, factor: float) -> None:
    """Multiply the picture under the mask by a factor (below 1 darkens), in place."""
    picture[mask.rows, mask.columns] *= (1 + mask.opacity * np.float32(factor - 1))[..., None]


@cache
def spline_matrix(number: int, closed: bool, dense: int) -> np.ndarray:
    """The matrix that takes knots (number, 2) to points of the Catmull-Rom spline through them."""
    segments = number if closed else number - 1
    time = np.arange(dense) / dense
    basis = 0.5 * np.stack([-(time**3) + 2 * time**2 - time, 3 * time**3 - 5 * time**2 + 2,
                            -3 * time**3 + 4 * time**2 + time, time**3 - time**2], axis=1)  # fmt: skip
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
    """A smooth curve through knots (N, 2)."""
    return spline_matrix(len(knots), closed, dense) @ knots


def ribbon(line: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """The outline of a stroke of the given width (one, or one per point) along a line (N, 2)."""
    around = np.concatenate([line[:1], line, line[-1:]])
    x, y = (around[2:] - around[:-2]).T
    half = np.reshape(width, -1) / (2 * np.maximum(np.hypot(x, y), 1e-6))
    aside = np.stack([-y * half, x * half], axis=1)
    return np.concatenate([line + aside, (line - aside)[::-1]])


def ellipse(
    centre: np.ndarray, across: np.ndarray, down: np.ndarray, corners: int = 24, power: float = 1.0
) -> np.ndarray:
    """The outline of an ellipse by its two half axes (vectors); `power` below 1 makes it boxy."""
    angle = 2 * np.pi * np.arange(corners) / corners
    cosine, sine = (
        np.sign(wave) * np.abs(wave) ** power for wave in (np.cos(angle), np.sin(angle))
    )
    return centre + cosine[:, None] * across + sine[:, None] * down


def noise(
    rng: np.random.Generator, size: tuple[int, int], cell: float | tuple[float, float]
) -> np.ndarray:
    """Smooth noise (height, width) float32, about 1 in deviation, in grains of `cell` pixels (down, across)."""
    down, across = cell if isinstance(cell, tuple) else (cell, cell)
    rows, columns = max(2, round(size[0] / down)), max(2, round(size[1] / across))
    grains = rng.standard_normal((rows, columns), dtype=np.float32)
    return cv2.resize(grains, size[::-1], interpolation=cv2.INTER_CUBIC)
