"""MediaPipe: find faces with its short-range detector, for those who have it."""

from __future__ import annotations

from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np

from fkp.detectors.pool import Pool
from fkp.detectors.views import HEIGHT, SCORE, checked_smallest, search, smallest_face
from fkp.errors import FkpError, one_line
from fkp.files.reading import read_bytes
from fkp.geometry import square
from fkp.ranges import require

# Bytes of a model file, at most.
MAX_BYTES = 1 << 24


class MediaPipe:
    """Find faces with MediaPipe's short-range detector, BlazeFace.

    It needs `pip install 'fkp[mediapipe]'` and a model file: the package brings none since 0.10.30.

    Source: Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs"
    (2019).

    Args:
        model: path of `blaze_face_short_range.tflite`.
        min_score: boxes with a lower score are dropped.
        smallest: side of the smallest face, see `fkp.detectors.views.smallest_face`. The network
            finds faces from a tenth of what it sees at once: smaller ones need many tiles.
        longest: longer side of what is searched at once, pixels: what is larger is searched in
            tiles of this side.

    Raises:
        FkpError: MediaPipe is not installed, or there is no such model.
    """

    # As in `YuNet`, for MediaPipe's boxes: medians over training faces of 300-W and youtube_faces.
    RIGHT, DOWN, SIDE = 0.0, -0.11, 1.12

    # Side that the smallest face has in what is searched, pixels. MediaPipe shrinks that to 128
    # pixels itself, and rounds its boxes to whole pixels of what it is given.
    PIXELS = 64

    def __init__(
        self,
        model: str | None = None,
        min_score: float = 0.5,
        smallest: float | None = 0.1,
        longest: int = 640,
    ):
        require(longest=longest)
        self.longest, self.smallest = longest, checked_smallest(smallest)
        if model is None:
            raise FkpError(
                "detector.model: MediaPipe's package brings no model; get "
                "blaze_face_short_range.tflite from MediaPipe's page of its face detector and set "
                "detector.model=PATH",
                key="detector.model",
            )
        if not Path(model).is_file():
            raise FkpError(f"detector.model={model}: no such file", key="detector.model")
        self.networks = Pool(partial(_network, model, min_score))

    @cached_property
    def version(self) -> str | None:
        """The version of MediaPipe."""
        try:
            return version_of("mediapipe")
        except PackageNotFoundError:
            return None

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        smallest = smallest_face(self.smallest, image.shape)
        rows = search(image, smallest, self.PIXELS, self.longest, self._hits)
        left, top, width, height = rows[:, : HEIGHT + 1].T
        # From pixel edges to pixel centres, too.
        x = left + (0.5 + self.RIGHT) * width - 0.5
        y = top + (0.5 + self.DOWN) * height - 0.5
        boxes = square(x, y, self.SIDE * np.sqrt(width * height))
        return boxes.astype(np.float32), rows[:, SCORE].astype(np.float32)

    def _hits(self, pixels: np.ndarray, smallest: float) -> np.ndarray:
        """Return the rows (N, 5) that the network finds: left, top, width, height and score."""
        colours = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
        with self.networks.borrow() as network:
            import mediapipe  # here: `_network` has reported if it is not installed

            image = mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(colours))
            found = network.detect(image).detections
        boxes = [(face.bounding_box, face.categories[0].score) for face in found]
        rows = [(box.origin_x, box.origin_y, box.width, box.height, sure) for box, sure in boxes]
        return np.array(rows, float).reshape(-1, 5)


def _network(model: str, min_score: float) -> Any:
    try:
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise FkpError(
            f"detector=mediapipe: MediaPipe cannot be imported ({one_line(error)}); "
            "pip install 'fkp[mediapipe]'",
            key="detector",
        ) from None

    try:
        options = vision.FaceDetectorOptions(
            base_options=BaseOptions(model_asset_buffer=read_bytes(Path(model), MAX_BYTES)),
            min_detection_confidence=min_score,
        )
        return vision.FaceDetector.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise FkpError(
            f"detector.model={model}: not a model that MediaPipe can use ({one_line(error)})",
            key="detector.model",
        ) from None
