"""Labels as a set of shapes: the mean face, its mirror image, and how one set's convention differs from another's."""

from __future__ import annotations

import warnings

import numpy as np

from fkp.errors import FkpError
from fkp.markup import Markup

CLEARLY = 0.2  # of the face's size: points that lie nearer to each other may change places when a head turns

EYES = ("eye", "iris", "pupil")  # words of points by which people normalise errors


def centred(points: np.ndarray) -> np.ndarray:
    """(F, K, 2) shapes, each from the mean of its points, in units of sqrt(w * h) of its extent; NaN stays NaN.

    Labels that lie nearly on one line count as half as wide as long, so that they weigh no more than others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # a point that is labelled nowhere has no mean
        middle = np.nanmean(points, 1, keepdims=True)
        extent = np.nanmax(points, 1) - np.nanmin(points, 1)
    size = np.maximum(np.sqrt(extent.prod(1)), np.maximum(extent.max(1) / 2, 1e-9))
    return (points - middle) / size[:, None, None]


def mean_shape(points: np.ndarray) -> np.ndarray:
    """(K, 2): the mean of `centred` shapes (F, K, 2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(centred(points), 0)


def check_flip(points: np.ndarray, markup: Markup) -> None:
    """Prove the markup's left and right against labels: from one point of the mean face to another must lead the same
    way as, in the mirror, from the one's partner to the other's. A turned head bends such ways, partners that are none
    reverse them; so neither turned heads nor few faces are taken for wrong names.

    Args:
        points: (F, K, 2) labels; NaN where a point is not labelled.

    Raises:
        FkpError: points whose partners look wrong, all of them.
    """
    mean = mean_shape(points)
    mirrored = mean * (-1, 1)
    partners = mirrored[markup.flip_indices]
    along = ((mean[:, None] - mean[None]) * (partners[:, None] - partners[None])).sum(2)
    against = (along < -(CLEARLY**2)).any(1)
    swap, stay = (np.nansum(np.linalg.norm(mean - other, axis=1)) for other in (partners, mirrored))
    if against.any() or swap > stay:
        distance = np.linalg.norm(
            mean[:, None] - mirrored[None], axis=2
        )  # [i, j]: of point i to the mirror of point j
        distance[~against] = 0
        nearest = np.where(np.isfinite(distance), distance, np.inf).argmin(1)
        everyone = np.arange(len(mean))
        worse = distance[everyone, markup.flip_indices] - distance[everyone, nearest]
        faults = []
        for i in np.flatnonzero(against & (worse >= min(CLEARLY, worse.max()))):
            name, partner, best = (
                markup.points[k] for k in (i, markup.flip_indices[i], nearest[i])
            )
            pair = f"is paired with {partner}" if partner != name else "is its own partner"
            faults.append(f"{name} {pair}, but its mirror image lies on {best}")
        if swap > stay:
            faults.insert(
                0, "with left and right swapped, the mirrored mean face fits worse than without"
            )
        raise FkpError(
            f"markup {markup.name}: left and right do not fit the labels, so flips would teach wrong points:\n  "
            + "\n  ".join(faults)
            + "\nName the points so that partners differ only in `right` and `left`, in the order of the labels."
            + proposal(mean, markup)
        )


def proposal(mean: np.ndarray, markup: Markup) -> str:
    """What to write into a markup's file for flips, by the mirror symmetry of the mean face (K, 2); an empty string if
    it has none."""
    labelled, axis = np.isfinite(mean).all(1), 0.0
    partner = np.arange(len(mean))
    for _ in range(3):  # the axis is first the middle of the points, then of the pairs
        mirrored = mean * (-1, 1) + (2 * axis, 0)
        apart = np.linalg.norm(mean[:, None] - mirrored[None], axis=2)
        nearest_first = np.stack(np.unravel_index(np.argsort(apart, axis=None), apart.shape), 1)
        taken = ~labelled
        for i, j in nearest_first:  # each point gets a partner, or itself, and none gets two
            if not (taken[i] or taken[j]):
                partner[i], partner[j] = j, i
                taken[[i, j]] = True
        axis = float(np.median(((mean + mean[partner]) / 2)[labelled, 0]))
    if not (apart[np.arange(len(mean)), partner][labelled] < CLEARLY).all():
        return ""
    across = mean[:, 0] < mean[partner, 0]  # the person's right lies on the image's left
    pairs = ", ".join(
        f"[{markup.points[i]}, {markup.points[partner[i]]}]" for i in np.flatnonzero(across)
    )
    return f"\nOr, as the mean face has these mirror pairs, add to the markup's file:\npairs: [{pairs}]"


def normalising_pair(mean: np.ndarray, markup: Markup) -> list[str]:
    """The names of the two points whose distance is to normalise errors: of the mirror pairs, those of the eyes first,
    or else of all points, those that lie farthest apart horizontally in the mean face (K, 2); the left one first."""
    order = range(len(mean))
    flip = markup.flip_indices.tolist() if markup.flips else list(order)
    pairs = [(i, flip[i]) for i in order if flip[i] != i]
    names = [name.lower() for name in markup.points]
    eyes = [
        (i, j)
        for i, j in pairs
        if any(word in names[i] for word in EYES) and "brow" not in names[i]
    ]
    candidates = eyes or pairs or [(i, j) for i in order for j in order if i != j]
    apart = [mean[j, 0] - mean[i, 0] for i, j in candidates]
    first, second = candidates[int(np.argmax(np.nan_to_num(apart, nan=-np.inf)))]
    return [markup.points[first], markup.points[second]]


def aligned(points: np.ndarray, rounds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Generalised Procrustes analysis (Gower, 1975): every shape turned, scaled and moved onto their mean.

    Args:
        points: (F, K, 2); NaN where a point is not labelled.

    Returns:
        the affines (F, 2, 3) that do it, and the mean (K, 2), upright as the average face is, from its middle, of size
        sqrt(w * h) = 1.
    """
    mean = mean_shape(points)
    for _ in range(rounds):
        affines = onto(points, mean)
        moved = np.einsum("fij,fkj->fki", affines[:, :, :2], points) + affines[:, None, :, 2]
        mean = mean_shape(np.nanmean(moved, 0)[None])
    return onto(points, mean), mean


def onto(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The similarities (F, 2, 3) that bring shapes (F, K, 2) nearest to one (K, 2), over their labelled points."""
    labelled = np.isfinite(points).all(2) & np.isfinite(shape).all(1)
    weight = labelled / np.maximum(labelled.sum(1, keepdims=True), 1)
    z = np.where(labelled, points[..., 0] + 1j * points[..., 1], 0)
    m = np.where(labelled, shape[:, 0] + 1j * shape[:, 1], 0)
    z_mean, m_mean = (weight * z).sum(1), (weight * m).sum(1)
    z, m = z - z_mean[:, None], m - m_mean[:, None]
    turn = (weight * z.conj() * m).sum(1) / np.maximum((weight * np.abs(z) ** 2).sum(1), 1e-12)
    move = m_mean - turn * z_mean
    rows = [turn.real, -turn.imag, move.real, turn.imag, turn.real, move.imag]
    return np.stack(rows, -1).reshape(-1, 2, 3)


def moved(points: np.ndarray, offsets: np.ndarray, markup: Markup) -> np.ndarray:
    """Shapes (F, K, 2), each point moved by its offset (K, 2) in the face's eye-line frame: x along the line from the
    first to the second of the markup's normalising pair, y a quarter turn clockwise, in units of that line's length."""
    line = _eye_line(points, markup)[:, None]
    z = (offsets[:, 0] + 1j * offsets[:, 1]) * line
    return points + np.stack([z.real, z.imag], -1)


def convention(points: np.ndarray, labels: np.ndarray, markup: Markup) -> np.ndarray:
    """The offsets (K, 2) that bring points (F, K, 2) onto labels (F, K, 2), as `moved` takes them: medians over faces.

    What a set's labels call the corner of an eye may lie beside what another's do. One offset a point takes most of
    that out, and cannot take out errors.
    """
    apart = labels - points
    z = (apart[..., 0] + 1j * apart[..., 1]) / _eye_line(points, markup)[:, None]
    return np.stack([np.nanmedian(z.real, 0), np.nanmedian(z.imag, 0)], -1)


def _eye_line(points: np.ndarray, markup: Markup) -> np.ndarray:
    first, second = markup.eyes
    line = points[:, second] - points[:, first]
    return line[:, 0] + 1j * line[:, 1]
