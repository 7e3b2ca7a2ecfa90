"""Predictor: an image in, faces out. Imports no Lightning and no Hydra; torch for checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fkp.detectors import Auto, Detector
from fkp.face import Face
from fkp.geometry import apply, invert, mirroring, warp
from fkp.inference import engines
from fkp.inference.pipeline import Pipeline
from fkp.inference.refinement import BOX_SIDES as BOX_SIDES  # the tracker's unit, too
from fkp.inference.stream import Stages
from fkp.markup import Markup
from fkp.ranges import require
from fkp.transforms import Crops, Transform, run
from fkp.weights import EXPORTED, FILE, shipped


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
        (faces,) = self.stream([image], None if boxes is None else [boxes], threads=1)
        return faces

    def stream(
        self,
        images: Iterable[str | Path | np.ndarray],
        boxes: Iterable[ArrayLike] | None = None,
        threads: int | None = None,
    ) -> Iterator[list[Face]]:
        """Find the faces of many images, in batches over several images, in bounded memory.

        Several images are read and detected at once, while the points of others are predicted.
        The batches depend on the images alone, so the faces do not depend on the number of threads.
        They differ from those of single calls by rounding, as batches have other sizes.

        Args:
            images: as for one call; read ahead, by the thread that iterates.
            boxes: for each image, as for one call; None lets the detector find them.
            threads: number of threads; None for all cores; 1 for none: a plain loop. They end
                with the iterator, also when it is closed early.

        Yields:
            for each image, in order, what one call would return.

        Raises:
            FkpError: as one call, when that image is reached; or wrong `threads`.
        """
        with Pipeline(threads) as pipeline:
            for answer in Stages(self).answers(pipeline, images, boxes):
                if answer.error is not None:
                    raise answer.error
                yield answer.faces

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
        points, confidence = self.predict_crops(crops, to_crop, mirrored)
        return self.add_label_offset(points), confidence

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

    def predict_crops(
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

    def add_label_offset(self, points: np.ndarray) -> np.ndarray:
        """Shift points (F, K, 2) as the labels of the training data are shifted."""
        right, left = self.markup.eyes
        return points + self.label_offset * (points[:, left] - points[:, right])[:, None]
