"""Run small networks of other people, which are ONNX files, as their repositories do.

They are not part of fkp: see `--models` of `accuracy/peers_small.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fkp.files.images import read_image
from fkp.geometry import apply, invert, warp

# Of WFLW's 98 points, those at the 68: every second of the jaw, the upper edges of the brows, …
WFLW = [
    *range(0, 33, 2),
    *(*range(33, 38), *range(42, 47), *range(51, 60)),
    *(60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75),
    *range(76, 96),
]
# Of the 68 points, those of OpenSeeFace, in its order: it has no inner corners of the mouth, and
# its outer ones stand among the inner lips.
OPENSEEFACE = [*range(48), *range(49, 54), *range(55, 60), 48, 61, 62, 63, 54, 65, 66, 67]


class System(NamedTuple):
    """A system, and how its points correspond to the 68.

    Args:
        find: image file and label (68, 2) to points (K, 2), IMAGE pixels; None: face not found.
        own: of its K points, those that are among the 68.
        of: the numbers of these among the 68.
        step: runs one step, and returns its milliseconds.
        steps: how many a face takes.
        file_mb: of its weights.
    """

    find: Callable[[Path, np.ndarray], np.ndarray | None]
    own: list[int]
    of: list[int]
    step: Callable[[], float]
    steps: int
    file_mb: float


def timed(run: Callable[[], Any]) -> Callable[[], float]:
    """Make a function that runs another, and returns its milliseconds."""

    def measure() -> float:
        began = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - began)

    return measure


def session(file: Path) -> Any:
    """Open an ONNX file with onnxruntime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def crop_of(image: np.ndarray, low: np.ndarray, high: np.ndarray, size: int) -> Any:
    """Crop a box, edge to edge, to a square of `size` pixels, three channels.

    Returns:
        the crop (size, size, 3) uint8, and the affine from IMAGE to CROP pixels.
    """
    x, y = size / (high - low)
    to_crop = np.array([[x, 0, (0.5 - low[0]) * x - 0.5], [0, y, (0.5 - low[1]) * y - 0.5]])
    crop = warp(image, to_crop, (size, size))
    return (crop if crop.ndim == 3 else np.repeat(crop[..., None], 3, 2)), to_crop


def pfld(file: Path) -> System:
    """Load PFLD-GhostOne: a square of 1.2 times the points' extent, BGR, from -1 to 1."""
    network = session(file)

    def run(crop: np.ndarray) -> np.ndarray:
        pixels = crop[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
        (points,) = network.run(None, {"input": pixels})
        return points.reshape(98, 2) * 112 - 0.5

    def find(path: Path, label: np.ndarray) -> np.ndarray:
        low, high = label.min(0), label.max(0)
        centre, half = (low + high) / 2, 0.6 * (high - low).max()
        crop, to_crop = crop_of(read_image(path), centre - half, centre + half, 112)
        return apply(invert(to_crop), run(crop))

    black = np.zeros((112, 112, 3), np.uint8)
    size = file.stat().st_size / 1e6
    return System(find, WFLW, list(range(68)), timed(lambda: run(black)), 1, size)


def openseeface(file: Path) -> System:
    """Load OpenSeeFace's lm0: the points' extent and 10 and 12.5 % on each side, RGB, ImageNet's.

    It gives a map of 28 x 28 cells for each point, and in each cell the point's offsets down and to
    the right, as logits of a sixteenth of the crop.
    """
    network, around = session(file), np.array([0.1, 0.125])
    mean, std = (
        255 * np.array(values, np.float32)
        for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    points = np.arange(66)

    def run(crop: np.ndarray) -> np.ndarray:
        pixels = ((crop - mean) / std).transpose(2, 0, 1)[None]
        maps, down, right = network.run(None, {"input": pixels})[0].reshape(3, 66, 28 * 28)
        cell = maps.argmax(1)
        offsets = np.stack([right[points, cell], down[points, cell]], 1).clip(1e-7, 1 - 1e-7)
        cells = np.stack([cell % 28, cell // 28], 1)
        return 223 * (cells / 27 + np.log(offsets / (1 - offsets)) / 16)

    def find(path: Path, label: np.ndarray) -> np.ndarray:
        low, high = label.min(0), label.max(0)
        margin = around * (high - low)
        crop, to_crop = crop_of(read_image(path), low - margin, high + margin, 224)
        return apply(invert(to_crop), run(crop))

    black = np.zeros((224, 224, 3), np.uint8)
    size = file.stat().st_size / 1e6
    return System(find, list(range(66)), OPENSEEFACE, timed(lambda: run(black)), 1, size)
