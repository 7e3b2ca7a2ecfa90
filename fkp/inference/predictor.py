"""Predictor: an image in, faces out. Imports no Lightning and no Hydra; torch for checkpoints."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fkp.detectors import Auto, Detector, detect
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import read_image, to_gray
from fkp.geometry import apply, invert, mirroring, warp
from fkp.inference import engines
from fkp.inference.refinement import BOX_SIDES as BOX_SIDES  # the tracker's unit, too
from fkp.inference.refinement import refine
from fkp.markup import Markup
from fkp.ranges import require
from fkp.transforms import Crops, Transform, run
from fkp.weights import EXPORTED, FILE, shipped

MAX_PIXELS = 50_000_000  # of the images that wait for a batch in `Predictor.stream`


class _Request(NamedTuple):
    """One image whose faces have been detected, and whose points are wanted.

    Attributes:
        image: as the network takes it: gray (H, W) or RGB (H, W, 3) uint8.
        boxes: (F, 4), IMAGE pixels.
        scores: (F,) of the detector.
        min_confidence: that a face must have to be reported.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    min_confidence: float


@dataclass
class Predictor:
    """Find the faces of an image and their key points.

    One predictor may be called from several threads at once, also by `stream`, as long as its
    detector may: fkp's own detectors and engines may. It can be copied, pickled, and sent to other
    processes. It also works in a process forked after it was loaded, but for a model on CUDA, which
    raises an FkpError there: start such processes with the method "spawn".

    Args:
        engine: runs the network: crops to points.
        transforms: the geometric steps from a face to the crop, as in training.
        markup: the meaning of the points.
        gray: the network takes one channel.
        detector: finds the boxes when none are given: a callable, or an object with such a method
            `detect`; see `fkp.detectors.Detector`.
        refine_steps: how often each face is predicted, see `fkp.inference.refinement`.
        min_confidence: detected faces with a lower mean confidence are dropped.
        label_offset: how far to the right the labels lie that the points are to match, in
            outer-eye distances; the network is trained without it.
        batch_size: faces that the network takes at once.
    """

    engine: engines.Engine
    transforms: list[Transform]
    markup: Markup
    gray: bool = True
    detector: Detector = field(default_factory=Auto)
    refine_steps: int = 2
    min_confidence: float = 0.2
    label_offset: float = 0.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        require(
            refine_steps=self.refine_steps,
            min_confidence=self.min_confidence,
            batch_size=self.batch_size,
        )

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        detector: Detector | None = None,
        device: str | None = None,
        refine_steps: int = 2,
        min_confidence: float = 0.2,
    ) -> Predictor:
        """Load a predictor from a file that `train.py` or `export.py` has written.

        Args:
            path: a `.ckpt` or `.onnx` file; None for the shipped weights, which onnxruntime runs,
                or torch if a device is named.
            detector: None for `fkp.detectors.Auto`: YuNet if its model is in the cache or can be
                fetched, else the Haar cascade.
            device: such as "cpu" or "cuda", for a checkpoint; None takes a GPU if there is one.
            refine_steps: how often each face is predicted.
            min_confidence: detected faces with a lower mean confidence are dropped; 0 keeps all.

        Raises:
            FkpError: there is no such file, or it is not fkp's.
        """
        if path is None:
            path = shipped(EXPORTED if device is None else FILE)
        engine = engines.load(Path(path), device)

        recipe = engine.recipe
        return cls(
            engine=engine,
            transforms=recipe.build_transforms(),
            markup=recipe.markup,
            gray=recipe.gray,
            detector=Auto() if detector is None else detector,
            refine_steps=refine_steps,
            min_confidence=min_confidence,
            label_offset=recipe.label_offset,
        )

    def __call__(
        self, image: str | Path | np.ndarray, boxes: ArrayLike | None = None
    ) -> list[Face]:
        """Find the faces of one image, then their points.

        Args:
            image: a path, or RGB (H, W, 3) or gray (H, W) uint8.
            boxes: (F, 4) left, top, right, bottom in IMAGE pixels, in the convention of
                `fkp.geometry.face_box`; None lets the detector find them.

        Returns:
            one Face per box, in the order given; or the detected faces, highest score first,
            without those of low confidence.

        Raises:
            FkpError: the image cannot be read, or image or boxes have another shape or type.
        """
        (faces,) = self.stream([image], None if boxes is None else [boxes])
        return faces

    def stream(
        self, images: Iterable[str | Path | np.ndarray], boxes: Iterable[ArrayLike] | None = None
    ) -> Iterator[list[Face]]:
        """Find the faces of many images, in batches over several images, in constant memory.

        Args:
            images: as for one call; each is read when it is needed.
            boxes: for each image, as for one call; None lets the detector find them.

        Yields:
            for each image, in order, what one call would return.

        Raises:
            FkpError: as one call, when that image is reached.
        """
        given = itertools.repeat(None) if boxes is None else boxes
        waiting: list[_Request] = []

        for image, image_boxes in zip(images, given, strict=boxes is not None):
            waiting.append(self._detect(image, image_boxes))
            if self._is_full(waiting):
                yield from self._answer(waiting)
                waiting.clear()

        yield from self._answer(waiting)

    def _is_full(self, requests: Sequence[_Request]) -> bool:
        """Whether these images fill a batch, or as much memory as may wait."""
        faces = sum(len(request.boxes) for request in requests)
        pixels = sum(request.image.shape[0] * request.image.shape[1] for request in requests)
        return max(faces, len(requests)) >= self.batch_size or pixels >= MAX_PIXELS

    def _detect(self, image: str | Path | np.ndarray, boxes: ArrayLike | None) -> _Request:
        """Read an image and find its boxes, unless they are given."""
        pixels = read_image(image) if isinstance(image, (str, Path)) else _checked_image(image)

        if boxes is None:
            found, scores = detect(self.detector, pixels)
            min_confidence = self.min_confidence
        else:
            found = _checked_boxes(boxes)
            scores, min_confidence = np.ones(len(found), np.float32), 0.0

        return _Request(self._with_channels(pixels), found, scores, min_confidence)

    def _with_channels(self, pixels: np.ndarray) -> np.ndarray:
        """Convert an image to gray (H, W) or RGB (H, W, 3), as the network takes it."""
        if self.gray:
            return to_gray(pixels)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)

    def _answer(self, requests: Sequence[_Request]) -> Iterator[list[Face]]:
        """Find the points of all faces of some images together."""
        if not requests:
            return
        boxes = np.concatenate([request.boxes for request in requests])  # (F, 4)
        images = np.repeat(np.arange(len(requests)), [len(request.boxes) for request in requests])

        def crop(
            faces: np.ndarray, boxes: np.ndarray, rolls: np.ndarray, mirrored: bool
        ) -> tuple[np.ndarray, np.ndarray]:
            of_images = []
            for image in np.unique(images[faces]):  # ascending, as the faces are
                own = images[faces] == image
                pixels = requests[image].image
                of_images.append(self.crop(pixels, boxes[own], rolls=rolls[own], mirrored=mirrored))
            crops, to_crop = zip(*of_images, strict=True)
            return np.concatenate(crops), np.concatenate(to_crop)

        refined = refine(boxes, crop, self._predict_crops, self.markup, self.refine_steps, images)
        points = self._add_label_offset(refined.points)
        confidence = refined.face_confidence

        for image, request in enumerate(requests):
            faces = np.flatnonzero(images == image)
            rows = zip(faces, request.boxes, request.scores.tolist(), strict=True)
            yield [
                Face(points[face], refined.confidence[face], box, score)
                for face, box, score in rows
                if confidence[face] >= request.min_confidence
            ]

    def predict(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray | None = None,
        rolls: np.ndarray | None = None,
        mirrored: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict the points of the faces in these boxes once, without refinement.

        Args:
            image: uint8 (H, W), or RGB (H, W, 3) if the network takes colours.
            boxes: (F, 4), IMAGE pixels.
            labels: (F, K, 2), to crop as in training, where labelled faces are cropped otherwise.
            rolls: (F,) known rotation of each face, degrees clockwise; None for upright faces.
            mirrored: flip the crops, and the points back.

        Returns:
            points (F, K, 2), IMAGE pixels, and confidence (F, K), both float32.
        """
        crops, to_crop = self.crop(image, boxes, labels, rolls, mirrored)
        points, confidence = self._predict_crops(crops, to_crop, mirrored)
        return self._add_label_offset(points), confidence

    def crop(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray | None = None,
        rolls: np.ndarray | None = None,
        mirrored: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Crop the faces in these boxes for the network; arguments as of `predict`.

        Returns:
            crops (F, h, w) or (F, h, w, 3) uint8, and the affines (F, 2, 3), IMAGE -> CROP.
        """
        # One affine per face.
        extents = np.repeat(np.array(image.shape[1::-1])[None], len(boxes), 0)
        crops = run(self.transforms, Crops(boxes, extents, labels, rolls=rolls))
        if mirrored:
            crops.move(mirroring(crops.sizes[:, 0]), crops.sizes)

        # Resample the image once through each.
        width, height = crops.size
        pixels = np.empty((len(boxes), height, width, *image.shape[2:]), np.uint8)
        for i, affine in enumerate(crops.to_crop):
            pixels[i] = warp(image, affine, (width, height))
        return pixels, crops.to_crop

    def _predict_crops(
        self, crops: np.ndarray, to_crop: np.ndarray, mirrored: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run the network in batches: points (F, K, 2), IMAGE pixels, and confidence (F, K)."""
        points = np.zeros((len(crops), len(self.markup.points), 2), np.float32)
        confidence = np.zeros(points.shape[:2], np.float32)

        for start in range(0, len(crops), self.batch_size):
            batch = slice(start, start + self.batch_size)
            found, sure = self.engine(crops[batch])
            if mirrored:
                found, sure = found[:, self.markup.flip_indices], sure[:, self.markup.flip_indices]
            points[batch], confidence[batch] = apply(invert(to_crop[batch]), found), sure

        return points, confidence

    def _add_label_offset(self, points: np.ndarray) -> np.ndarray:
        """Shift points (F, K, 2) as the labels of the training data are shifted."""
        right, left = self.markup.eyes
        return points + self.label_offset * (points[:, left] - points[:, right])[:, None]


def _checked_image(image: Any) -> np.ndarray:
    """Return an array that is an image.

    Raises:
        FkpError: it has another type or shape.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise FkpError(f"image must be a path or a uint8 array, not {kind}")
    if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise FkpError(f"image must be gray (H, W) or RGB (H, W, 3), not {image.shape}")
    return image


def _checked_boxes(boxes: ArrayLike) -> np.ndarray:
    """Return boxes (F, 4) as float32.

    Raises:
        FkpError: a box is not finite, or has no area.
    """
    if not np.size(boxes):
        return np.zeros((0, 4), np.float32)
    checked = np.asarray(boxes, np.float32).reshape(-1, 4)
    if not np.isfinite(checked).all() or (checked[:, 2:] <= checked[:, :2]).any():
        raise FkpError("boxes must be left, top, right, bottom with right > left and bottom > top")
    return checked
