"""Coordinate spaces, boxes, and the 2x3 affines between them; the only place with this arithmetic.

IMAGE space: pixels of the image as a viewer shows it, x right, y down, the centre of the top-left
pixel at (0, 0). CROP space: pixels of the network's input, same rule. So the edges of a pixel lie
half a pixel from its centre, and resizing by s maps x to s * (x + 0.5) - 0.5.

Boxes are left, top, right, bottom. Affines are (2, 3), or (..., 2, 3) for many at once.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fkp.markup import IBUG68, Markup

Array = NDArray[np.float64]
IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

# The reach of points is the root of the sum of their squared distances from their mean, in box
# sides. Fewer points, or points of a smaller reach, do not determine the box of a face.
MIN_POINTS = 3
MIN_REACH = 0.1

# The reach at which predicted points determine the box as well as a detector does: points err by
# about 2 % of a box, and boxes by 8 %.
EQUAL_REACH = 0.2

# A refined box that is so many times smaller or larger than the given one shows something else.
MAX_RATIO = 4.0

# Without a measured box: side of the box in units of sqrt(w * h) of the points' extent, and how far
# its centre lies above the mean of the points.
DEFAULT_UP, DEFAULT_SIDE = 0.0, 1.5


def translation(x: ArrayLike, y: ArrayLike) -> Array:
    """Build the affine that moves points by (x, y) pixels; (..., 2, 3) for arrays (...)."""
    return _affine(1.0, 0.0, x, 0.0, 1.0, y)


def from_corner(pixels: ArrayLike) -> Array:
    """Convert coordinates that count from the corner of the top-left pixel to IMAGE pixels.

    Such files give the centre of that pixel as (0.5, 0.5), and the lower right edge as (w, h).
    """
    return np.asarray(pixels, float) - 0.5


def to_corner(points: ArrayLike) -> Array:
    """Convert IMAGE pixels to coordinates that count from the corner of the top-left pixel."""
    return np.asarray(points, float) + 0.5


def from_one(pixels: ArrayLike) -> Array:
    """Convert coordinates that count pixels from 1, as MATLAB does, to IMAGE pixels."""
    return np.asarray(pixels, float) - 1


def to_one(points: ArrayLike) -> Array:
    """Convert IMAGE pixels to coordinates that count pixels from 1."""
    return np.asarray(points, float) + 1


def rescaling(factor: ArrayLike) -> Array:
    """Build the affine of resizing an image by `factor`; (..., 2, 3) for arrays (...).

    The edges of the image are mapped to edges, not the centres of its outer pixels to centres.
    """
    factor = np.asarray(factor, float)
    return _affine(factor, 0.0, (factor - 1) / 2, 0.0, factor, (factor - 1) / 2)


def rotation(degrees: ArrayLike, centre: ArrayLike) -> Array:
    """Build the affine that rotates points about `centre` (..., 2), clockwise as one sees it."""
    angle, centre = np.deg2rad(degrees), np.asarray(centre, float)
    cos, sin, x, y = np.cos(angle), np.sin(angle), centre[..., 0], centre[..., 1]
    return _affine(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def stretching(factor: ArrayLike, degrees: ArrayLike, centre: ArrayLike) -> Array:
    """Build the affine that stretches images along one direction and keeps areas.

    Args:
        factor: (...), stretches along the direction; its inverse stretches across it.
        degrees: (...), the direction, clockwise from x.
        centre: (..., 2), the point that stays in place.

    Returns:
        (..., 2, 3).
    """
    longer, angle = np.asarray(factor, float), np.deg2rad(degrees)
    centre = np.asarray(centre, float)
    cos, sin, narrower = np.cos(angle), np.sin(angle), 1 / longer

    # The symmetric matrix [[a, b], [b, d]] with these two eigenvalues.
    a = cos**2 * longer + sin**2 * narrower
    d = sin**2 * longer + cos**2 * narrower
    b = cos * sin * (longer - narrower)
    x, y = centre[..., 0], centre[..., 1]
    return _affine(a, b, x - a * x - b * y, b, d, y - b * x - d * y)


def mirroring(width: ArrayLike) -> Array:
    """Build the affine that mirrors an image `width` pixels wide; (..., 2, 3) for arrays (...)."""
    return _affine(-1.0, 0.0, np.asarray(width, float) - 1, 0.0, 1.0, 0.0)


def _affine(*entries: ArrayLike) -> Array:
    """Stack six entries, row by row, each (...), to affines (..., 2, 3)."""
    shape = np.broadcast_shapes(*(np.shape(entry) for entry in entries))
    rows = np.empty((*shape, 6))  # three times as fast as np.stack
    for i, entry in enumerate(entries):
        rows[..., i] = entry
    return rows.reshape(*shape, 2, 3)


def similarity(points: ArrayLike, shape: ArrayLike) -> Array:
    """Fit the affines (F, 2, 3) that map points (F, K, 2) to a shape (K, 2), in least squares.

    They rotate, scale and move; they neither shear nor mirror.
    """
    points, shape = np.asarray(points, float), np.asarray(shape, float)

    # As complex numbers, in which a similarity is one factor and one offset.
    face = points[..., 0] + 1j * points[..., 1]  # (F, K)
    target = shape[:, 0] + 1j * shape[:, 1]  # (K,)
    face_mean, target_mean = face.mean(1, keepdims=True), target.mean()
    face, target = face - face_mean, target - target_mean
    factor = (face.conj() * target).sum(1) / np.maximum((np.abs(face) ** 2).sum(1), 1e-12)
    offset = target_mean - factor * face_mean[:, 0]
    return _affine(factor.real, -factor.imag, offset.real, factor.imag, factor.real, offset.imag)


def compose(*affines: Array) -> Array:
    """Return one affine that applies the given ones (..., 2, 3), the first first."""
    composed = affines[0]
    for affine in affines[1:]:
        linear = affine[..., :2]
        offset = linear @ composed[..., 2:] + affine[..., 2:]
        composed = np.concatenate([linear @ composed[..., :2], offset], -1)
    return composed


def invert(affine: Array) -> Array:
    """Return the inverse of affines (..., 2, 3)."""
    a, b, x, c, d, y = np.moveaxis(affine.reshape(*affine.shape[:-2], 6), -1, 0)
    # Explicit formulas: ten times quicker than a general inverse.
    det = a * d - b * c
    return _affine(
        d / det, -b / det, (b * y - d * x) / det, -c / det, a / det, (c * x - a * y) / det
    )


def scale_of(affine: Array) -> Array:
    """Return the mean scale of affines (..., 2, 3): the root of the scale of areas, (...)."""
    a, b = affine[..., 0, 0], affine[..., 0, 1]
    c, d = affine[..., 1, 0], affine[..., 1, 1]
    return np.sqrt(np.abs(a * d - b * c))


def apply(affine: ArrayLike, points: ArrayLike) -> Array:
    """Map points through an affine.

    Args:
        affine: (2, 3), or (F, 2, 3), one for each face.
        points: (..., 2), or (F, K, 2).

    Returns:
        of the shape of `points`.
    """
    affine, points = np.asarray(affine, float), np.asarray(points, float)
    offset = affine[..., 2] if affine.ndim == 2 else affine[..., None, :, 2]
    return points @ affine[..., :2].swapaxes(-1, -2) + offset


def face_box(points: ArrayLike, markup: Markup = IBUG68) -> NDArray[np.float32]:
    """Return the face box that the shipped detector would have drawn round these points.

    The box is a square, as the detector's (a Haar cascade) are. It is computed from the markup's:

    - `frame`, which a training has measured: the median face is fitted to the points by a
      similarity, and its box is moved with it;
    - or else `box`: the centre is `up` above the mean of the points and the side is `side`, both in
      units of sqrt(w * h) of the points' extent. The two constants are medians over the detector's
      boxes on real faces.

    Args:
        points: (K, 2), IMAGE pixels; NaN where a point is not labelled.
        markup: of the points.

    Returns:
        (4,) float32: left, top, right, bottom, IMAGE pixels; NaN where the points do not determine
        the size of a face well, as one or two points with a `frame` do not.
    """
    points = np.asarray(points, float)

    if markup.frame is not None:
        centres, sides, _, reaches = placed(points[None], markup)
        x, y = centres[0]
        # Two points would always lie at the same places of their box: a network would learn
        # nothing.
        labelled = np.isfinite(points).all(1).sum()
        enough = reaches[0] >= MIN_REACH and labelled >= MIN_POINTS
        side = sides[0] if enough else np.nan
        return square(x, y, side).astype(np.float32)

    up, size = DEFAULT_UP, DEFAULT_SIDE
    if markup.box is not None:
        up, size = markup.box["up"], markup.box["side"]
    unit = float(np.sqrt(np.prod(np.nanmax(points, 0) - np.nanmin(points, 0))))
    x, y = np.nanmean(points, 0) - (0.0, up * unit)
    return square(x, y, size * unit).astype(np.float32)


def rolled_box(points: ArrayLike, markup: Markup = IBUG68) -> tuple[NDArray[np.float32], float]:
    """Return the face box of a rotated face: that of the upright face, and the roll.

    Args:
        points: (K, 2), IMAGE pixels.
        markup: of the points.

    Returns:
        (4,) float32, the box, which is to be rotated about its own centre; and the roll in degrees
        clockwise: the rotation of the fitted median face, if the markup has a `frame`, or else the
        angle of the line between the points of its normalising pair.
    """
    points = np.asarray(points, float)
    if markup.frame is not None:
        return face_box(points, markup), float(placed(points[None], markup)[2][0])

    first, second = markup.eyes
    across, down = points[second] - points[first]
    roll = float(np.rad2deg(np.arctan2(down, across)))

    # Rotate the face upright about its mean, find its box, and rotate the box's centre back.
    mean = points.mean(0)
    upright = face_box(apply(rotation(-roll, mean), points), markup)
    x, y, side = centre_and_side(upright)
    x, y = apply(rotation(roll, mean), np.array([x, y]))
    return square(x, y, side).astype(np.float32), roll


def reframed(
    points: np.ndarray, boxes: np.ndarray, rolls: np.ndarray, markup: Markup
) -> tuple[np.ndarray, np.ndarray]:
    """Compute boxes and rolls for another refinement step, from the predicted points.

    They are those of `rolled_box`. With a measured `frame`, they are a compromise with the boxes
    before: points close to each other determine size and roll poorly, a single point not at all;
    and few points determine the place of the box less well than a detector, as the frame's `trust`
    says.

    Args:
        points: (F, K, 2), IMAGE pixels.
        boxes: (F, 4), in which the points were predicted.
        rolls: (F,) of these boxes, degrees clockwise.
        markup: of the points.

    Returns:
        boxes (F, 4) float32 and rolls (F,).
    """
    if markup.frame is None or not len(points):
        frames = [rolled_box(face, markup) for face in points]
        new_boxes = np.array([box for box, _ in frames]).reshape(-1, 4)
        return new_boxes, np.array([roll for _, roll in frames])

    # Weight of the points: 1/2 at EQUAL_REACH.
    x, y, old_side = centre_and_side(boxes)
    trust_centre, trust_side = markup.frame.get("trust", (1.0, 1.0))
    _, new_side, new_rolls, reach = placed(points, markup)
    weight = reach**2 / (reach**2 + EQUAL_REACH**2)

    # Sides are averaged as logarithms, rolls along the shorter arc.
    side = old_side ** (1 - trust_side * weight) * new_side ** (trust_side * weight)
    rolls = rolls + weight * ((new_rolls - rolls + 180) % 360 - 180)

    new_centre, *_ = placed(points, markup, side, rolls)
    old_centre = np.stack([x, y], -1)
    centre = old_centre + trust_centre * (new_centre - old_centre)
    return square(centre[:, 0], centre[:, 1], side).astype(np.float32), rolls


def strayed(boxes: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Find refined boxes (F, 4) that have left the faces of the given boxes (F, 4).

    Returns:
        (F,) bool: far smaller, far larger, or elsewhere.
    """
    x, y, side = centre_and_side(boxes)
    given_x, given_y, given_side = centre_and_side(given)
    larger, smaller = np.maximum(side, given_side), np.minimum(side, given_side)
    distance = np.hypot(x - given_x, y - given_y)
    # Negated, so that NaN counts as strayed.
    return ~((larger <= MAX_RATIO * smaller) & (distance <= larger))


