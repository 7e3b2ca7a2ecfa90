"""Rank faces by what their labels would teach, by optimal design; leave out near duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# Correlation of the aligned thumbnails of two copies of one photo. Of 80 copies that were resized,
# cropped, brightened or compressed again, all lie above it; of 1000 faces of different people, the
# only pair above it is one photo under two names.
DUPLICATE = 0.95

# Variance of a label's noise, in mean squared lengths of the shapes, for a face of mean confidence;
# and the logarithm of how much more it is if the confidence is lower by a standard deviation.
# Chosen on people of mesh12_train with a ridge map of the points: the most unsure faces first
# (UNSURE < 0) taught it less than faces at random. What the choice is worth to the trainer of own
# points, benchmarks/accuracy/suggest.py measures.
NOISE, UNSURE = 0.03, 0.7

# Faces that are compared with all others at once.
BLOCK = 1024


@dataclass
class Choice:
    """One suggested face.

    Args:
        index: of the face.
        gain: fraction of the expected error over all faces that its label takes away, after those
            before it.
        cluster: number of the k-means cluster that it is in, from 1.
        alike: number of unlabelled faces in that cluster.
    """

    index: int
    gain: float
    cluster: int
    alike: int


def near_duplicates(thumbnails: np.ndarray, labelled: np.ndarray) -> dict[int, tuple[bool, int]]:
    """Find faces that are nearly the same as an earlier or a labelled one.

    Args:
        thumbnails: (N, T), each of mean 0 and length 1, as of `Portrait`.
        labelled: (L, T), the same of the labelled faces.

    Returns:
        for each such face: whether the other one is labelled, and its index there.
    """
    found: dict[int, tuple[bool, int]] = {}
    for start in range(0, len(thumbnails), BLOCK):
        block = thumbnails[start : start + BLOCK]
        to_labelled, to_others = block @ labelled.T, block @ thumbnails.T
        for i in range(start, start + len(block)):
            if len(labelled) and to_labelled[i - start].max() > DUPLICATE:
                found[i] = (True, int(to_labelled[i - start].argmax()))
                continue
            alike = np.flatnonzero(to_others[i - start, :i] > DUPLICATE)
            originals = [other for other in alike.tolist() if other not in found]
            if originals:
                found[i] = (False, originals[0])
    return found


def rank(
    vectors: np.ndarray, confidence: np.ndarray, count: int, labelled: int = 0, seed: int = 0
) -> list[Choice]:
    """Choose faces to label, the one that teaches most first.

    A linear map from the vectors to the labels is to be fitted. Each step takes the face whose
    label reduces the expected squared error of this map most, on average over all faces
    (sequential A-optimal design). So the faces are spread over the set, and are unlike those that
    are labelled. The label of a face whose points are unsure counts less, as the map starts from
    points that are wrong.

    Source: Yu, Bi, Tresp, "Active learning via transductive experimental design" (2006).

    Args:
        vectors: (N + L, D), of the unlabelled faces and then of the labelled ones.
        confidence: (N + L,), mean of the points' confidence.
        count: number of faces to choose, at most.
        labelled: L.
        seed: of the k-means clusters, which only describe the choice.

    Returns:
        the faces, best first.
    """
    total = len(vectors) - labelled
    faces, known = vectors[:total], vectors[total:]
    noise = NOISE * np.exp(-UNSURE * _standardised(confidence))
    clusters = k_means(faces, min(count, total), seed)
    sizes = np.bincount(clusters, minlength=1)

    # Covariance of the map's weights, given the faces that are labelled: (D, D).
    information = np.eye(vectors.shape[1]) + (known.T / noise[total:]) @ known
    covariance = np.linalg.inv(information)
    moments = faces.T @ faces / max(total, 1)

    choices: list[Choice] = []
    left = np.ones(total, bool)
    for _ in range(min(count, total)):
        # How much the mean variance of the map, trace(covariance @ moments), falls by each label.
        moved = faces @ covariance  # (N, D)
        own = (moved * faces).sum(1) + noise[:total]
        falls = ((moved @ moments) * moved).sum(1) / own
        best = int(np.where(left, falls, -1.0).argmax())

        gain = float(falls[best] / max(float((covariance * moments).sum()), 1e-12))
        cluster = int(clusters[best])
        choices.append(Choice(best, gain, cluster + 1, int(sizes[cluster])))
        left[best] = False
        covariance = covariance - np.outer(moved[best], moved[best]) / own[best]
    return choices


def k_means(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the k-means cluster (N,) of each face."""
    if count < 2:
        return np.zeros(len(vectors), int)
    cv2.setRNGSeed(seed)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 1e-3)
    data = np.ascontiguousarray(vectors, np.float32)
    _, clusters, _ = cv2.kmeans(data, count, np.empty(0), stop, 1, cv2.KMEANS_PP_CENTERS)
    return clusters[:, 0]


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return values (N,) of mean 0 and standard deviation 1; zeros if they are all equal."""
    deviation = float(values.std()) if len(values) else 0.0
    return (values - values.mean()) / deviation if deviation > 1e-6 else np.zeros(len(values))
