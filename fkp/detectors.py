"""Detectors: find the face boxes in an image.

A detector is called with an RGB or gray image and returns boxes and scores. Large images are
searched as a whole, shrunk, and in overlapping tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np

from fkp.errors import FkpError
from fkp.files.cache import cache_folder
from fkp.files.images import to_gray
from fkp.geometry import nesting, overlap, square
from fkp.ranges import require

Resource = TypeVar("Resource")

YUNET = (
    "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
    "face_detection_yunet_2023mar.onnx"
)
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

# The columns of a row that a search returns; between them, x y of any number of points.
LEFT, TOP, WIDTH, HEIGHT, SCORE = 0, 1, 2, 3, -1

# Two boxes of a larger intersection over union are the same face.
SAME = 0.3

# Fraction of a box that may lie in a better one, if several scales have been searched.
NESTED = 0.5

# Overlap of neighbouring tiles, in tile sides.
OVERLAP = 0.25

# A box that is nearer than this to an inner edge of its tile, in box sides, is cut by the edge.
BORDER = 0.05

# Ratio of two scales that are searched one after the other. Below the least, the finer one is not
# worth its time. Up to the largest, the faces that are too small for the coarser scale fit into the
# overlap of the finer one's tiles.
MIN_STEP, MAX_STEP = 1.6, 4


class Detector(Protocol):
    """The interface of all detectors.

    A predictor calls its detector from each thread that calls the predictor. A detector that keeps
    state while it works must lock it, or keep one state per thread. The detectors of fkp can be
    shared by threads, copied and pickled.
    """

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find faces.

        Args:
            image: RGB (H, W, 3) or gray (H, W) uint8.

        Returns:
            boxes (F, 4), IMAGE pixels, and scores (F,), best first.
        """
        ...


class HaarCascade:
    """Find frontal faces with OpenCV's Haar cascade.

    Source: Viola and Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features"
    (2001); Lienhart and Maydt, "An Extended Set of Haar-like Features" (2002).

    Args:
        cascade: file name of a cascade that comes with OpenCV.
        scale_factor: ratio of successive sizes that are searched.
        min_neighbors: how many overlapping hits make a face; more is stricter.
        second: another cascade, which searches more finely if the first finds nothing; or None.
        min_size: smallest face, as a fraction of the shorter side of the image or tile.
        min_score: boxes with a lower score are dropped.
        longest: longer side of what is searched at once, pixels: larger images are shrunk to it,
            and also searched in tiles of this side.
        tile_scale: scale of the image that is searched in tiles; 0 for no tiles.

    Raises:
        FkpError: an argument is out of its range, or OpenCV has no such cascade.
    """

    # Scale factor and min_neighbors of the second search. Of 27 faces among 1731 training frames of
    # youtube_faces that the first cascade misses, it finds all, with 2 false boxes. The first
    # cascade, with this scale factor, finds 25.
    SECOND_SEARCH = (1.03, 3)

    # The smallest face that a cascade can find, pixels.
    MIN_PIXELS = 20

    def __init__(
        self,
        cascade: str = "haarcascade_frontalface_default.xml",
        scale_factor: float = 1.1,
        min_neighbors: int = 5,
        second: str | None = "haarcascade_frontalface_alt2.xml",
        min_size: float = 0.05,
        min_score: float = 0.0,
        longest: int = 1280,
        tile_scale: float = 0.5,
    ):
        require(
            scale_factor=scale_factor,
            min_neighbors=min_neighbors,
            min_size=min_size,
            longest=longest,
        )
        self.min_size, self.min_score = min_size, min_score
        self.longest, self.tile_scale = longest, _checked_scale(tile_scale)

        # Arguments of `_hits`.
        self.first = (_pool(cascade, "cascade"), scale_factor, min_neighbors)
        self.second = None
        if second is not None:
            self.second = (_pool(second, "second"), *self.SECOND_SEARCH)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Search, and if nothing is found, search more finely.
        gray = to_gray(image)
        rows = _search(gray, self.longest, self.tile_scale, partial(self._hits, *self.first))
        if not len(rows) and self.second is not None:
            rows = _search(gray, self.longest, 0, partial(self._hits, *self.second))

        left, top, width, height, scores = rows[rows[:, SCORE] >= self.min_score].T
        # OpenCV's coordinates are pixel edges; ours are pixel centres.
        boxes = np.stack([left, top, left + width, top + height], 1) - 0.5  # (F, 4)
        kept = _distinct(boxes)
        return boxes[kept].astype(np.float32), scores[kept].astype(np.float32)

    def _hits(
        self,
        pool: _Pool[cv2.CascadeClassifier],
        scale_factor: float,
        min_neighbors: int,
        gray: np.ndarray,
    ) -> np.ndarray:
        """Return the rows (N, 5) that a cascade finds: left, top, width, height and score."""
        side = max(self.MIN_PIXELS, round(self.min_size * min(gray.shape)))
        with pool.borrow() as classifier:
            found, _, scores = classifier.detectMultiScale3(
                gray, scale_factor, min_neighbors, minSize=(side, side), outputRejectLevels=True
            )
        return np.column_stack([np.reshape(found, (-1, 4)).astype(float), np.ravel(scores)])


