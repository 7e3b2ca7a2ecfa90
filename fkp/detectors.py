"""Finding the face boxes in a picture. A detector is called with an RGB or gray picture and gives boxes and scores."""

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

Made = TypeVar("Made")


class Detector(Protocol):
    """What all detectors are.

    A predictor calls its detector from every thread that calls the predictor: a detector that keeps state while it
    works must lock it, or keep one for each thread. fkp's own detectors may be shared by threads, copied and pickled.
    """

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """RGB (H, W, 3) or gray (H, W) uint8 to boxes (F, 4), IMAGE pixels, and scores (F,), best first."""
        ...


class _Lent(Generic[Made]):
    """OpenCV's detectors hold state while they work: each is lent to one thread at a time, and as many are made as work
    at once."""

    def __init__(self, make: Callable[[], Made]):
        self.make, self.idle = make, list[Made]()

    @contextmanager
    def one(self) -> Iterator[Made]:
        try:
            made = self.idle.pop()  # a single step of the interpreter: needs no lock
        except IndexError:
            made = self.make()
        yield made
        self.idle.append(made)  # not after an error, which may leave it in any state

    def __getstate__(self) -> dict[str, Any]:
        return {"make": self.make, "idle": []}  # OpenCV's objects cannot be copied


class HaarCascade:
    """OpenCV's Haar cascade of frontal faces (Viola and Jones, 2001; Lienhart and Maydt, 2002).

    Args:
        cascade: file name of a cascade that comes with OpenCV.
        scale_factor: step between the sizes that are searched.
        min_neighbors: how many overlapping hits make a face; more is stricter.
        second: another cascade that searches more finely where the first finds nothing; None for none.
        min_size: smallest face, as a share of the shorter side of the image, or of a tile of a large image.
        min_score: boxes the cascade's last stage is less sure of are dropped.
        longest: images with a longer side are searched shrunk to it, pixels; large ones also in tiles of this side.
        tile_scale: how much a large image is shrunk before it is searched in tiles; 0 for no tiles.
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
        tile_scale: float = 0.5,
    ):
        require(
            scale_factor=scale_factor,
            min_neighbors=min_neighbors,
            min_size=min_size,
            longest=longest,
        )
        self.first = (_Lent(partial(_classifier, cascade, "cascade")), scale_factor, min_neighbors)
        self.second = (
            None if second is None else (_Lent(partial(_classifier, second, "second")), *self.FINER)
        )
        for classifier, *_ in filter(None, (self.first, self.second)):
            with classifier.one():  # so that one that does not exist is named now
                pass
        self.min_size, self.min_score = min_size, min_score
        self.longest, self.tile_scale = longest, _scale(tile_scale)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gray = to_gray(image)
        rows = _search(gray, self.longest, self.tile_scale, partial(self._hits, *self.first))
        if not len(rows) and self.second is not None:
            rows = _search(gray, self.longest, 0, partial(self._hits, *self.second))
        left, top, width, height, scores = rows[rows[:, 4] >= self.min_score].T
        boxes = (
            np.stack([left, top, left + width, top + height], 1) - 0.5
        )  # pixel edges, not centres
        kept = _distinct(boxes)
        return boxes[kept].astype(np.float32), scores[kept].astype(np.float32)

    def _hits(
        self,
        classifier: _Lent[cv2.CascadeClassifier],
        step: float,
        neighbors: int,
        gray: np.ndarray,
    ) -> np.ndarray:
        """(N, 5): left, top, width, height and score."""
        least = max(20, round(self.min_size * min(gray.shape)))
        with classifier.one() as one:
            found, _, levels = one.detectMultiScale3(
                gray, step, neighbors, minSize=(least, least), outputRejectLevels=True
            )
        return np.column_stack([np.reshape(found, (-1, 4)).astype(float), np.ravel(levels)])


class YuNet:
    """OpenCV Zoo's YuNet (Wu et al., 2023): turned, small and covered faces, too, and quicker than a cascade.

    Its boxes are moved and resized to where the Haar cascade would have drawn them, for which networks are trained.

    Args:
        model: path of `face_detection_yunet_2023mar.onnx`; None fetches it on first use (230 kB, MIT).
        min_score: boxes that it is less sure of are dropped.
        longest: images with a longer side are searched shrunk to it, pixels; large ones also in tiles of this side.
        tile_scale: how much a large image is shrunk before it is searched in tiles; 0 for no tiles.

    Raises:
        FkpError: no such model, it cannot be fetched, or OpenCV cannot use it.
    """

    # Of the box that a Haar cascade would draw: its centre, from YuNet's in shares of its width and height, and its
    # side, over the root of width x height; medians over the training part of youtube_faces (benchmarks/accuracy/boxes.py), but
    # for RIGHT, which is 0.026 there as the labels lie to the right of the faces: a mirror would have it -0.026.
    RIGHT, DOWN, SIDE = 0.0, -0.014, 1.08
    LEAST = 64  # pixels, a side of what is searched

    def __init__(
        self,
        model: str | None = None,
        min_score: float = 0.7,
        longest: int = 640,
        tile_scale: float = 0.4,
    ):
        require(longest=longest)
        self.longest, self.tile_scale = longest, _scale(tile_scale)
        if model is not None and not Path(model).is_file():
            raise FkpError(f"detector.model={model}: no such file")
        self.network = _Lent(
            partial(_yunet, model, min_score)
        )  # made when it is first needed: only then is it fetched

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self.raw(image)
        left, top, width, height = found[:, :4].T
        x, y = left + (0.5 + self.RIGHT) * width - 0.5, top + (0.5 + self.DOWN) * height - 0.5
        return square(x, y, self.SIDE * np.sqrt(width * height)).astype(np.float32), found[:, 14]

    def raw(self, image: np.ndarray) -> np.ndarray:
        """(F, 15) float32, best first: left, top, width, height, x y of five points, and a score; IMAGE pixels, counted
        from the image's edge."""
        return _search(image, self.longest, self.tile_scale, self._hits).astype(np.float32)

    def _hits(self, image: np.ndarray) -> np.ndarray:
        pixels = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
        # Of pictures fewer than 24 pixels high OpenCV's answer is now and then noise: what memory held before.
        low, narrow = (max(0, self.LEAST - side) for side in pixels.shape[:2])
        pixels = cv2.copyMakeBorder(pixels, 0, low, 0, narrow, cv2.BORDER_CONSTANT)
        with self.network.one() as network:
            network.setInputSize(pixels.shape[1::-1])
            found = network.detect(pixels)[1]
        return np.zeros((0, 15)) if found is None else np.asarray(found, float)


