"""Weights -> Predictor: a picture in, faces out. Imports no Lightning and no Hydra."""

from __future__ import annotations

import importlib
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from fkp.codecs import Codec
from fkp.detectors import Detector, HaarCascade
from fkp.errors import FkpError
from fkp.geometry import apply, invert, mirroring, tilted_box, warp
from fkp.markup import Markup
from fkp.networks import fused
from fkp.pictures import read_picture, to_gray
from fkp.transforms import Crops, Normalize, ToTensor, Transform, run
from fkp.weights import shipped

# How far apart two looks may be, in units of sqrt(w * h) of the points' extent, to be two opinions of one thing.
AGREEING = 0.04
# The only modules a checkpoint may name: loading a file never runs foreign code.
REBUILT = ("fkp.networks", "fkp.codecs", "fkp.transforms")


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
        network: image (B, C, h, w) to raw output, in evaluation mode.
        codec: raw output to points.
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

    network: torch.nn.Module
    codec: Codec
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
        """Rebuild a predictor from a checkpoint of `train.py`.

        Args:
            path: a `.ckpt` file; None for the weights that come with the package.
            detector: Haar cascade if None.
            device: such as "cpu" or "cuda"; None takes a GPU if there is one.
            passes: how often a face is looked at.
            min_confidence: detected faces whose points are less sure on average are dropped; 0 keeps all.

        Raises:
            FkpError: no such file, or not a checkpoint of fkp.
        """
        path = shipped() if path is None else Path(path)
        network, markup, recipe = rebuild(path)
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            network = fused(network).to(place).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            raise FkpError(f"device={place}: {str(error).splitlines()[0]}") from None
        return cls(
            network,
            _part(recipe["codec"], path),
            [_part(step, path) for step in recipe["transforms"].values()],
            markup,
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
        count, extent = len(self.markup.points), np.array(image.shape[1::-1])
        points, confidence = np.zeros((len(boxes), count, 2), np.float32), np.zeros((len(boxes), count), np.float32)
        device = next(self.network.parameters()).device
        crops = run(self.transforms, Crops(boxes, np.repeat(extent[None], len(boxes), 0), labels, tilts=tilts))
        if mirrored:
            crops.move(mirroring(crops.sizes[:, 0]), crops.sizes)
        for start in range(0, len(boxes), self.batch_size):
            some = slice(start, start + self.batch_size)
            pixels = np.stack([warp(image, affine, crops.size) for affine in crops.to_crop[some]])
            with torch.inference_mode():
                images = Normalize()(ToTensor()(pixels).to(device))
                found, sure = self.codec.decode(self.network(images))
            if mirrored:
                found, sure = found[:, self.markup.flip], sure[:, self.markup.flip]
            points[some] = apply(invert(crops.to_crop[some]), found.cpu().numpy())
            confidence[some] = sure.cpu().numpy()
        return points, confidence


def rebuild(path: Path) -> tuple[torch.nn.Module, Markup, dict[str, Any]]:
    """The network of a checkpoint, with its weights, in evaluation mode; what its points are; and its recipe.

    Raises:
        FkpError: no such file, or not a checkpoint of fkp.
    """
    if not path.is_file():
        raise FkpError(f"{path}: no such checkpoint; train one with `python train.py`")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        recipe, state = checkpoint["fkp"], checkpoint["state_dict"]
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise FkpError(f"{path}: not a checkpoint of fkp ({type(error).__name__})") from None
    if recipe is None:
        raise FkpError(f"{path}: made without a recipe, so it cannot predict; train with `python train.py`")
    markup = Markup(**recipe["markup"])
    network: torch.nn.Module = _part(recipe["network"], path, points=len(markup.points))
    weights = {name.removeprefix("network."): w for name, w in state.items() if name.startswith("network.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise FkpError(f"{path}: its weights do not fit its network ({error})") from None
    return network.eval(), markup, recipe


def _checked(image: Any) -> np.ndarray:
    """An array that is a picture."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise FkpError(f"image must be a path or a uint8 array, not {kind}")
    if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise FkpError(f"image must be gray (H, W) or RGB (H, W, 3), not {image.shape}")
    return image


def _part(spec: dict[str, Any], path: Path, **more: Any) -> Any:
    """Make one of fkp's own objects from plain values."""
    arguments = {name: value for name, value in spec.items() if name != "_partial_"} | more
    target = str(arguments.pop("_target_", ""))
    module, _, name = target.rpartition(".")
    part = getattr(importlib.import_module(module), name, None) if module in REBUILT else None
    if not isinstance(part, type) or part.__module__ != module:
        raise FkpError(f"{path}: names {target!r}, which is none of fkp's own parts; not loaded")
    try:
        return part(**arguments)
    except TypeError as error:
        raise FkpError(f"{path}: made by another version of fkp ({error})") from None
