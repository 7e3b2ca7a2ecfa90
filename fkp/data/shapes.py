"""Compare labels as shapes: mean face, mirror symmetry, alignment and label conventions."""

from __future__ import annotations

import warnings

import numpy as np

from fkp.errors import FkpError
from fkp.markup import Markup

# In sizes of the face: points nearer to each other may change places when the head rotates.
CLEARLY = 0.2

# Words in the names of points that usually normalise errors.
EYES = ("eye", "iris", "pupil")


def centred(points: np.ndarray) -> np.ndarray:
    """Centre shapes (F, K, 2) on the mean of their points, in units of sqrt(w * h); NaN stays NaN.

    Labels that lie nearly on one line count as half as wide as long, so that they weigh no more
    than others.
    """
    with warnings.catch_warnings():
        # A face without any label has no mean.
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmean(points, 1, keepdims=True)
        extent = np.nanmax(points, 1) - np.nanmin(points, 1)
    size = np.maximum(np.sqrt(extent.prod(1)), np.maximum(extent.max(1) / 2, 1e-9))
    return (points - middle) / size[:, None, None]


def mean_shape(points: np.ndarray) -> np.ndarray:
    """Compute the mean (K, 2) of `centred` shapes (F, K, 2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(centred(points), 0)


def check_flip(points: np.ndarray, markup: Markup) -> None:
    """Check the markup's flip indices against labels.

    The vector from one point of the mean face to another must have the direction of the vector
    between their flip partners in the mirrored face. Rotated heads bend such vectors, but wrong
    partners reverse them: so neither rotated heads nor few faces fail the check.

    Args:
        points: (F, K, 2) labels; NaN where a point is not labelled.
        markup: their meaning.

    Raises:
        FkpError: flip indices that do not fit the labels; all such points are named.
    """
    mean = mean_shape(points)
    mirrored = mean * (-1, 1)
    partners = mirrored[markup.flip_indices]

    # Points with a vector to another point that flipping reverses.
    vectors, flipped = mean[:, None] - mean[None], partners[:, None] - partners[None]  # (K, K, 2)
    reversed_ = ((vectors * flipped).sum(2) < -(CLEARLY**2)).any(1)

    # Flipping must bring the mirrored mean face nearer to the mean face.
    swapped, unswapped = (
        np.nansum(np.linalg.norm(mean - other, axis=1)) for other in (partners, mirrored)
    )
    if not reversed_.any() and swapped <= unswapped:
        return

    faults = _wrong_partners(mean, reversed_, markup)
    if swapped > unswapped:
        what = "with left and right swapped, the mirrored mean face fits worse than without"
        faults.insert(0, what)
    listed = "\n  ".join(faults)
    raise FkpError(
        f"markup {markup.name}: left and right do not fit the labels, so flips would teach wrong "
        f"points:\n  {listed}\n"
        "Name the points so that mirrored points differ only in `right` and `left`, in the order "
        f"of the labels.{proposal(mean, markup)}"
    )


def _wrong_partners(mean: np.ndarray, suspects: np.ndarray, markup: Markup) -> list[str]:
    """Describe the points whose flip partner lies clearly off their mirror image.

    Args:
        mean: (K, 2), the mean face.
        suspects: (K,) bool.
        markup: names and flip indices of the points.
    """
    # Element [i, j] is the distance of point i from the mirror image of point j.
    distance = np.linalg.norm(mean[:, None] - (mean * (-1, 1))[None], axis=2)  # (K, K)
    distance[~suspects] = 0
    nearest = np.where(np.isfinite(distance), distance, np.inf).argmin(1)

    rows = np.arange(len(mean))
    worse = distance[rows, markup.flip_indices] - distance[rows, nearest]
    faults = []
    for i in np.flatnonzero(suspects & (worse >= min(CLEARLY, worse.max()))):
        name, partner, best = (markup.points[k] for k in (i, markup.flip_indices[i], nearest[i]))
        pair = f"is paired with {partner}" if partner != name else "is its own partner"
        faults.append(f"{name} {pair}, but its mirror image lies on {best}")
    return faults


def proposal(mean: np.ndarray, markup: Markup) -> str:
    """Propose mirror pairs to add to a markup's file, by the symmetry of the mean face (K, 2).

    Returns:
        The text to append to a message; empty if the mean face is not symmetric.
    """
    labelled, axis = np.isfinite(mean).all(1), 0.0

    # The axis is first the mean of all points, then the median over the pairs.
    for _ in range(3):
        mirrored = mean * (-1, 1) + (2 * axis, 0)
        distance = np.linalg.norm(mean[:, None] - mirrored[None], axis=2)  # (K, K)
        partner = _match(distance, labelled)
        axis = float(np.median(((mean + mean[partner]) / 2)[labelled, 0]))

    if not (distance[np.arange(len(mean)), partner][labelled] < CLEARLY).all():
        return ""

    # The person's right is on the image's left: it comes first.
    first = np.flatnonzero(mean[:, 0] < mean[partner, 0])
    pairs = ", ".join(f"[{markup.points[i]}, {markup.points[partner[i]]}]" for i in first)
    return f"\nOr add to the markup's file the mirror pairs of the mean face:\npairs: [{pairs}]"


def _match(distance: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Match labelled points in pairs, or with themselves, nearest first.

    Args:
        distance: (K, K), of point i to the mirror image of point j.
        labelled: (K,) bool.

    Returns:
        (K,) the index of each point's partner.
    """
    partner, matched = np.arange(len(distance)), ~labelled
    order = np.unravel_index(np.argsort(distance, axis=None), distance.shape)
    for i, j in np.stack(order, 1):
        if not (matched[i] or matched[j]):
            partner[i], partner[j] = j, i
            matched[[i, j]] = True
    return partner