YUNET = "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


def _fetched() -> Path:
    from fkp.files.download import fetch_file  # an HTTP client, which few need

    file = cache_folder() / "models" / YUNET.rpartition("/")[2]
    return fetch_file(
        YUNET,
        file,
        sha256=YUNET_SHA256,
        by_hand=f"Or get {YUNET} elsewhere and set detector.model=….",
    )


def _yunet(model: str | None, min_score: float) -> cv2.FaceDetectorYN:
    try:
        return cv2.FaceDetectorYN.create(model or str(_fetched()), "", (320, 320), min_score)
    except cv2.error as error:
        reason = (str(error).splitlines() or [""])[0]
        raise FkpError(
            f"detector.model={model}: not a model that OpenCV can use ({reason})"
        ) from None


class _View(NamedTuple):
    """What is searched: the whole image, or a tile of it, shrunk by `factor`; `edges` are the tile's left, top, right
    and bottom in the shrunk image, and `inner` those at which the image goes on."""

    pixels: np.ndarray
    factor: float
    edges: np.ndarray
    inner: np.ndarray

    def in_image(self, rows: np.ndarray) -> np.ndarray:
        """Rows of `_search`, from pixels of the view to IMAGE pixels; those cut by an inner edge are dropped: another
        tile has the whole face."""
        lefttop, size = rows[:, :2] + self.edges[:2], rows[:, 2:4]
        room = np.concatenate([lefttop - self.edges[:2], self.edges[2:] - lefttop - size], 1)
        rows = rows[~(self.inner & (room < BORDER * size.mean(1, keepdims=True))).any(1)]
        corner = self.edges[:2]
        points = np.tile(corner, rows.shape[1] // 2 - 2)
        return (rows + np.concatenate([corner, [0, 0], points, [0]])) / np.append(
            np.full(rows.shape[1] - 1, self.factor), 1
        )


# A copy that is less than so many times larger than the one before is not worth its time; and between two it is so many
# times at most, for then the faces that are too small for one are no larger than the overlap of the other's tiles.
WORTHWHILE, STEP = 1.6, 4
SAME = 0.3  # intersection over union from which two boxes are one face
OVERLAP = 0.25  # of neighbouring tiles, in tile sides
BORDER = 0.05  # a box that is nearer to an inner edge of its tile, in its sides, is cut
NESTED = 0.5  # share of a box that may lie in a better one, if several copies of the image have been searched


def _search(
    image: np.ndarray, longest: int, tile_scale: float, hits: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Search the whole image shrunk to `longest`, and a large one also in tiles.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        longest: longer side of what is searched at once, pixels.
        tile_scale: the finest scale of tiles.
        hits: pixels to rows (N, 5 + 2 P): left, top, width, height, x y of P points, and a score.

    Returns:
        such rows, best first, IMAGE pixels, counted from the image's edge.
    """
    found = [view.in_image(hits(view.pixels)) for view in _views(image, longest, tile_scale)]
    rows = np.concatenate(found)
    rows = rows[np.argsort(-rows[:, -1], kind="stable")]
    if len(found) == 1:
        return rows
    return rows[_distinct(np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1), NESTED)]


def _scale(tile_scale: float) -> float:
    if not 0 <= tile_scale <= 1:
        raise FkpError(
            f"detector.tile_scale={tile_scale}: must be a number from 0 (no tiles) to 1 (full size)"
        )
    return tile_scale


def _views(image: np.ndarray, longest: int, tile_scale: float) -> Iterator[_View]:
    factor = min(1.0, longest / max(image.shape[:2]))
    pixels = _shrunk(image, factor)
    yield _View(pixels, factor, np.array([0, 0, *pixels.shape[1::-1]]), np.zeros(4, bool))

    while factor * WORTHWHILE < tile_scale:
        factor = min(STEP * factor, tile_scale)
        pixels = _shrunk(image, factor)
        height, width = pixels.shape[:2]
        for top in _starts(height, longest):
            for left in _starts(width, longest):
                edges = np.array(
                    [left, top, min(left + longest, width), min(top + longest, height)]
                )
                tile = np.ascontiguousarray(pixels[edges[1] : edges[3], edges[0] : edges[2]])
                yield _View(tile, factor, edges, edges != [0, 0, width, height])


def _starts(length: int, tile: int) -> list[int]:
    """Where overlapping tiles begin that cover a length, evenly spaced."""
    count = max(1, int(np.ceil((length / tile - OVERLAP) / (1 - OVERLAP))))
    return np.linspace(0, max(0, length - tile), count).round().astype(int).tolist()


def _shrunk(image: np.ndarray, factor: float) -> np.ndarray:
    if factor >= 1:
        return image
    height, width = image.shape[:2]
    size = (
        max(1, round(factor * width)),
        max(1, round(factor * height)),
    )  # one may be a line of pixels
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _classifier(cascade: str, key: str) -> cv2.CascadeClassifier:
    classifier = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / cascade))
    if classifier.empty():
        raise FkpError(f"detector.{key}={cascade}: OpenCV brings no such cascade")
    return classifier


def _distinct(boxes: np.ndarray, nested: float = 1.0) -> list[int]:
    """The boxes (F, 4), best first, that overlap no better one by more than `SAME`, nor lie in one by more than a share
    `nested` (non-maximum suppression)."""
    kept: list[int] = []
    for i, box in enumerate(boxes):
        if all(overlap(box, boxes[k]) <= SAME and nesting(box, boxes[k]) <= nested for k in kept):
            kept.append(i)
    return kept
