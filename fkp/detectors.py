"""Finding the face boxes in a picture. A detector is called with an RGB or gray picture and gives boxes and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from fkp.cache import cache_folder
from fkp.errors import FkpError
from fkp.geometry import overlap, square
from fkp.pictures import to_gray
from fkp.ranges import require


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
        require(scale_factor=scale_factor, min_neighbors=min_neighbors, min_size=min_size, longest=longest)
        self.searches = [(_classifier(cascade, "cascade"), scale_factor, min_neighbors)]
        if second is not None:
            self.searches.append((_classifier(second, "second"), *self.FINER))
        self.min_size = min_size
        self.min_score, self.longest = min_score, longest

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gray, factor = _shrunk(to_gray(image), self.longest)
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


class YuNet:
    """OpenCV Zoo's YuNet (Wu et al., 2023): turned, small and covered faces, too, and quicker than a cascade.

    Its boxes are moved and resized to where the Haar cascade would have drawn them, for which networks are trained.

    Args:
        model: path of `face_detection_yunet_2023mar.onnx`; None fetches it on first use (230 kB, MIT).
        min_score: boxes that it is less sure of are dropped.
        longest: pictures with a longer side are searched shrunk to it, pixels.

    Raises:
        FkpError: no such model, it cannot be fetched, or OpenCV cannot use it.
    """

    # Of the box that a Haar cascade would draw: its centre, from YuNet's in shares of its width and height, and its
    # side, over the root of width x height; medians over the training part of youtube_faces (benchmarks/boxes.py), but
    # for RIGHT, which is 0.026 there as the labels lie to the right of the faces: a mirror would have it -0.026.
    RIGHT, DOWN, SIDE = 0.0, -0.014, 1.08
    LEAST = 64  # pixels, a side of what is searched

    def __init__(self, model: str | None = None, min_score: float = 0.7, longest: int = 640):
        require(longest=longest)
        self.model, self.min_score, self.longest = model, min_score, longest
        if model is not None and not Path(model).is_file():
            raise FkpError(f"detector.model={model}: no such file")
        self.network: cv2.FaceDetectorYN | None = None  # made when it is first needed: only then is it fetched

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self.raw(image)
        left, top, width, height = found[:, :4].T
        x, y = left + (0.5 + self.RIGHT) * width - 0.5, top + (0.5 + self.DOWN) * height - 0.5
        return square(x, y, self.SIDE * np.sqrt(width * height)).astype(np.float32), found[:, 14]

    def raw(self, image: np.ndarray) -> np.ndarray:
        """(F, 15) float32, best first: left, top, width, height, x y of five points, and a score; IMAGE pixels, counted
        from the picture's edge."""
        pixels = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        pixels, factor = _shrunk(pixels, self.longest)
        # Of pictures fewer than 24 pixels high OpenCV's answer is now and then noise: what memory held before.
        low, narrow = (max(0, self.LEAST - side) for side in pixels.shape[:2])
        pixels = cv2.copyMakeBorder(pixels, 0, low, 0, narrow, cv2.BORDER_CONSTANT)
        if self.network is None:
            self.network = _yunet(self.model or str(_fetched()), self.min_score)
        self.network.setInputSize(pixels.shape[1::-1])
        found = self.network.detect(pixels)[1]
        if found is None:
            return np.zeros((0, 15), np.float32)
        rows = np.asarray(found, np.float32) / np.append(np.full(14, factor, np.float32), np.float32(1))
        return rows[np.argsort(-rows[:, 14], kind="stable")]


YUNET = "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


def _fetched() -> Path:
    from fkp.download import fetch_file  # an HTTP client, which few need

    file = cache_folder() / "models" / YUNET.rpartition("/")[2]
    return fetch_file(YUNET, file, sha256=YUNET_SHA256, by_hand=f"Or get {YUNET} elsewhere and set detector.model=….")


def _yunet(model: str, min_score: float) -> cv2.FaceDetectorYN:
    try:
        return cv2.FaceDetectorYN.create(model, "", (320, 320), min_score)
    except cv2.error as error:
        reason = (str(error).splitlines() or [""])[0]
        raise FkpError(f"detector.model={model}: not a model that OpenCV can use ({reason})") from None


def _shrunk(image: np.ndarray, longest: int) -> tuple[np.ndarray, float]:
    """A picture whose longer side has at most so many pixels, and what its sides were multiplied by."""
    height, width = image.shape[:2]
    factor = min(1.0, longest / max(height, width))
    if factor < 1:
        size = (max(1, round(factor * width)), max(1, round(factor * height)))  # one may be a line of pixels
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image, factor


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