class YuNet:
    """Find faces with YuNet of the OpenCV Zoo: rotated, small and covered ones, too.

    It is faster than a cascade. Its boxes are moved and resized to where the Haar cascade would
    have drawn them, because networks are trained with boxes of the cascade.

    Source: Wu et al., "YuNet: A Tiny Millisecond-level Face Detector" (2023).

    Args:
        model: path of `face_detection_yunet_2023mar.onnx`; None downloads it on first use (230 kB,
            MIT licence).
        min_score: boxes with a lower score are dropped.
        longest: longer side of what is searched at once, pixels: larger images are shrunk to it,
            and also searched in tiles of this side.
        tile_scale: scale of the image that is searched in tiles; 0 for no tiles.

    Raises:
        FkpError: no such model, it cannot be downloaded, or OpenCV cannot use it.
    """

    # The Haar cascade's box: offset of its centre, in widths and heights of YuNet's box; and its
    # side, in units of sqrt(width * height). They are medians over the training faces of
    # youtube_faces (benchmarks/accuracy/boxes.py), except for RIGHT. That is 0.026 there, because
    # the labels lie to the right of the faces; in mirror images it would be -0.026.
    RIGHT, DOWN, SIDE = 0.0, -0.014, 1.08

    # Smaller images are padded to this side, pixels. For images of a height below 24 pixels, OpenCV
    # sometimes returns noise: whatever was in memory.
    MIN_SIDE = 64

    def __init__(
        self,
        model: str | None = None,
        min_score: float = 0.7,
        longest: int = 640,
        tile_scale: float = 0.4,
    ):
        require(longest=longest)
        self.longest, self.tile_scale = longest, _checked_scale(tile_scale)
        if model is not None and not Path(model).is_file():
            raise FkpError(f"detector.model={model}: no such file", key="detector.model")
        # The network is built, and downloaded, when it is first used.
        self.network = _Pool(partial(_yunet, model, min_score))

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = self.raw(image)
        left, top, width, height = rows[:, : HEIGHT + 1].T
        # From pixel edges to pixel centres, too.
        x = left + (0.5 + self.RIGHT) * width - 0.5
        y = top + (0.5 + self.DOWN) * height - 0.5
        side = self.SIDE * np.sqrt(width * height)
        return square(x, y, side).astype(np.float32), rows[:, SCORE]

    def raw(self, image: np.ndarray) -> np.ndarray:
        """Return the rows (F, 15) float32 of YuNet itself, best first.

        Left, top, width, height, x y of five points, and a score; IMAGE pixels, but measured from
        the edge of the image.
        """
        return _search(image, self.longest, self.tile_scale, self._hits).astype(np.float32)

    def _hits(self, image: np.ndarray) -> np.ndarray:
        pixels = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
        below, beside = (max(0, self.MIN_SIDE - side) for side in pixels.shape[:2])
        pixels = cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_CONSTANT)

        height, width = pixels.shape[:2]
        with self.network.borrow() as network:
            network.setInputSize((width, height))
            found = network.detect(pixels)[1]
        return np.zeros((0, 15)) if found is None else np.asarray(found, float)


class _Pool(Generic[Resource]):
    """Lend objects that keep state while they work, each to one thread at a time.

    As many are made as are used at once.
    """

    def __init__(self, make: Callable[[], Resource]):
        self.make, self.idle = make, list[Resource]()

    @contextmanager
    def borrow(self) -> Iterator[Resource]:
        # `pop` and `append` are atomic: no lock is needed.
        try:
            resource = self.idle.pop()
        except IndexError:
            resource = self.make()
        yield resource
        # Not after an exception, which may leave the object in any state.
        self.idle.append(resource)

    def __getstate__(self) -> dict[str, Any]:
        # OpenCV's objects can be neither copied nor pickled.
        return {"make": self.make, "idle": []}


def _pool(cascade: str, key: str) -> _Pool[cv2.CascadeClassifier]:
    """Make a pool of classifiers, and the first of them, so that a wrong name fails at once."""
    pool = _Pool(partial(_classifier, cascade, key))
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


def _yunet(model: str | None, min_score: float) -> cv2.FaceDetectorYN:
    try:
        return cv2.FaceDetectorYN.create(model or str(_download()), "", (320, 320), min_score)
    except cv2.error as error:
        reason = (str(error).splitlines() or [""])[0]
        raise FkpError(
            f"detector.model={model}: not a model that OpenCV can use ({reason})",
            key="detector.model",
        ) from None


def _download() -> Path:
    # Imports an HTTP client, which few users need.
    from fkp.files.download import fetch_file

    file = cache_folder() / "models" / YUNET.rpartition("/")[2]
    by_hand = f"Or get {YUNET} elsewhere and set detector.model=…."
    return fetch_file(YUNET, file, sha256=YUNET_SHA256, by_hand=by_hand)


