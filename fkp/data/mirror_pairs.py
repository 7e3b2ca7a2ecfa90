"""Prove from labels which points mirror each other, where their names do not say it."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from fkp.data.shapes import centred, mean_shape, onto
from fkp.geometry import apply
from fkp.markup import Markup

# Faces that a proof needs, at least, and those that suffice.
FEWEST, MOST = 20, 2000
# The size of the mean of faces of size 1: labels without a common shape cancel each other out.
SHAPE = 0.5
# Degrees by which the mirror image of the mean face is rotated to fit it, at most.
ROLL = 6.0
# In sizes of the face: in the mean face, a point lies so near to the mirror image of its partner.
# Whole faces of all our sets have at most 0.016; the points of one eye alone, 0.03.
NEAR = 0.025
# The partner lies nearer than this fraction of the distance of any other point.
CLEARLY = 0.6
# In each face, mirrored onto itself, the median distance of a point from its partner: heads are
# rotated, which moves points by 0.05, and the tip of the nose by 0.2.
IN_FACES = 0.25
# The partner must be nearer than any other point by so many standard errors over the faces, but
# for points that almost coincide with it: the mean face alone decides, and little depends on it.
SIGMAS, ALMOST = 3.0, 0.02
ROUNDS = 5

log = logging.getLogger(__name__)


def with_proved_pairs(points: np.ndarray, markup: Markup) -> Markup | None:
    """Return the markup with the mirror pairs that labels (F, K, 2) prove; None if they do not."""
    flips = prove_flips(points)
    if flips is None:
        return None

    # The person's right is on the image's left: it comes first.
    mean, names = mean_shape(points), markup.points
    first = [i for i, k in enumerate(flips.tolist()) if i != k and mean[i, 0] < mean[k, 0]]
    pairs = [[names[i], names[flips[i]]] for i in first]
    listed = ", ".join(f"{right} - {left}" for right, left in pairs)
    what = "markup %s: the names do not pair the points, but %d faces prove what mirrors what: %s"
    log.info(what, markup.name, len(points), listed)
    return replace(markup, pairs=pairs)


def prove_flips(points: np.ndarray) -> np.ndarray | None:
    """Find the flip indices that labels prove.

    Proved is: in the mean face, the mirror image of each point lies near to one point and clearly
    nearer to it than to any other, and the same is true of that one. And in the faces, each
    mirrored onto itself, they lie near to each other, too, and what is nearest is beyond chance.

    Args:
        points: (F, K, 2) labels; NaN where a point is not labelled.

    Returns:
        flip indices (K,), or None if they are not proved.
    """
    faces = points[:: max(1, len(points) // MOST)]
    faces = centred(faces[np.isfinite(faces).all(2).sum(1) > 1])
    labelled = np.isfinite(faces).all(2)  # (F, K)
    if labelled.shape[1] < 2 or (labelled.sum(0) < FEWEST).any():
        return None

    # The mean face, and its mirror image, which is fitted to it with the partners found so far.
    mean = mean_shape(faces)
    if np.sqrt(np.ptp(mean, axis=0).prod()) < SHAPE:
        return None
    rows, mirrored = np.arange(len(mean)), mean * (-1, 1)
    for _ in range(ROUNDS):
        partner = _distances(mean, mirrored).argmin(1)
        affine = onto(mirrored[partner][None], mean)[0]
        if abs(np.degrees(np.arctan2(affine[1, 0], affine[0, 0]))) > ROLL:
            return None
        mirrored = apply(affine, mirrored)

    # Each point has one partner, and is that one's.
    distance = _distances(mean, mirrored)  # (K, K)
    partner = distance.argmin(1)
    nearest = distance[rows, partner]
    distance[rows, partner] = np.inf
    clear = (nearest < NEAR) & (nearest < CLEARLY * distance.min(1))
    if not clear.all() or (partner[partner] != rows).any():
        return None
    return partner if _holds_in_faces(faces, partner, mirrored) else None


def _holds_in_faces(faces: np.ndarray, partner: np.ndarray, mirrored_mean: np.ndarray) -> bool:
    """Return whether the faces themselves confirm the partners.

    Args:
        faces: (F, K, 2), centred.
        partner: (K,).
        mirrored_mean: (K, 2), the mirror image of the mean face.
    """
    # How far each point lies from its partner, where each face is mirrored onto itself.
    mirrored = faces * (-1, 1)
    for i, face in enumerate(faces):
        mirrored[i] = apply(onto(mirrored[i, partner][None], face)[0], mirrored[i])
    off = faces - mirrored[:, partner]  # (F, K, 2)
    known = np.isfinite(off).all(2)  # (F, K)
    if (known.sum(0) < FEWEST).any():
        return False
    if (np.nanmedian(np.linalg.norm(off, axis=2), 0) > IN_FACES).any():
        return False

    # The way from the partner to another point, as a fraction: 0 at the partner, 1 at the other.
    # It is linear, so rotations of heads to both sides cancel each other out.
    way = mirrored_mean[None] - mirrored_mean[partner][:, None]  # (K, K, 2), of i to j
    length = np.maximum((way**2).sum(2), 1e-12)  # (K, K)
    towards = np.einsum("fid,ijd->fij", off, way) / length  # (F, K, K)
    mean = np.nanmean(towards, 0)
    error = np.nanstd(towards, 0) / np.sqrt(known.sum(0))[:, None]
    return bool((mean + SIGMAS * error < 0.5)[length > ALMOST**2].all())


def _distances(points: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Measure (K, K): of each point i from each mirrored point j."""
    return np.linalg.norm(points[:, None] - mirrored[None], axis=2)
