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
# Boxes are drawn round FEWEST points or more: those drawn round two have them always at one place, so that a network
# would learn nothing. Of how far points reach, in box sides: below LEAST they do not tell a face's size; and at DOUBT
# what found points tell of it is as uncertain as the detector's box (points err by 2 % of a box, and boxes by 8 %).
FEWEST, LEAST, DOUBT = 3, 0.1, 0.2
FAR = 4.0  # a box so much smaller or larger than another shows another thing


def translation(x: ArrayLike, y: ArrayLike) -> Array:
    """The affine that moves points by (x, y) pixels; (..., 2, 3) for arrays (...)."""
    return _affine(1.0, 0.0, x, 0.0, 1.0, y)


def rescaling(factor: ArrayLike) -> Array:
    """The affine of resizing a picture by `factor`, pixel edge onto pixel edge; (..., 2, 3) for arrays (...)."""
    factor = np.asarray(factor, float)
    return _affine(factor, 0.0, (factor - 1) / 2, 0.0, factor, (factor - 1) / 2)


def rotation(degrees: ArrayLike, centre: ArrayLike) -> Array:
    """The affine that turns points about `centre` (..., 2), clockwise as the picture is seen."""
    angle, centre = np.deg2rad(degrees), np.asarray(centre, float)
    cos, sin, x, y = np.cos(angle), np.sin(angle), centre[..., 0], centre[..., 1]
    return _affine(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def stretching(factor: ArrayLike, degrees: ArrayLike, centre: ArrayLike) -> Array:
    """The affine that makes pictures `factor` longer along a direction (degrees clockwise from x) and as much narrower
    across it, about `centre` (..., 2): areas stay."""
    longer, angle, centre = np.asarray(factor, float), np.deg2rad(degrees), np.asarray(centre, float)
    cos, sin, narrower = np.cos(angle), np.sin(angle), 1 / longer
    a, d = cos**2 * longer + sin**2 * narrower, sin**2 * longer + cos**2 * narrower
    b = cos * sin * (longer - narrower)
    x, y = centre[..., 0], centre[..., 1]
    return _affine(a, b, x - a * x - b * y, b, d, y - b * x - d * y)


def mirroring(width: ArrayLike) -> Array:
    """The affine of a picture `width` pixels wide seen in a mirror; (..., 2, 3) for arrays (...)."""
    return _affine(-1.0, 0.0, np.asarray(width, float) - 1, 0.0, 1.0, 0.0)


def _affine(*entries: ArrayLike) -> Array:
    rows = np.stack(np.broadcast_arrays(*entries), -1).astype(float)
    return rows.reshape(*rows.shape[:-1], 2, 3)


def compose(*affines: Array) -> Array:
    """One affine that applies the given ones (..., 2, 3) in their order, the first first."""
    whole = affines[0]
    for affine in affines[1:]:
        linear = affine[..., :2]
        whole = np.concatenate([linear @ whole[..., :2], linear @ whole[..., 2:] + affine[..., 2:]], -1)
    return whole


def invert(affine: Array) -> Array:
    """The affine (..., 2, 3) that leads back."""
    a, b, x, c, d, y = np.moveaxis(affine.reshape(*affine.shape[:-2], 6), -1, 0)
    area = a * d - b * c  # by hand: ten times quicker than a general inverse
    return _affine(d / area, -b / area, (b * y - d * x) / area, -c / area, a / area, (c * x - a * y) / area)


def enlargement(affine: Array) -> Array:
    """By how much affines (..., 2, 3) lengthen lines: the root of the factor of areas, (...)."""
    return np.sqrt(np.abs(affine[..., 0, 0] * affine[..., 1, 1] - affine[..., 0, 1] * affine[..., 1, 0]))


def apply(affine: ArrayLike, points: ArrayLike) -> Array:
    """Map points (..., 2) through an affine (2, 3), or each row of (F, K, 2) through its own of (F, 2, 3)."""
    affine, points = np.asarray(affine, float), np.asarray(points, float)
    offset = affine[..., 2] if affine.ndim == 2 else affine[..., None, :, 2]
    return points @ affine[..., :2].swapaxes(-1, -2) + offset


def face_box(points: ArrayLike, markup: Markup = IBUG68) -> NDArray[np.float32]:
    """The face box the shipped detector (Haar cascade) would have drawn round these points.

    A square. With the markup's `box`, its centre is `up` above the mean of the points, its side `side`, both in units
    of sqrt(w * h) of the points' extent; the two constants are medians over real Haar boxes (`benchmarks/boxes.py`).
    With its `frame`, which a training has measured, the median face is moved, scaled and turned onto the points, and
    its box with it.

    Args:
        points: (K, 2), IMAGE pixels; NaN where a point is not labelled.

    Returns:
        (4,) float32: left, top, right, bottom, IMAGE pixels; NaN with a `frame` where the points do not tell the
        size of a face well, as one or two do not.
    """
    points = np.asarray(points, float)
    if markup.frame is not None:
        centre, side, _, reach = placed(points[None], markup)
        enough = reach[0] >= LEAST and np.isfinite(points).all(1).sum() >= FEWEST
        return square(centre[0, 0], centre[0, 1], side[0] if enough else np.nan).astype(np.float32)
    up, size = (0.0, 1.5) if markup.box is None else (markup.box["up"], markup.box["side"])
    unit = float(np.sqrt(np.prod(np.nanmax(points, 0) - np.nanmin(points, 0))))
    x, y = np.nanmean(points, 0) - (0.0, up * unit)
    half = size * unit / 2
    return np.array([x - half, y - half, x + half, y + half], np.float32)


def tilted_box(points: ArrayLike, markup: Markup = IBUG68) -> tuple[NDArray[np.float32], float]:
    """`face_box` of a face as if it were upright, turned with it about the mean of the points.

    Args:
        points: (K, 2), IMAGE pixels.

    Returns:
        (4,) float32, the box to be turned about its own centre, and the tilt, degrees clockwise: how far the median
        face is turned with the markup's `frame`, or else the angle of the line from the first to the second of its
        normalising pair.
    """
    points = np.asarray(points, float)
    if markup.frame is not None:
        return face_box(points, markup), float(placed(points[None], markup)[2][0])
    first, second = markup.eyes
    across, down = points[second] - points[first]
    tilt = float(np.rad2deg(np.arctan2(down, across)))
    middle = points.mean(0)
    upright = face_box(apply(rotation(-tilt, middle), points), markup)
    x, y, side = centre_and_side(upright)
    x, y = apply(rotation(tilt, middle), np.array([x, y]))
    return square(x, y, side).astype(np.float32), tilt


def reframed(points: np.ndarray, boxes: np.ndarray, tilts: np.ndarray, markup: Markup) -> tuple[np.ndarray, np.ndarray]:
    """The boxes and tilts for another look at faces whose points have been found.

    They are those of `tilted_box`. With a measured `frame`, points that lie near to each other say little of the size
    and tilt of a face, and one alone nothing; and few points say less than a detector of where its box is, as the
    frame's `trust` tells. What they do not say stays as it was.

    Args:
        points: (F, K, 2), IMAGE pixels.
        boxes: (F, 4), in which they were found.
        tilts: (F,) degrees clockwise, of those boxes.

    Returns:
        boxes (F, 4) float32 and tilts (F,).
    """
    if markup.frame is None or not len(points):
        frames = [tilted_box(face, markup) for face in points]
        return np.array([box for box, _ in frames]).reshape(-1, 4), np.array([tilt for _, tilt in frames])
    x, y, before = centre_and_side(boxes)
    _, said, turned, reach = placed(points, markup)
    of_centre, of_side = markup.frame.get("trust", (1.0, 1.0))
    trust = reach**2 / (reach**2 + DOUBT**2)

    side = before ** (1 - of_side * trust) * said ** (of_side * trust)
    tilts = tilts + trust * ((turned - tilts + 180) % 360 - 180)
    centre = np.stack([x, y], -1)
    centre = centre + of_centre * (placed(points, markup, side, tilts)[0] - centre)
    return square(centre[:, 0], centre[:, 1], side).astype(np.float32), tilts


def strayed(boxes: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Whether boxes (F, 4) can be no better look at the faces of other boxes (F, 4): far smaller, larger, or away."""
    x, y, side = centre_and_side(boxes)
    given_x, given_y, given_side = centre_and_side(given)
    larger, smaller = np.maximum(side, given_side), np.minimum(side, given_side)
    return ~((larger <= FAR * smaller) & (np.hypot(x - given_x, y - given_y) <= larger))


def placed(
    points: np.ndarray, markup: Markup, side: np.ndarray | None = None, tilts: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The similarity that lays the markup's frame onto points (F, K, 2), over those that are labelled.

    The sizes of both are compared by the root of the mean square, which turned heads and mirror images change little.

    Args:
        side, tilts: (F,), if they are known otherwise.

    Returns:
        centres (F, 2) and sides (F,) of the boxes, IMAGE pixels; tilts (F,), degrees clockwise; and how far the points
        reach (F,): the root of the sum of their squared distances from their middle, in box sides.
    """
    assert markup.frame is not None
    frame = markup.median_face
    known = np.isfinite(points).all(2) & np.isfinite(frame).all(1)  # (F, K)
    count = np.maximum(known.sum(1, keepdims=True), 1)
    z = np.where(known, points[..., 0] + 1j * points[..., 1], 0)
    m = np.where(known, frame[:, 0] + 1j * frame[:, 1], 0)
    z_middle, m_middle = z.sum(1, keepdims=True) / count, m.sum(1, keepdims=True) / count
    z, m = np.where(known, z - z_middle, 0), np.where(known, m - m_middle, 0)

    reach = np.sqrt((np.abs(m) ** 2).sum(1))
    if side is None:
        side = np.sqrt((np.abs(z) ** 2).sum(1)) / np.maximum(reach, 1e-9)
    if tilts is None:
        tilts = np.rad2deg(np.angle((m.conj() * z).sum(1))) if markup.frame["roll"] else np.zeros(len(z))
    centre = z_middle[:, 0] - side * np.exp(1j * np.deg2rad(tilts)) * m_middle[:, 0]
    centre = np.where(known.any(1), centre, np.nan)
    return np.stack([centre.real, centre.imag], -1), side, tilts, reach


def centre_and_side(box: ArrayLike) -> tuple[Array, Array, Array]:
    """Boxes' (..., 4) centres x, y and the geometric means of their sides, each (...)."""
    left, top, right, bottom = np.moveaxis(np.asarray(box, float), -1, 0)
    return (left + right) / 2, (top + bottom) / 2, np.sqrt((right - left) * (bottom - top))


def square(x: ArrayLike, y: ArrayLike, side: ArrayLike) -> Array:
    """The boxes (..., 4) of squares with these centres and sides, each (...)."""
    x, y, half = np.asarray(x), np.asarray(y), np.asarray(side) / 2
    return np.stack([x - half, y - half, x + half, y + half], -1)


def overlap(a: ArrayLike, b: ArrayLike) -> float:
    """Intersection over union of two boxes."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    shared = shared_area(a, b)
    return shared / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared, 1e-9)


def nesting(a: ArrayLike, b: ArrayLike) -> float:
    """Intersection of two boxes over the area of the smaller: 1 where one lies in the other."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return shared_area(a, b) / max(float(min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))), 1e-9)


def shared_area(a: Array, b: Array) -> float:
    """Area of the intersection of two boxes, square pixels."""
    return float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))


