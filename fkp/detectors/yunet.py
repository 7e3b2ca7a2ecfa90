"""YuNet: find faces with the small network of the OpenCV Zoo, run by onnxruntime."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fkp.detectors.onnx_shapes import with_free_shapes
from fkp.detectors.views import (
    HEIGHT,
    SCORE,
    checked_smallest,
    distinct,
    search,
    shrunk,
    smallest_face,
)
from fkp.errors import FkpError, one_line
from fkp.files.cache import cache_folder
from fkp.files.reading import read_bytes
from fkp.geometry import enlarged, square, turned_back
from fkp.ranges import require

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Before onnxruntime is imported: its telemetry thread makes a forked process hang when it exits.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

URL = (
    "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
    "face_detection_yunet_2023mar.onnx"
)
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

# Bytes of a model file, at most.
MAX_BYTES = 1 << 24

# The strides of its three levels, pixels; the sides of its input are multiples of the last.
STRIDES = (8, 16, 32)

# Two boxes of a larger intersection over union are the same face, and how many boxes are compared.
NMS_OVERLAP, NMS_BOXES = 0.3, 5000

# The score of the best face, from which the image is taken for upright. In photos it is 0.9 and
# more; where all faces are turned by 60 degrees and more, less. (YuNet's points do not tell: they
# lie as an upright face's would.)
CLEAR = 0.88

# What a session may say on its own: fatal errors. The exception reports each other error.
FATAL = 4


class YuNet:
    """Find faces with YuNet of the OpenCV Zoo: rotated, small and covered ones, too.

    It is faster than a cascade. Its boxes are moved and resized to where the Haar cascade would
    have drawn them, because networks are trained with boxes of the cascade.

    Source: Wu et al., "YuNet: A Tiny Millisecond-level Face Detector" (2023).

    Args:
        model: path of `face_detection_yunet_2023mar.onnx`; None downloads it on first use (230 kB,
            MIT licence).
        min_score: boxes with a lower score are dropped.
        smallest: side of the smallest face, see `fkp.detectors.views.smallest_face`. It decides how
            far images are shrunk, and so the time of a search.
        pixels: side to which the smallest face may be shrunk. Of faces of 32 pixels, 9 in 10 are
            found, of 24 7 in 10, of 20 every other one (benchmarks/robustness/recall.py).
        longest: longer side of what is searched at once, pixels: what is larger is searched in
            tiles of this side.
        turned: search the image turned by 90, 180 and 270 degrees, too, if no face is found, or
            none with a high score.
        threads: of one search; 0 for as many as there are cores.

    Raises:
        FkpError: no such model, it cannot be downloaded, or onnxruntime cannot use it.
    """

    # The Haar cascade's box: offset of its centre, in widths and heights of YuNet's box; and its
    # side, in units of sqrt(width * height). They are medians over the training faces of
    # youtube_faces (benchmarks/accuracy/boxes.py), except for RIGHT. That is 0.026 there, because
    # the labels lie to the right of the faces; in mirror images it would be -0.026.
    RIGHT, DOWN, SIDE = 0.0, -0.014, 1.08

    version = "2023mar"

    def __init__(
        self,
        model: str | None = None,
        min_score: float = 0.6,
        smallest: float | None = None,
        pixels: float = 32,
        longest: int = 640,
        turned: bool = True,
        threads: int = 1,
    ):
        require(longest=longest, pixels=pixels)
        self.min_score, self.longest, self.threads = min_score, longest, threads
        self.turned, self.pixels = turned, pixels
        self.smallest = checked_smallest(smallest)
        if model is not None and not Path(model).is_file():
            raise FkpError(f"detector.model={model}: no such file", key="detector.model")
        # The network is built, and downloaded, when it is first used.
        self.model = model
        self.opened: tuple[InferenceSession | None, int] = (None, 0)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Shrink once: the turned searches take the same pixels.
        smallest = smallest_face(self.smallest, image.shape)
        factor = min(1.0, self.pixels / smallest)
        pixels, smallest = shrunk(image, factor), smallest * factor
        rows = self._rows(pixels, smallest)
        boxes, scores = self._boxes(rows), rows[:, SCORE]

        if self.turned and not (len(rows) and rows[0, SCORE] >= CLEAR):
            for quarters in (1, 2, 3):
                rows = self._rows(np.ascontiguousarray(np.rot90(pixels, quarters)), smallest)
                back = turned_back(self._boxes(rows), quarters, pixels.shape)
                boxes, scores = np.concatenate([boxes, back]), np.append(scores, rows[:, SCORE])
            best = np.argsort(-scores, kind="stable")
            kept = best[distinct(boxes[best])]
            boxes, scores = boxes[kept], scores[kept]
        return enlarged(boxes, 1 / factor).astype(np.float32), scores.astype(np.float32)

    def _boxes(self, rows: np.ndarray) -> np.ndarray:
        """Return the boxes (F, 4) that the Haar cascade would have drawn, IMAGE pixels."""
        left, top, width, height = rows[:, : HEIGHT + 1].T
        # From pixel edges to pixel centres, too.
        x = left + (0.5 + self.RIGHT) * width - 0.5
        y = top + (0.5 + self.DOWN) * height - 0.5
        return square(x, y, self.SIDE * np.sqrt(width * height))

    def raw(self, image: np.ndarray) -> np.ndarray:
        """Return the rows (F, 15) float32 of YuNet itself, best first.

        Left, top, width, height, x y of five points, and a score; IMAGE pixels, but measured from
        the edge of the image.
        """
        return self._rows(image, smallest_face(self.smallest, image.shape)).astype(np.float32)

    def _rows(self, image: np.ndarray, smallest: float) -> np.ndarray:
        return search(image, smallest, self.pixels, self.longest, self._hits)

    def _hits(self, pixels: np.ndarray, smallest: float) -> np.ndarray:
        planes = _input(pixels)
        try:
            outputs = self._session().run(None, {"input": planes})
            return _decoded(outputs, planes.shape[2:], self.min_score)
        except FkpError:
            raise
        except Exception as error:  # of onnxruntime, or of another model's outputs
            raise self._unusable(error) from None

    def _session(self) -> InferenceSession:
        """Return the session of this process; a forked process opens its own."""
        session, process = self.opened
        if session is None or process != os.getpid():
            _LEFT.append(session)
            # Several threads may come here at once: each session is as good.
            session = self._open()
            self.opened = session, os.getpid()
        return session

    def _open(self) -> InferenceSession:
        import onnxruntime  # here: it takes long, and not every import of fkp needs it

        content = read_bytes(Path(self.model) if self.model else download(), MAX_BYTES)
        if b"\x08location" in content:
            raise self._unusable(FkpError("it needs weights in another file"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(
                with_free_shapes(content), options, ["CPUExecutionProvider"], enable_fallback=False
            )
        except Exception as error:  # onnxruntime's errors have no other common class
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> FkpError:
        return FkpError(
            f"detector.model={self.model}: not the YuNet that fkp can use ({one_line(error)})",
            key="detector.model",
        )

    def __getstate__(self) -> dict[str, Any]:
        # A session can be neither copied nor pickled.
        return self.__dict__ | {"opened": (None, 0)}


# Sessions of a parent process: to destroy them in a forked one could crash or hang.
_LEFT: list[Any] = []


def download(timeout: float = 30.0, tries: int = 5) -> Path:
    """Return the model's file in the cache; download it if it is not there.

    Args:
        timeout, tries: as of `fkp.files.download.fetch_file`.

    Raises:
        FkpError: it cannot be downloaded, or must not be, as FKP_OFFLINE is set.
    """
    if is_cached():
        return cached()
    by_hand = f"Or get {URL} elsewhere and set detector.model=…."
    if is_offline():
        raise FkpError(
            f"YuNet's model is not in the cache, and FKP_OFFLINE is set.\n{by_hand}",
            key="detector.model",
        )

    # Imports an HTTP client, which few users need.
    from fkp.files.download import fetch_file

    return fetch_file(URL, cached(), sha256=SHA256, by_hand=by_hand, timeout=timeout, tries=tries)


def is_offline() -> bool:
    """Whether the user forbids to ask the network, by FKP_OFFLINE=1."""
    return os.environ.get("FKP_OFFLINE", "") not in ("", "0")


def cached() -> Path:
    """Return where the model's file lies in the cache, if it is there."""
    return cache_folder() / "models" / URL.rpartition("/")[2]