def normalising_pair(mean: np.ndarray, markup: Markup) -> list[str]:
    """Choose the two points whose distance normalises errors, and return their names.

    They are the horizontally most distant pair of the mean face (K, 2), left one first: among the
    mirror pairs of the eyes; without these, among all mirror pairs; else among all points.
    """
    order = range(len(mean))
    flip = markup.flip_indices.tolist() if markup.flips else list(order)
    pairs = [(i, flip[i]) for i in order if flip[i] != i]

    names = [name.lower() for name in markup.points]
    is_eye = [any(word in name for word in EYES) and "brow" not in name for name in names]
    eyes = [(i, j) for i, j in pairs if is_eye[i]]

    candidates = eyes or pairs or [(i, j) for i in order for j in order if i != j]
    widths = [mean[j, 0] - mean[i, 0] for i, j in candidates]
    first, second = candidates[int(np.argmax(np.nan_to_num(widths, nan=-np.inf)))]
    return [markup.points[first], markup.points[second]]


def aligned(points: np.ndarray, rounds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Align shapes with their mean by generalised Procrustes analysis.

    Source: Gower, "Generalized Procrustes analysis" (1975).

    Args:
        points: (F, K, 2); NaN where a point is not labelled.
        rounds: iterations.

    Returns:
        affines (F, 2, 3), similarities that rotate, scale and move each shape onto the mean; and
        the mean (K, 2), as upright as the average face, centred, of size sqrt(w * h) = 1.
    """
    mean = mean_shape(points)
    for _ in range(rounds):
        affines = onto(points, mean)
        onto_mean = np.einsum("fij,fkj->fki", affines[:, :, :2], points) + affines[:, None, :, 2]
        mean = mean_shape(np.nanmean(onto_mean, 0)[None])
    return onto(points, mean), mean


def onto(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Fit similarities (F, 2, 3) from shapes (F, K, 2) to one shape (K, 2), by least squares.

    Only points that are labelled in both count.
    """
    labelled = np.isfinite(points).all(2) & np.isfinite(shape).all(1)
    weight = labelled / np.maximum(labelled.sum(1, keepdims=True), 1)  # (F, K)

    # A similarity is one complex factor and one complex offset.
    z = np.where(labelled, points[..., 0] + 1j * points[..., 1], 0)
    m = np.where(labelled, shape[:, 0] + 1j * shape[:, 1], 0)
    z_mean, m_mean = (weight * z).sum(1), (weight * m).sum(1)
    z, m = z - z_mean[:, None], m - m_mean[:, None]
    factor = (weight * z.conj() * m).sum(1) / np.maximum((weight * np.abs(z) ** 2).sum(1), 1e-12)
    offset = m_mean - factor * z_mean

    rows = [factor.real, -factor.imag, offset.real, factor.imag, factor.real, offset.imag]
    return np.stack(rows, -1).reshape(-1, 2, 3)


def moved(points: np.ndarray, offsets: np.ndarray, markup: Markup) -> np.ndarray:
    """Move each point of shapes by an offset in the eye-line frame of the face.

    In this frame x runs from the first to the second point of the markup's normalising pair, y is
    at 90 degrees clockwise, and the unit is the distance of the pair.

    Args:
        points: (F, K, 2).
        offsets: (K, 2).
        markup: names the normalising pair.
    """
    line = _eye_line(points, markup)[:, None]
    z = (offsets[:, 0] + 1j * offsets[:, 1]) * line
    return points + np.stack([z.real, z.imag], -1)


def convention(points: np.ndarray, labels: np.ndarray, markup: Markup) -> np.ndarray:
    """Measure the offsets (K, 2) from points to labels, for `moved`: medians over faces.

    The labels of two data sets may place the corner of an eye differently. One offset per point
    removes most of such a difference, and cannot remove errors.

    Args:
        points: (F, K, 2).
        labels: (F, K, 2).
        markup: names the normalising pair.
    """
    difference = labels - points
    z = (difference[..., 0] + 1j * difference[..., 1]) / _eye_line(points, markup)[:, None]
    return np.stack([np.nanmedian(z.real, 0), np.nanmedian(z.imag, 0)], -1)


def _eye_line(points: np.ndarray, markup: Markup) -> np.ndarray:
    """Return the vector of the normalising pair of each face, (F,) complex."""
    first, second = markup.eyes
    line = points[:, second] - points[:, first]
    return line[:, 0] + 1j * line[:, 1]
