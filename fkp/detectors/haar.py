"""Haar cascade: find frontal faces with the detector of the published system."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np

from fkp.detectors.pool import Pool
from fkp.detectors.views import SCORE, checked_smallest, distinct, search, smallest_face
from fkp.errors import FkpError
from fkp.files.images import to_gray
from fkp.ranges import require


class HaarCascade:
    """Find frontal faces with OpenCV's Haar cascade.

    Source: Viola and Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features"
    (2001); Lienhart and Maydt, "An Extended Set of Haar-like Features" (2002).

    Args:
        cascade: file name of a cascade that comes with OpenCV.
        scale_factor: ratio of successive sizes that are searched.
        min_neighbors: how many overlapping hits make a face; more is stricter.
        second: another cascade, which searches more finely if the first finds nothing; or None.
        smallest: side of the smallest face, see `fkp.detectors.views.smallest_face`.
        min_score: boxes with a lower score are dropped.
        longest: longer side of what is searched at once, pixels: what is larger is searched in
            tiles of this side.

    Raises:
        FkpError: an argument is out of its range, or OpenCV has no such cascade.
    """

    # Scale factor and min_neighbors of the second search. Of 27 faces among 1731 training frames of
    # youtube_faces that the first cascade misses, it finds all, with 2 false boxes. The first
    # cascade, with this scale factor, finds 25.
    SECOND_SEARCH = (1.03, 3)

    # The smallest face that a cascade can find, pixels; and the side to which the smallest face
    # that is wanted may be shrunk.
    MIN_PIXELS, PIXELS = 20, 24

    version = f"OpenCV {cv2.__version__}"

    def __init__(
        self,
        cascade: str = "haarcascade_frontalface_default.xml",
        scale_factor: float = 1.1,
        min_neighbors: int = 5,
        second: str | None = "haarcascade_frontalface_alt2.xml",
        smallest: float | None = None,
        min_score: float = 0.0,
        longest: int = 1280,
    ):
        require(scale_factor=scale_factor, min_neighbors=min_neighbors, longest=longest)
        self.smallest, self.min_score = checked_smallest(smallest), min_score
        self.longest = longest

        # Arguments of `_hits`.
        self.first = (_pool(cascade, "cascade"), scale_factor, min_neighbors)
        self.second = None
        if second is not None:
            self.second = (_pool(second, "second"), *self.SECOND_SEARCH)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Search, and if nothing is found, search more finely, but in no tiles.
        gray = to_gray(image)
        side = smallest_face(self.smallest, gray.shape)
        rows = search(gray, side, self.PIXELS, self.longest, partial(self._hits, *self.first))
        if not len(rows) and self.second is not None:
            side = max(side, self.PIXELS * max(gray.shape) / self.longest)
            rows = search(gray, side, self.PIXELS, self.longest, partial(self._hits, *self.second))

        left, top, width, height, scores = rows[rows[:, SCORE] >= self.min_score].T
        # OpenCV's coordinates are pixel edges; ours are pixel centres.
        boxes = np.stack([left, top, left + width, top + height], 1) - 0.5  # (F, 4)
        kept = distinct(boxes)
        return boxes[kept].astype(np.float32), scores[kept].astype(np.float32)

    def _hits(
        self,
        pool: Pool[cv2.CascadeClassifier],
        scale_factor: float,
        min_neighbors: int,
        gray: np.ndarray,
        smallest: float,
    ) -> np.ndarray:
        """Return the rows (N, 5) that a cascade finds: left, top, width, height and score."""
        side = max(self.MIN_PIXELS, round(smallest))
        with pool.borrow() as classifier:
            found, _, scores = classifier.detectMultiScale3(
                gray, scale_factor, min_neighbors, minSize=(side, side), outputRejectLevels=True
            )
        return np.column_stack([np.reshape(found, (-1, 4)).astype(float), np.ravel(scores)])


def _pool(cascade: str, key: str) -> Pool[cv2.CascadeClassifier]:
    """Make a pool of classifiers, and the first of them, so that a wrong name fails at once."""
    pool = Pool(partial(_classifier, cascade, key))
    with pool.borrow():
        pass
    return pool


def _classifier(cascade: str, key: str) -> cv2.CascadeClassifier:
    classifier = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / cascade))
    if classifier.empty():
        raise FkpError(
            f"detector.{key}={cascade}: OpenCV has no cascade of this name", key=f"detector.{key}"
        )
    return classifier