def is_cached() -> bool:
    """Whether the model's file lies in the cache, with the right content."""
    try:
        return hashlib.sha256(read_bytes(cached(), MAX_BYTES)).hexdigest() == SHA256
    except FkpError:
        return False


def _input(pixels: np.ndarray) -> np.ndarray:
    """Convert RGB (h, w, 3) or gray (h, w) uint8 to the planes (1, 3, H, W) that YuNet takes.

    They are blue, green and red in [0, 255], with black to the right and below, so that the sides
    are multiples of the largest stride.
    """
    height, width = pixels.shape[:2]
    step = STRIDES[-1]
    planes = np.zeros((1, 3, -(-height // step) * step, -(-width // step) * step), np.float32)
    if pixels.ndim == 2:
        planes[..., :height, :width] = pixels
        return planes

    # Plane by plane: twice as fast as OpenCV's conversions.
    for plane in range(3):
        planes[0, plane, :height, :width] = pixels[..., 2 - plane]
    return planes


def _decoded(outputs: list[np.ndarray], size: tuple[int, ...], min_score: float) -> np.ndarray:
    """Decode the network's outputs to rows (N, 15), best first, each face once.

    Args:
        outputs: classes, objectness, boxes and points, three levels each: (1, n, 1 or 4 or 10).
        size: height and width of the input.
        min_score: of a row.
    """
    classes, objects, boxes, points = (outputs[i : i + 3] for i in range(0, 12, 3))
    rows = []
    for level, stride in enumerate(STRIDES):
        # Cells that are sure enough: few.
        product = np.clip(classes[level], 0, 1) * np.clip(objects[level], 0, 1)
        cells = np.flatnonzero(product >= min_score**2)
        if not len(cells):
            continue
        score = np.sqrt(product.reshape(-1)[cells])

        # Centres and points are offsets from the cell, sides are logarithms, in strides.
        corner = _corners(size[0] // stride, size[1] // stride)[cells]  # (n, 2)
        box = boxes[level][0, cells]
        centre, sides = corner + box[:, :2], np.exp(box[:, 2:])
        marks = (points[level][0, cells].reshape(-1, 5, 2) + corner[:, None]).reshape(-1, 10)
        found = stride * np.concatenate([centre - sides / 2, sides, marks], 1)
        rows.append(np.column_stack([found, score]))
    if not rows:
        return np.zeros((0, 15))

    found = np.concatenate(rows).astype(float)
    frames, scores = found[:, : HEIGHT + 1], found[:, SCORE]
    kept = cv2.dnn.NMSBoxes(frames.tolist(), scores.tolist(), 0.0, NMS_OVERLAP, top_k=NMS_BOXES)
    return found[np.asarray(kept, int).reshape(-1)]


@lru_cache(64)
def _corners(rows: int, columns: int) -> np.ndarray:
    """Return column and row of each cell of a grid, (rows * columns, 2) float32."""
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x, y], 2).reshape(-1, 2).astype(np.float32)
