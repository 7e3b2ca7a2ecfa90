"""Finding the face boxes in a picture. A detector is called with an RGB or gray picture and gives boxes and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from fkp.errors import FkpError
from fkp.geometry import overlap
from fkp.pictures import to_gray


class Detector(Protocol):
    """What all detectors are."""

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """RGB (H, W, 3) or gray (H, W) uint8 to boxes (F, 4), IMAGE pixels, and scores (F,), best first."""
        ...


class HaarCascade:
    """OpenCV's Haar cascade of frontal faces (Viola and Jones, 2001; Lienhart and Maydt, 2002).

    Args:
        cascade: file name of a cascade that comes with OpenCV.
        scale_factor: step between the sizes that are searched.
        min_neighbors: how many overlapping hits make a face; more is stricter.
        second: another cascade that searches more finely where the first finds nothing; None for none.
        min_size: smallest face, as a share of the picture's shorter side.
        min_score: boxes the cascade's last stage is less sure of are dropped.
        longest: pictures with a longer side are searched shrunk to it, pixels.
    """

    # The second search's step and neighbours: of 27 faces among 1731 training frames of youtube_faces that the first
    # missed it finds all, with 2 false boxes; the first cascade, searching as finely, finds 25.
    FINER = (1.03, 3)

    def __init__(
        self,
        cascade: str = "haarcascade_frontalface_default.xml",
        scale_factor: float = 1.1,
        min_neighbors: int = 5,
        second: str | None = "haarcascade_frontalface_alt2.xml",
        min_size: float = 0.05,
        min_score: float = 0.0,
        longest: int = 1280,
    ):
        self.searches = [(_classifier(cascade, "cascade"), scale_factor, min_neighbors)]
        if second is not None:
            self.searches.append((_classifier(second, "second"), *self.FINER))
        self.min_size = min_size
        self.min_score, self.longest = min_score, longest

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gray = to_gray(image)
        factor = min(1.0, self.longest / max(gray.shape))
        if factor < 1:
            gray = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        least = max(20, round(self.min_size * min(gray.shape)))
        for classifier, step, neighbors in self.searches:
            found, _, levels = classifier.detectMultiScale3(
                gray, step, neighbors, minSize=(least, least), outputRejectLevels=True
            )
            if len(found):
                break
        else:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        left, top, width, height = np.asarray(found, float).T
        boxes = np.stack([left, top, left + width, top + height], 1) / factor - 0.5  # pixel edges, not centres
        scores = np.asarray(levels, np.float32).ravel()
        order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= self.min_score]
        return _distinct(boxes[order].astype(np.float32), scores[order])


def _classifier(cascade: str, key: str) -> cv2.CascadeClassifier:
    classifier = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / cascade))
    if classifier.empty():
        raise FkpError(f"detector.{key}={cascade}: OpenCV brings no such cascade")
    return classifier


def _distinct(boxes: np.ndarray, scores: np.ndarray, most: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Drop boxes that overlap a better one by more than `most` (non-maximum suppression)."""
    kept: list[int] = []
    for i, box in enumerate(boxes):
        if all(overlap(box, boxes[k]) <= most for k in kept):
            kept.append(i)
    return boxes[kept], scores[kept]