def warp(image: np.ndarray, affine: Array, size: tuple[int, int]) -> np.ndarray:
    """Resample a picture through an affine, black outside it.

    Args:
        image: (H, W) or (H, W, C) uint8.
        affine: (2, 3), from the picture's pixels to those of the result.
        size: width, height of the result.
    """
    image, affine = shrunk(image, affine, size)
    return cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def shrunk(image: np.ndarray, affine: Array, size: tuple[int, int]) -> tuple[np.ndarray, Array]:
    """The picture, in whole blocks averaged, and the affine from it, so that bilinear sampling skips no pixel."""
    shrink = int(1 / enlargement(affine) + 1e-6)
    if shrink >= 2:
        height, width = image.shape[:2]
        corners = apply(invert(affine), [[0, 0], [size[0], 0], [0, size[1]], [size[0], size[1]]])
        lo = np.clip(np.floor(corners.min(0)) - shrink, 0, (width, height)).astype(int)
        hi = np.clip(np.ceil(corners.max(0)) + shrink, 0, (width, height)).astype(int)
        blocks = (hi - lo) // shrink
        if (blocks > 0).all():
            hi = lo + blocks * shrink
            part, blocks = image[lo[1] : hi[1], lo[0] : hi[0]], tuple(blocks.tolist())
            image = cv2.resize(part, blocks, interpolation=cv2.INTER_AREA).reshape(*blocks[::-1], *image.shape[2:])
            affine = compose(rescaling(shrink), translation(float(lo[0]), float(lo[1])), affine)
    return image, affine