def placed(
    points: np.ndarray,
    markup: Markup,
    side: np.ndarray | None = None,
    rolls: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fit the markup's median face to the labelled points of faces, by a similarity.

    The scale is the ratio of the root mean squares of both, which yaw and mirroring change little.

    Args:
        points: (F, K, 2), IMAGE pixels; NaN where not labelled.
        markup: has a `frame`.
        side: (F,) of the boxes, if known.
        rolls: (F,) degrees clockwise, if known.

    Returns:
        centres (F, 2) and sides (F,) of the boxes, IMAGE pixels; rolls (F,), degrees clockwise; and
        the reach (F,) of the labelled points of the median face, in box sides.
    """
    assert markup.frame is not None
    frame = markup.median_face  # (K, 2)
    known = np.isfinite(points).all(2) & np.isfinite(frame).all(1)  # (F, K)
    count = np.maximum(known.sum(1, keepdims=True), 1)

    # Faces and median face as complex numbers, in which a similarity is one factor; both centred.
    face = np.where(known, points[..., 0] + 1j * points[..., 1], 0)  # (F, K)
    median = np.where(known, frame[:, 0] + 1j * frame[:, 1], 0)  # (F, K)
    face_mean = face.sum(1, keepdims=True) / count  # (F, 1)
    median_mean = median.sum(1, keepdims=True) / count  # (F, 1)
    face = np.where(known, face - face_mean, 0)
    median = np.where(known, median - median_mean, 0)

    # Scale.
    reach = np.sqrt((np.abs(median) ** 2).sum(1))
    if side is None:
        side = np.sqrt((np.abs(face) ** 2).sum(1)) / np.maximum(reach, 1e-9)

    # Rotation.
    if rolls is None and markup.frame["roll"]:
        rolls = np.rad2deg(np.angle((median.conj() * face).sum(1)))
    elif rolls is None:
        rolls = np.zeros(len(face))

    # Translation: the box's centre is the origin of the median face.
    centre = face_mean[:, 0] - side * np.exp(1j * np.deg2rad(rolls)) * median_mean[:, 0]
    centre = np.where(known.any(1), centre, np.nan)
    return np.stack([centre.real, centre.imag], -1), side, rolls, reach


def centre_and_side(box: ArrayLike) -> tuple[Array, Array, Array]:
    """Return x and y of the centres of boxes (..., 4), and the geometric means of their sides.

    Returns:
        three arrays (...).
    """
    left, top, right, bottom = np.moveaxis(np.asarray(box, float), -1, 0)
    return (left + right) / 2, (top + bottom) / 2, np.sqrt((right - left) * (bottom - top))


def square(x: ArrayLike, y: ArrayLike, side: ArrayLike) -> Array:
    """Return the square boxes (..., 4) with these centres and sides, each (...)."""
    x, y, half = np.asarray(x), np.asarray(y), np.asarray(side) / 2
    return np.stack([x - half, y - half, x + half, y + half], -1)


def overlap(a: ArrayLike, b: ArrayLike) -> float:
    """Compute the intersection over union of two boxes (4,)."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    shared = shared_area(a, b)
    return shared / max(_area(a) + _area(b) - shared, 1e-9)


def nesting(a: ArrayLike, b: ArrayLike) -> float:
    """Compute the intersection over the smaller area of two boxes (4,); 1 if nested."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return shared_area(a, b) / max(min(_area(a), _area(b)), 1e-9)


def overlaps(boxes: ArrayLike) -> tuple[Array, Array]:
    """Compute `overlap` and `nesting` of all pairs of boxes (F, 4), each (F, F)."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    left_top, right_bottom = boxes[:, :2], boxes[:, 2:]
    sides = np.minimum(right_bottom[:, None], right_bottom)
    sides = sides - np.maximum(left_top[:, None], left_top)  # (F, F, 2)
    shared = np.maximum(sides, 0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    union = area[:, None] + area[None] - shared
    smaller = np.minimum(area[:, None], area[None])
    return shared / np.maximum(union, 1e-9), shared / np.maximum(smaller, 1e-9)


def enlarged(boxes: ArrayLike, factor: float) -> Array:
    """Map boxes (F, 4) through the resizing of an image by `factor`; see `rescaling`."""
    return factor * (np.asarray(boxes, float).reshape(-1, 4) + 0.5) - 0.5


def turned_back(boxes: ArrayLike, quarters: int, shape: tuple[int, ...]) -> Array:
    """Map boxes (F, 4) in an image turned by `np.rot90(image, quarters)` to the image itself.

    Args:
        boxes: IMAGE pixels of the turned image.
        quarters: number of quarter turns, anticlockwise as one sees it.
        shape: of the image itself.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    for done in range(quarters):
        # One turn back: the width before it is the height after it.
        width = shape[1] if (quarters - done) % 2 else shape[0]
        left, top, right, bottom = boxes.T
        boxes = np.stack([width - 1 - bottom, left, width - 1 - top, right], 1)
    return boxes


def shared_area(a: Array, b: Array) -> float:
    """Compute the area of the intersection of two boxes (4,), square pixels."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(np.prod(np.maximum(sides, 0)))


def _area(box: Array) -> float:
    return float(np.prod(box[2:] - box[:2]))


def warp(image: np.ndarray, affine: Array, size: tuple[int, int]) -> np.ndarray:
    """Resample an image through an affine, black outside of the image.

    Args:
        image: (H, W) or (H, W, C) uint8.
        affine: (2, 3), from the image's pixels to those of the result.
        size: width, height of the result.

    Returns:
        (height, width) or (height, width, C) uint8.
    """
    image, affine = shrunk(image, affine, size)
    return cv2.warpAffine(
        image, affine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )


def shrunk(image: np.ndarray, affine: Array, size: tuple[int, int]) -> tuple[np.ndarray, Array]:
    """Shrink an image by a whole factor, so that an affine with bilinear sampling skips no pixel.

    Each pixel of the result is the mean of a block of pixels. Only the part that the affine needs
    is kept.

    Args:
        image: (H, W) or (H, W, C) uint8.
        affine: (2, 3), from the image's pixels to those of a crop.
        size: width, height of the crop.

    Returns:
        the shrunk image, and the affine from its pixels to those of the crop. The image itself,
        where it need not be shrunk.
    """
    factor = int(1 / scale_of(affine) + 1e-6)
    if factor < 2:
        return image, affine

    # The part of the image that the crop shows, with a margin, in whole blocks.
    height, width = image.shape[:2]
    crop_corners = [[0, 0], [size[0], 0], [0, size[1]], [size[0], size[1]]]
    corners = apply(invert(affine), crop_corners)  # (4, 2)
    low = np.clip(np.floor(corners.min(0)) - factor, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + factor, 0, (width, height)).astype(int)
    blocks = (high - low) // factor
    if not (blocks > 0).all():
        return image, affine
    left, top = low.tolist()
    right, bottom = (low + blocks * factor).tolist()

    # The mean of each block.
    columns, rows = blocks.tolist()
    part = image[top:bottom, left:right]
    part = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    # OpenCV drops the axis of a single channel.
    part = part.reshape(rows, columns, *image.shape[2:])
    return part, compose(rescaling(factor), translation(float(left), float(top)), affine)
