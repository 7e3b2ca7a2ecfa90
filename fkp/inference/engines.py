"""Engines: run a checkpoint with torch, or an exported file with onnxruntime and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from fkp.errors import FkpError, one_line
from fkp.recipe import LIMITS, Recipe
from fkp.transforms import Crops, run

# Two face boxes in images of two sizes, (2, 4) and (2, 2): crops of both must have one size.
EXAMPLE_BOXES = np.array([[10, 10, 110, 110], [0, 0, 300, 400]])
EXAMPLE_EXTENTS = np.array([[640, 480], [500, 700]])


class Engine(Protocol):
    """The interface of all engines."""

    recipe: Recipe

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict the points of face crops.

        Args:
            crops: (B, h, w), or RGB (B, h, w, 3), uint8.

        Returns:
            points (B, K, 2), CROP pixels, and confidence (B, K), both float32.
        """
        ...


def load(path: Path, device: str | None = None) -> Engine:
    """Load the engine for a file: onnxruntime for `.onnx`, torch for any other ending.

    Args:
        path: of a file that `train.py` or `export.py` has written.
        device: of a checkpoint, such as "cpu" or "cuda"; None takes a GPU if there is one.

    Raises:
        FkpError: there is no such file, or it cannot be used.
    """
    if not path.is_file():
        raise FkpError(f"{path}: no such checkpoint; train one with `python train.py`")

    engine: Engine
    if path.suffix == ".onnx":
        from fkp.inference.onnx_engine import OnnxEngine

        engine = OnnxEngine(path)
    else:
        from fkp.inference.torch_engine import TorchEngine  # torch: seconds of imports

        engine = TorchEngine.load(path, device)

    check_answer(engine, path)
    return engine


def check_answer(engine: Engine, path: Path) -> None:
    """Run an engine on one black crop, and check its answer.

    Raises:
        FkpError: it cannot run, or does not answer with the points of its markup.
    """
    count = len(engine.recipe.markup.points)
    try:
        points, confidence = engine(_black_crop(engine.recipe))
        good = (
            points.shape == (1, count, 2)
            and confidence.shape == (1, count)
            and np.isfinite(points).all()
        )
    except FkpError:
        raise
    except Exception as error:  # unchecked values can raise anything
        raise FkpError(
            f"{path}: its transforms, network and codec do not fit each other ({one_line(error)})"
        ) from None

    if not good:
        raise FkpError(
            f"{path}: does not answer with {count} points, finite and each with a confidence;"
            " train it again"
        )


def _black_crop(recipe: Recipe) -> np.ndarray:
    """Return a black crop (1, h, w) or (1, h, w, 3) of the size that the transforms lead to."""
    crops = Crops(EXAMPLE_BOXES, EXAMPLE_EXTENTS)
    with np.errstate(all="ignore"):
        width, height = run(recipe.build_transforms(), crops).size
    if not 1 <= min(width, height) <= max(width, height) <= LIMITS["size"]:
        raise ValueError(f"crops of {width} x {height} pixels")
    return np.zeros((1, height, width) if recipe.gray else (1, height, width, 3), np.uint8)