def _checked_scale(tile_scale: float) -> float:
    if not 0 <= tile_scale <= 1:
        raise FkpError(
            f"detector.tile_scale={tile_scale}: must be from 0 (no tiles) to 1 (full size)",
            key="detector.tile_scale",
        )
    return tile_scale


def _search(
    image: np.ndarray, longest: int, tile_scale: float, hits: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Search the whole image, shrunk to `longest`, and a large one also in tiles.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        longest: longer side of what is searched at once, pixels.
        tile_scale: the finest scale of tiles.
        hits: pixels -> rows (N, 5 + 2 P): left, top, width, height, x y of P points, and a score.

    Returns:
        such rows, best first; IMAGE pixels, but measured from the edge of the image.
    """
    found = [view.in_image(hits(view.pixels)) for view in _views(image, longest, tile_scale)]
    rows = np.concatenate(found)
    rows = rows[np.argsort(-rows[:, SCORE], kind="stable")]
    if len(found) == 1:
        return rows

    # The same face may have been found in several tiles.
    left_top, size = rows[:, [LEFT, TOP]], rows[:, [WIDTH, HEIGHT]]
    boxes = np.concatenate([left_top, left_top + size], 1)
    return rows[_distinct(boxes, NESTED)]


class _View(NamedTuple):
    """What is searched at once: the whole image, or a tile of it, shrunk.

    Args:
        pixels: of the view.
        factor: by which the image is shrunk.
        edges: (4,) left, top, right, bottom of the view in the shrunk image.
        inner: (4,) bool: the edges beyond which the image goes on.
    """

    pixels: np.ndarray
    factor: float
    edges: np.ndarray
    inner: np.ndarray

    def in_image(self, rows: np.ndarray) -> np.ndarray:
        """Convert rows of `_search` from pixels of the view to IMAGE pixels.

        Boxes that are cut by an inner edge are dropped: another tile shows the whole face.
        """
        # Distance of each box to the four edges, (N, 4).
        corner, (width, height) = self.edges[:2], self.edges[2:] - self.edges[:2]
        left, top = rows[:, LEFT], rows[:, TOP]
        right, bottom = left + rows[:, WIDTH], top + rows[:, HEIGHT]
        distance = np.stack([left, top, width - right, height - bottom], 1)
        side = rows[:, [WIDTH, HEIGHT]].mean(1, keepdims=True)
        cut = (self.inner & (distance < BORDER * side)).any(1)
        rows = rows[~cut]

        # Move left and top and all points, but neither width and height nor the score; rescale all
        # but the score.
        points = np.tile(corner, rows.shape[1] // 2 - 2)
        offset = np.concatenate([corner, [0, 0], points, [0]])
        factor = np.append(np.full(rows.shape[1] - 1, self.factor), 1)
        return (rows + offset) / factor


def _views(image: np.ndarray, longest: int, tile_scale: float) -> Iterator[_View]:
    # The whole image.
    factor = min(1.0, longest / max(image.shape[:2]))
    pixels = _shrunk(image, factor)
    height, width = pixels.shape[:2]
    yield _View(pixels, factor, np.array([0, 0, width, height]), np.zeros(4, bool))

    # Tiles of finer and finer scales.
    while factor * MIN_STEP < tile_scale:
        factor = min(MAX_STEP * factor, tile_scale)
        pixels = _shrunk(image, factor)
        height, width = pixels.shape[:2]
        for top in _starts(height, longest):
            for left in _starts(width, longest):
                right, bottom = min(left + longest, width), min(top + longest, height)
                tile = np.ascontiguousarray(pixels[top:bottom, left:right])
                edges = np.array([left, top, right, bottom])
                yield _View(tile, factor, edges, edges != [0, 0, width, height])


def _starts(length: int, tile: int) -> list[int]:
    """Return where overlapping tiles start that cover a length, evenly spaced."""
    count = max(1, int(np.ceil((length / tile - OVERLAP) / (1 - OVERLAP))))
    return np.linspace(0, max(0, length - tile), count).round().astype(int).tolist()


def _shrunk(image: np.ndarray, factor: float) -> np.ndarray:
    if factor >= 1:
        return image
    height, width = image.shape[:2]
    # At least one pixel: an image may be a single line of pixels.
    size = (max(1, round(factor * width)), max(1, round(factor * height)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _distinct(boxes: np.ndarray, nested: float = 1.0) -> list[int]:
    """Suppress boxes of the same face (non-maximum suppression).

    Args:
        boxes: (F, 4), best first.
        nested: fraction of a box that may lie in a better one.

    Returns:
        the indices of the boxes to keep: those that overlap no better one.
    """
    kept: list[int] = []
    for i, box in enumerate(boxes):
        better = [boxes[k] for k in kept]
        if all(overlap(box, b) <= SAME and nesting(box, b) <= nested for b in better):
            kept.append(i)
    return kept
