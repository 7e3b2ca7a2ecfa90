"""The coordinate spaces, boxes, and the 2x3 affines between them; nothing else does this arithmetic.

IMAGE space: pixels of the picture as a viewer shows it, x right, y down, the centre of the top-left pixel at
(0, 0). CROP space: pixels of the network's input, same rule. So a pixel's edges lie half a pixel from its centre,
and resizing by s maps x to s * (x + 0.5) - 0.5. Boxes are left, top, right, bottom of the edges.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fkp.markup import IBUG68, Markup

Array = NDArray[np.float64]
IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def translation(x: float, y: float) -> Array:
    """The affine that moves points by (x, y) pixels."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def rescaling(factor: float) -> Array:
    """The affine of resizing a picture by `factor`, pixel edge onto pixel edge."""
    return np.array([[factor, 0.0, (factor - 1) / 2], [0.0, factor, (factor - 1) / 2]])


def rotation(degrees: float, centre: ArrayLike) -> Array:
    """The affine that turns points about `centre`, clockwise as the picture is seen."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.asarray(centre, float)
    return np.hstack([turn, (centre - turn @ centre)[:, None]])


def compose(*affines: Array) -> Array:
    """One affine that applies the given ones in their order, the first first."""
    whole = IDENTITY
    for affine in affines:
        whole = np.hstack([affine[:, :2] @ whole[:, :2], affine[:, :2] @ whole[:, 2:] + affine[:, 2:]])
    return whole


def invert(affine: Array) -> Array:
    """The affine that leads back."""
    back = np.linalg.inv(affine[:, :2])
    return np.hstack([back, -back @ affine[:, 2:]])


def apply(affine: ArrayLike, points: ArrayLike) -> Array:
    """Map points (..., 2) through an affine (2, 3)."""
    affine = np.asarray(affine, float)
    return np.asarray(points, float) @ affine[:, :2].T + affine[:, 2]


def face_box(points: ArrayLike, markup: Markup = IBUG68) -> NDArray[np.float32]:
    """The face box the shipped detector (Haar cascade) would have drawn round these points.

    A square: its centre `up` above the mean of the points, its side `side`, both in units of sqrt(w * h) of the
    points' extent; the two constants are medians over real Haar boxes (`benchmarks/boxes.py`).

    Args:
        points: (K, 2), IMAGE pixels; NaN where a point is not labelled.

    Returns:
        (4,) float32: left, top, right, bottom, IMAGE pixels.
    """
    points = np.asarray(points, float)
    unit = float(np.sqrt(np.prod(np.nanmax(points, 0) - np.nanmin(points, 0))))
    x, y = np.nanmean(points, 0) - (0.0, markup.box["up"] * unit)
    half = markup.box["side"] * unit / 2
    return np.array([x - half, y - half, x + half, y + half], np.float32)


def centre_and_side(box: ArrayLike) -> tuple[float, float, float]:
    """A box's centre x, y and the geometric mean of its sides."""
    left, top, right, bottom = (float(v) for v in np.asarray(box))
    return (left + right) / 2, (top + bottom) / 2, float(np.sqrt((right - left) * (bottom - top)))


def square(x: float, y: float, side: float) -> Array:
    """The box (4,) of a square with this centre and side."""
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def overlap(a: ArrayLike, b: ArrayLike) -> float:
    """Intersection over union of two boxes."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared, 1e-9)


def warp(image: np.ndarray, affine: Array, size: tuple[int, int]) -> np.ndarray:
    """Resample a picture through an affine, black outside it.

    Args:
        image: (H, W) or (H, W, C) uint8.
        affine: (2, 3), from the picture's pixels to those of the result.
        size: width, height of the result.
    """
    shrink = int(1 / np.sqrt(abs(np.linalg.det(affine[:, :2]))) + 1e-6)
    if shrink >= 2:
        # Bilinear sampling skips pixels when it shrinks; averaging whole blocks first does not.
        height, width = image.shape[:2]
        corners = apply(invert(affine), [[0, 0], [size[0], 0], [0, size[1]], [size[0], size[1]]])
        lo = np.clip(np.floor(corners.min(0)) - shrink, 0, (width, height)).astype(int)
        hi = np.clip(np.ceil(corners.max(0)) + shrink, 0, (width, height)).astype(int)
        blocks = (hi - lo) // shrink
        if (blocks > 0).all():
            hi = lo + blocks * shrink
            image = cv2.resize(
                image[lo[1] : hi[1], lo[0] : hi[0]], tuple(blocks.tolist()), interpolation=cv2.INTER_AREA
            )
            affine = compose(rescaling(shrink), translation(float(lo[0]), float(lo[1])), affine)
    return cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
