"""Describe the face of each photo by its points and its looks, to compare it with others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fkp.data.shapes import aligned
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import read_image, to_gray
from fkp.geometry import apply, centre_and_side, reframed
from fkp.inference.image_writer import reason
from fkp.inference.predictor import Predictor

# Side of a thumbnail, pixels, and its standard deviation below which it shows nothing.
THUMBNAIL, FLAT = 24, 2.0
# Faces that the network takes at once.
BATCH = 32

# Principal components of the shape, and of the features, and the weight of the latter: chosen as
# `fkp.inference.ranking.NOISE` is. The result hardly depends on them.
COMPONENTS, FEATURES = 40, 0.1


@dataclass
class Portrait:
    """The face of one photo.

    Args:
        path: of the photo.
        size: width, height of the photo, pixels.
        face: the largest one.
        faces: number of faces in the photo.
        thumbnail: (T,) float32, the aligned face in gray, standardised: of length 1, mean 0.
        features: (D,) float32, what the network sees in the face; the thumbnail, where the network
            has no features.
    """

    path: Path
    size: tuple[int, int]
    face: Face
    faces: int
    thumbnail: np.ndarray
    features: np.ndarray

    @property
    def confidence(self) -> float:
        """Return the mean confidence of the points."""
        return float(self.face.confidence.mean())


def describe(
    predictor: Predictor, paths: Iterable[Path], failed: dict[str, str]
) -> Iterator[tuple[Path, Portrait | None]]:
    """Describe the largest face of each photo.

    Args:
        predictor: finds the faces.
        paths: of the photos.
        failed: receives the path of a photo that cannot be read, and the reason.

    Yields:
        the path of each photo that can be read, in order, and its face; None if none was found.
    """
    pending: deque[tuple[Path, np.ndarray]] = deque()

    def readable() -> Iterator[np.ndarray]:
        for path in paths:
            try:
                image = read_image(path)
            except FkpError as error:
                failed[str(path)] = reason(error, path)
                continue
            pending.append((path, image))
            yield image

    batch: list[_Found] = []
    for faces in predictor.stream(readable()):
        path, image = pending.popleft()
        batch.append(_crop(predictor, path, image, faces))
        if len(batch) == BATCH:
            yield from _described(predictor, batch)
            batch.clear()
    yield from _described(predictor, batch)


@dataclass
class _Found:
    """A photo whose faces have been found.

    Args:
        path, size, face, faces: as of `Portrait`; face None if there is none.
        crop: (h, w[, 3]) uint8, the face as the network takes it.
    """

    path: Path
    size: tuple[int, int]
    face: Face | None
    faces: int
    crop: np.ndarray | None


def _crop(predictor: Predictor, path: Path, image: np.ndarray, faces: Sequence[Face]) -> _Found:
    """Choose the largest face of a photo, and crop it around its points, upright."""
    size = (image.shape[1], image.shape[0])
    face = max(faces, key=lambda face: float(centre_and_side(face.box)[2]), default=None)
    if face is None:
        return _Found(path, size, None, 0, None)

    boxes, rolls = reframed(face.points[None], face.box[None], np.zeros(1), predictor.markup)
    pixels = to_gray(image) if predictor.gray else image
    (crop,), _ = predictor.crop(pixels, boxes, rolls=rolls)
    return _Found(path, size, face, len(faces), crop)


def _described(
    predictor: Predictor, batch: Sequence[_Found]
) -> Iterator[tuple[Path, Portrait | None]]:
    """Compute the thumbnails and the features of the faces of a batch together."""
    crops = [found.crop for found in batch if found.crop is not None]
    thumbnails = np.array([_thumbnail(crop) for crop in crops], np.float32)

    # Exported files have no features.
    compute = getattr(predictor.engine, "features", None)
    features = compute(np.array(crops)) if compute is not None and crops else None
    described = iter(zip(thumbnails, thumbnails if features is None else features, strict=True))

    for found in batch:
        if found.face is None:
            yield found.path, None
            continue
        thumbnail, own = next(described)
        yield (
            found.path,
            Portrait(found.path, found.size, found.face, found.faces, thumbnail, own),
        )


def _thumbnail(crop: np.ndarray) -> np.ndarray:
    """Shrink a crop to a standardised gray thumbnail (T,): of length 1, mean 0."""
    small = cv2.resize(to_gray(crop), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    values = small.astype(np.float32).ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), FLAT * THUMBNAIL)


def vectors(points: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return where faces lie in the space in which they are compared.

    Its coordinates are principal components of two parts: of the shape, which are the points
    aligned with the mean shape; and of the features, which weigh less.

    Args:
        points: (F, K, 2).
        features: (F, D), of `Portrait`.

    Returns:
        (F, at most 2 COMPONENTS), of mean 0; the first part has a mean squared length of at most 1.
    """
    points = np.asarray(points, float)
    shapes = apply(aligned(points)[0], points).reshape(len(points), -1)
    deviation = features.std(0)
    standardised = (features - features.mean(0)) / np.where(deviation > 1e-9, deviation, 1)
    return np.concatenate([_principal(shapes), FEATURES * _principal(standardised)], 1)


def _principal(values: np.ndarray) -> np.ndarray:
    """Return the first principal components (F, C) of values (F, D) of mean squared length 1."""
    centred = values - values.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    length = max(float(np.sqrt((centred**2).sum(1).mean())), 1e-9)
    return left[:, :COMPONENTS] * singular[:COMPONENTS] / length
