"""Check labels against the pixels below them, with the mean face of the data set as a template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from fkp.data.image_cache import ImageCache
from fkp.data.shapes import onto
from fkp.data.table import FaceTable, evenly_spaced
from fkp.doctor.findings import Finding, Suspect
from fkp.geometry import apply, compose, invert
from fkp.markup import Markup

# Side of the template, and the distance to which a better place is searched, in pixels of a patch.
SIDE, REACH = 64, 12

# Size of a face, in pixels of a patch.
UNIT = 40.0

# A face is misplaced if a place at least so far away, in sizes of a face, has a correlation with
# the template that is higher by so much.
MIN_OFFSET, MIN_GAIN = 0.12, 0.25

# Fewer faces do not give a template; from more than so many, a sample gives it.
MIN_FACES, MAX_FACES = 20, 4000

# Groups of people, each with a template of its own, for the standard error of the shift; and the
# least number of faces for each.
GROUPS, FACES_PER_GROUP = 24, 8

# Shifts, in widths of the points, that are never reported; and those within this many standard
# errors of 0.
MIN_SHIFT, MIN_ERRORS = 0.005, 3

# Distance to which the axis of symmetry is searched, pixels.
AXIS_REACH = 6

# Added to standard deviations of pixels before dividing by them.
EPSILON = 1e-3


def misplaced(cache: ImageCache, affines: np.ndarray) -> tuple[list[Suspect], np.ndarray]:
    """Find faces that are more like the mean face at a place beside their label.

    Args:
        cache: images of F faces.
        affines: (F, 2, 3) from each face to the mean shape.

    Returns:
        Suspects, worst first; and the correlation (F,) of each face with the mean face.
    """
    count = len(cache)
    likeness, suspects = np.ones(count), []
    if count < MIN_FACES:
        return [], likeness
    template = _template(cache, affines)

    for i, patch in enumerate(_patches(cache, affines, np.arange(count))):
        correlation = cv2.matchTemplate(_flattened(patch), template, cv2.TM_CCOEFF_NORMED)
        _, best, _, (x, y) = cv2.minMaxLoc(correlation)
        likeness[i] = here = correlation[REACH, REACH]
        offset = np.hypot(x - REACH, y - REACH) / UNIT
        if offset > MIN_OFFSET and best - here > MIN_GAIN:
            why = (
                f"likeness to the mean face {here:.2f}, but {best:.2f} at {100 * offset:.0f} % of "
                "the face's size away"
            )
            suspects.append(Suspect(float((best - here) / MIN_GAIN), i, why))
    return sorted(suspects, key=lambda suspect: -suspect.score), likeness


def shift(table: FaceTable, markup: Markup, mean: np.ndarray, cache: ImageCache) -> list[Finding]:
    """Find out whether all labels are shifted sideways on the faces.

    The mean image of frontal faces under symmetric labels is symmetric about the labels' axis,
    unless the labels are shifted. A vertical shift cannot be found: faces have no such symmetry.

    Args:
        table: F faces.
        markup: of the points.
        mean: (K, 2) mean shape, in sizes of a face.
        cache: images of the faces.
    """
    # Two points are symmetric wherever they are.
    if not markup.flips or len(mean) < 3:
        return []
    mirrored = mean[markup.flip_indices] * (-1, 1)
    symmetric = (mean + mirrored) / 2  # (K, 2)
    affines = onto(table.points, symmetric)  # (F, 2, 3)

    frontal = _frontal(table.points, affines, symmetric)
    if len(frontal) < FACES_PER_GROUP * GROUPS:
        return []
    means = _group_means(list(table.identity[frontal]), _patches(cache, affines, frontal))
    if len(means) < 2:
        return []

    # The images' axis lies this far to the right of the labels' axis: the labels are off leftwards.
    offsets = np.array([_symmetry_axis(image) for image in means])  # (groups,) pixels
    width = float(np.ptp(symmetric[:, 0]))
    first, second = markup.eyes
    eyes = float(np.linalg.norm(symmetric[first] - symmetric[second]))
    return [_shift_finding(-offsets / UNIT / width, width / eyes)]


def _shift_finding(shifts: np.ndarray, width_over_eyes: float) -> Finding:
    """Report shifts (groups,) to the right, in widths of the points."""
    mean, error = float(shifts.mean()), float(shifts.std(ddof=1) / np.sqrt(len(shifts)))
    figures = {
        "percent_of_points_width": round(100 * mean, 2),
        "standard_error": round(100 * error, 2),
        "percent_of_eye_distance": round(100 * mean * width_over_eyes, 2),
    }
    if abs(mean) < max(MIN_ERRORS * error, MIN_SHIFT):
        what = (
            f"the labels are not shifted: {100 * mean:+.2f} ± {100 * error:.2f} % of the points' "
            "width to the right"
        )
        return Finding("note", "shift", what, figures=figures)

    side = "right" if mean > 0 else "left"
    what = (
        f"the labels are shifted by {100 * abs(mean):.2f} ± {100 * error:.2f} % of the points' "
        f"width to the {side} of the face: flipped faces contradict the others, and predictions "
        "will be shifted, too"
    )
    return Finding("warning", "shift", what, figures=figures)


def _frontal(points: np.ndarray, affines: np.ndarray, symmetric: np.ndarray) -> np.ndarray:
    """Return the indices of the half of the faces that are most like a symmetric shape (K, 2)."""
    distance = np.linalg.norm(apply(affines, points) - symmetric, axis=2)  # (F, K)
    asymmetry = np.nanmean(distance, 1)
    return np.flatnonzero(asymmetry <= np.nanmedian(asymmetry))


def _group_means(identity: Sequence[str], patches: Iterator[np.ndarray]) -> list[np.ndarray]:
    """Sum the standardised patches of each group of people; a person is in one group only."""
    group = {name: i % GROUPS for i, name in enumerate(dict.fromkeys(identity))}
    sums: dict[int, np.ndarray] = {}
    for person, patch in zip(identity, patches, strict=True):
        standard = (patch - patch.mean()) / (patch.std() + EPSILON)
        sums[group[person]] = sums.get(group[person], 0) + standard
    return list(sums.values())


def _template(cache: ImageCache, affines: np.ndarray) -> np.ndarray:
    """Compute the mean face (SIDE, SIDE), up to a factor."""
    sample = evenly_spaced(len(cache), MAX_FACES)
    template = np.zeros((SIDE, SIDE), np.float32)
    for patch in _patches(cache, affines, sample):
        inner = _flattened(patch)[REACH:-REACH, REACH:-REACH]
        template += inner / (inner.std() + EPSILON)
    return template


def _patches(cache: ImageCache, affines: np.ndarray, faces: np.ndarray) -> Iterator[np.ndarray]:
    """Yield each face aligned with the mean shape, with a margin of REACH pixels.

    Args:
        cache: images of F faces.
        affines: (F, 2, 3) from each face to the mean shape.
        faces: indices of the faces.

    Yields:
        (SIDE + 2 REACH, SIDE + 2 REACH) float32.
    """
    side = SIDE + 2 * REACH
    middle = (side - 1) / 2
    mean_to_patch = np.array([[UNIT, 0, middle], [0, UNIT, middle]])
    for i in faces.tolist():
        to_patch = compose(invert(cache.affines[i]), affines[i], mean_to_patch)
        patch = cv2.warpAffine(cache[i], to_patch, (side, side), flags=cv2.INTER_LINEAR)
        yield patch.astype(np.float32)


def _flattened(patch: np.ndarray, sigma: float = 6.0) -> np.ndarray:
    """Remove lighting and skin tone: subtract the local mean, divide by the local deviation."""
    rest = patch - cv2.GaussianBlur(patch, (0, 0), sigma)
    return rest / (np.sqrt(cv2.GaussianBlur(rest**2, (0, 0), sigma)) + 4)


def _symmetry_axis(image: np.ndarray) -> float:
    """Return how far an image's axis of symmetry lies to the right of its middle, pixels."""
    image = image.astype(np.float32)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    inner = mirrored[:, AXIS_REACH:-AXIS_REACH]
    correlation = cv2.matchTemplate(image, inner, cv2.TM_CCOEFF_NORMED)[0]

    # The maximum between pixels: that of a parabola through the three highest values.
    best = int(np.clip(correlation.argmax(), 1, len(correlation) - 2))
    a, b, c = correlation[best - 1 : best + 2]
    maximum = best + (a - c) / (2 * (a - 2 * b + c))

    # The mirror image fits best at twice the distance of the axis.
    return (maximum - AXIS_REACH) / 2
