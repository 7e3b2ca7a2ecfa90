"""Weights -> Predictor: a picture in, faces out. Imports no Lightning and no Hydra; torch for checkpoints alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fkp import engines
from fkp.detectors import Detector, HaarCascade
from fkp.errors import FkpError
from fkp.geometry import apply, invert, mirroring, tilted_box, warp
from fkp.markup import Markup
from fkp.pictures import read_picture, to_gray
from fkp.transforms import Crops, Transform, run
from fkp.weights import shipped

# How far apart two looks may be, in units of sqrt(w * h) of the points' extent, to be two opinions of one thing.
AGREEING = 0.04


@dataclass(repr=False)
class Face:
    """One face of a picture.

    Args:
        points: (K, 2) float32, x y, IMAGE pixels.
        confidence: (K,) float32 in [0, 1]: the chance that a point lies within 5 % of the outer-eye distance of where a
            person would put it; 1 from a network that was not trained to tell.
        box: (4,) float32: left, top, right, bottom, IMAGE pixels.
        score: how sure the detector is; 1 for a box that was given. Comparable within one detector only.
    """

    points: np.ndarray
    confidence: np.ndarray
    box: np.ndarray
    score: float

    def __repr__(self) -> str:
        left, top, right, bottom = self.box
        return (
            f"Face({len(self.points)} points in {left:.0f}, {top:.0f} … {right:.0f}, {bottom:.0f}, "
            f"score {self.score:.2f}, confidence {self.confidence.mean():.2f})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "points": self.points.round(3).tolist(),
            "confidence": self.confidence.round(4).tolist(),
            "box": self.box.round(2).tolist(),
            "score": round(float(self.score), 4),
        }


@dataclass
class Predictor:
    """Finds the faces of a picture and their key points.

    Args:
        engine: runs the network: crops to points.
        transforms: the geometric steps from a face to the crop, as in training.
        markup: the meaning of the points.
        gray: the network wants one channel.
        detector: finds the boxes when none are given.
        passes: how often a face is looked at. From the second time on, the crop is drawn round the points found before,
            and turned with them, as boxes scatter more than points do; every second look is in the mirror; and the
            answer is the mean of all looks, later ones counting more, but for looks that the next one finds far off.
        min_confidence: what the detector found is no face if its points are less sure than this on average.
        batch_size: faces the network sees at once.
    """

    engine: engines.Engine
    transforms: list[Transform]
    markup: Markup
    gray: bool = True
    detector: Detector = field(default_factory=HaarCascade)
    passes: int = 2
    min_confidence: float = 0.2
    batch_size: int = 32

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        detector: Detector | None = None,
        device: str | None = None,
        passes: int = 2,
        min_confidence: float = 0.2,
    ) -> Predictor:
        """Rebuild a predictor from a file of `train.py` or `export.py`.

        Args:
            path: a `.ckpt` or `.onnx` file; None for the weights that come with the package.
            detector: Haar cascade if None.
            device: such as "cpu" or "cuda"; None takes a GPU if there is one.
            passes: how often a face is looked at.
            min_confidence: detected faces whose points are less sure on average are dropped; 0 keeps all.

        Raises:
            FkpError: no such file, or none of fkp's.
        """
        path = shipped() if path is None else Path(path)
        engine = engines.load(path, device)
        recipe = engine.recipe
        return cls(
            engine,
            [engines.part(step, path) for step in recipe["transforms"].values()],
            Markup(**recipe["markup"]),
            recipe["gray"],
            detector or HaarCascade(),
            passes,
            min_confidence,
        )

    def __call__(self, image: str | Path | np.ndarray, boxes: ArrayLike | None = None) -> list[Face]:
        """Find faces, then their points.

        Args:
            image: a path, or RGB (H, W, 3) or gray (H, W) uint8.
            boxes: (F, 4) left, top, right, bottom in IMAGE pixels, as `fkp.geometry.face_box` draws them; None
                lets the detector find them.

        Returns:
            One Face a box, in the order given; or the detected ones, best first, but for those whose points are unsure.

        Raises:
            FkpError: the picture cannot be read, or image or boxes have another shape or type.
        """
        pixels = read_picture(image) if isinstance(image, (str, Path)) else _checked(image)
        if boxes is None:
            found, scores = self.detector(pixels)
        else:
            found = np.asarray(boxes, np.float32).reshape(-1, 4) if np.size(boxes) else np.zeros((0, 4), np.float32)
            scores = np.ones(len(found), np.float32)
            if not np.isfinite(found).all() or (found[:, 2:] <= found[:, :2]).any():
                raise FkpError("boxes must be left, top, right, bottom with right > left and bottom > top")
        canvas = to_gray(pixels) if self.gray else np.atleast_3d(pixels)
        if not self.gray and canvas.shape[2] == 1:
            canvas = np.repeat(canvas, 3, 2)
        framed, tilts = found, None
        points = np.zeros((len(found), len(self.markup.points), 2), np.float32)
        for look in range(max(1, self.passes)):
            seen, confidence = self.predict(canvas, framed, tilts=tilts, mirrored=look % 2 == 1)
            # Weights 1, 2, 3, … of the looks so far; 1 where all before were far off.
            size = np.sqrt(np.ptp(seen, axis=1).prod(1))
            near = np.linalg.norm(points - seen, axis=2).mean(1) < AGREEING * size
            points += np.where(near, 2 / (look + 2), 1.0)[:, None, None].astype(np.float32) * (seen - points)
            frames = [tilted_box(face, self.markup) for face in points]
            framed = np.array([box for box, _ in frames]).reshape(-1, 4)
            tilts = np.array([tilt for _, tilt in frames])
        faces = [Face(*face) for face in zip(points, confidence, found, scores.tolist(), strict=True)]
        return [face for face in faces if boxes is not None or face.confidence.mean() >= self.min_confidence]

    def predict(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray | None = None,
        tilts: np.ndarray | None = None,
        mirrored: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the points of the faces in these boxes.

        Args:
            image: uint8 (H, W), or RGB (H, W, 3) if the network wants colours.
            boxes: (F, 4), IMAGE pixels.
            labels: (F, K, 2), to crop as labelled faces are cropped in training, where that is another way.
            tilts: (F,) how far the faces are known to be turned, degrees clockwise; None for upright.
            mirrored: look at the crops in the mirror.

        Returns:
            points (F, K, 2), IMAGE pixels, and confidence (F, K), both float32.
        """
        pixels, to_crop = self.crop(image, boxes, labels, tilts, mirrored)
        points = np.zeros((len(boxes), len(self.markup.points), 2), np.float32)
        confidence = np.zeros(points.shape[:2], np.float32)
        for start in range(0, len(boxes), self.batch_size):
            some = slice(start, start + self.batch_size)
            found, sure = self.engine(pixels[some])
            if mirrored:
                found, sure = found[:, self.markup.flip], sure[:, self.markup.flip]
            points[some], confidence[some] = apply(invert(to_crop[some]), found), sure
        return points, confidence

    def crop(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray | None = None,
        tilts: np.ndarray | None = None,
        mirrored: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the network sees of the faces in these boxes; arguments as of `predict`.

        Returns:
            crops (F, h, w) or (F, h, w, 3) uint8, and the affines (F, 2, 3) IMAGE -> CROP.
        """
        extents = np.repeat(np.array(image.shape[1::-1])[None], len(boxes), 0)
        crops = run(self.transforms, Crops(boxes, extents, labels, tilts=tilts))
        if mirrored:
            crops.move(mirroring(crops.sizes[:, 0]), crops.sizes)
        size = crops.size
        pixels = np.empty((len(boxes), size[1], size[0], *image.shape[2:]), np.uint8)
        for i, affine in enumerate(crops.to_crop):
            pixels[i] = warp(image, affine, size)
        return pixels, crops.to_crop


def _checked(image: Any) -> np.ndarray:
    """An array that is a picture."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise FkpError(f"image must be a path or a uint8 array, not {kind}")
    if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise FkpError(f"image must be gray (H, W) or RGB (H, W, 3), not {image.shape}")
    return image
