"""Define the interface of detectors, call any object that has it, and describe it in results."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from fkp.errors import FkpError


class Detector(Protocol):
    """The interface of all detectors: a callable, or an object with such a method `detect`.

    A predictor calls its detector from each thread that calls the predictor. A detector that keeps
    state while it works must lock it, or keep one state per thread. The detectors of fkp can be
    shared by threads, copied and pickled.

    Optional: an attribute `version`, which is kept beside the name of the class in the results.
    """

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find faces.

        Args:
            image: RGB (H, W, 3) or gray (H, W) uint8.

        Returns:
            boxes (F, 4), IMAGE pixels, in the convention of `fkp.geometry.face_box`, and scores
            (F,), best first.
        """
        ...


def detect(detector: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find faces with a callable, or with an object that has a method `detect`.

    Returns:
        boxes (F, 4) and scores (F,), both float32.

    Raises:
        FkpError: it returns something else.
    """
    found = getattr(detector, "detect", detector)(image)
    try:
        boxes, scores = (np.asarray(part, np.float32) for part in found)
        boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
        if boxes.shape != (scores.size, 4) or not np.isfinite(boxes).all():
            raise ValueError(f"shapes {boxes.shape} and {scores.shape}, or numbers not finite")
    except (TypeError, ValueError) as error:
        raise FkpError(
            f"detector {describe(detector)['name']}: must return boxes (F, 4) and scores (F,), "
            f"finite numbers ({error})",
            key="detector",
        ) from None
    return boxes, scores.reshape(-1)


def describe(detector: Any) -> dict[str, str | None]:
    """Return the name and the version of a detector, for results: plain values."""
    chosen = getattr(detector, "chosen", detector)  # what `auto` uses
    name = getattr(chosen, "__qualname__", type(chosen).__name__)
    version = getattr(chosen, "version", None)
    return {"name": name, "version": None if version is None else str(version)}
