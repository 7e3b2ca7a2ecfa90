"""Weights -> Predictor: a picture in, faces out. Imports no Lightning and no Hydra; torch for checkpoints alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fkp.detectors import Detector, HaarCascade
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import read_image, to_gray
from fkp.geometry import apply, centre_and_side, invert, mirroring, reframed, strayed, warp
from fkp.inference import engines
from fkp.markup import Markup
from fkp.ranges import require
from fkp.transforms import Crops, Transform, run
from fkp.weights import EXPORTED, FILE, shipped

# How far apart two looks may be, in units of sqrt(w * h) of the points' extent, to be two opinions of one thing.
# A markup with a measured frame, whose points may lie on one line, has the side of the box for it.
AGREEING, BOX_SIDES = 0.04, 1.18
# Faces whose points are less sure than this on average are also seen turned by each of these angles, degrees clockwise.
# Of 450 upright validation and drawn faces 98 % were surer; seen upside down, none was.
CLEAR, SURER, TURNS = 0.5, 0.2, (180.0, 90.0, -90.0)
HELD = 50_000_000  # pixels of pictures that wait for each other in a stream


class _Picture(NamedTuple):
    """A picture whose boxes have been found: what the network sees of it, and the confidence a face needs."""

    canvas: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    least: float

    @property
    def costs(self) -> tuple[int, int]:
        """Faces and pixels."""
        return len(self.boxes), int(np.prod(self.canvas.shape[:2]))


@dataclass
class Predictor:
    """Finds the faces of a picture and their key points.

    One predictor may be called from several threads at once, also by `stream`, as long as its detector may: fkp's own
    detectors and engines may. It can be copied, pickled, and sent to other processes. In a process forked after it was
    loaded it answers, too, but a model on CUDA, which raises an FkpError there: start such processes with the method
    "spawn".

    Args:
        engine: runs the network: crops to points.
        transforms: the geometric steps from a face to the crop, as in training.
        markup: the meaning of the points.
        gray: the network wants one channel.
        detector: finds the boxes when none are given.
        refine_steps: how often a face is looked at. From the second time on, the crop is drawn round the points found before,
            and turned with them, as boxes scatter more than points do; every second look is in the mirror; and the
            answer is the mean of all looks, later ones counting more, but for looks that the next one finds far off.
        min_confidence: what the detector found is no face if its points are less sure than this on average.
        label_offset: how far to the right of the faces its points lie in the labels that it is to answer like, in outer-eye
            distances; the network itself has no side.
        batch_size: faces the network sees at once.
    """

    engine: engines.Engine
    transforms: list[Transform]
    markup: Markup
    gray: bool = True
    detector: Detector = field(default_factory=HaarCascade)
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
        """Rebuild a predictor from a file of `train.py` or `export.py`.

        Args:
            path: a `.ckpt` or `.onnx` file; None for the weights that come with the package, run by onnxruntime, or by
                torch if a device is named.
            detector: Haar cascade if None.
            device: such as "cpu" or "cuda", for a checkpoint; None takes a GPU if there is one.
            refine_steps: how often a face is looked at.
            min_confidence: detected faces whose points are less sure on average are dropped; 0 keeps all.

        Raises:
            FkpError: no such file, or none of fkp's.
        """
        path = shipped(EXPORTED if device is None else FILE) if path is None else Path(path)
        engine = engines.load(path, device)
        recipe = engine.recipe
        return cls(
            engine,
            recipe.build_transforms(),
            recipe.markup,
            recipe.gray,
            detector or HaarCascade(),
            refine_steps,
            min_confidence,
            recipe.label_offset,
        )

    def __call__(
        self, image: str | Path | np.ndarray, boxes: ArrayLike | None = None
    ) -> list[Face]:
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
        (faces,) = self.stream([image], None if boxes is None else [boxes])
        return faces

    def stream(
        self, images: Iterable[str | Path | np.ndarray], boxes: Iterable[ArrayLike] | None = None
    ) -> Iterator[list[Face]]:
        """Find the faces of many pictures: the network sees faces of several pictures at once, and no more pictures are
        held than that takes.

        Args:
            images: as a call takes one; read as they are needed.
            boxes: for each picture, as a call takes them; None lets the detector find them.

        Yields:
            for each picture, in order, what a call would give.

        Raises:
            FkpError: as a call, when it comes to that picture.
        """
        waiting: list[_Picture] = []
        given = itertools.repeat(None) if boxes is None else boxes
        for image, some in zip(images, given, strict=boxes is not None):
            waiting.append(self._detect(image, some))
            faces, pixels = (
                sum(counts) for counts in zip(*(picture.costs for picture in waiting), strict=True)
            )
            if faces >= self.batch_size or pixels >= HELD or len(waiting) >= self.batch_size:
                yield from self._answers(waiting)
                waiting.clear()
        yield from self._answers(waiting)

    def _detect(self, image: str | Path | np.ndarray, boxes: ArrayLike | None) -> _Picture:
        pixels = read_image(image) if isinstance(image, (str, Path)) else _checked(image)
        if boxes is None:
            found, scores = self.detector(pixels)
        else:
            found = (
                np.asarray(boxes, np.float32).reshape(-1, 4)
                if np.size(boxes)
                else np.zeros((0, 4), np.float32)
            )
            scores = np.ones(len(found), np.float32)
            if not np.isfinite(found).all() or (found[:, 2:] <= found[:, :2]).any():
                raise FkpError(
                    "boxes must be left, top, right, bottom with right > left and bottom > top"
                )
        canvas = to_gray(pixels) if self.gray else np.atleast_3d(pixels)
        if not self.gray and canvas.shape[2] == 1:
            canvas = np.repeat(canvas, 3, 2)
        return _Picture(canvas, found, scores, 0.0 if boxes is not None else self.min_confidence)

    def _answers(self, pictures: Sequence[_Picture]) -> Iterator[list[Face]]:
        """Look at all faces of some pictures at once."""
        if not pictures:
            return
        owner = np.repeat(np.arange(len(pictures)), [len(picture.boxes) for picture in pictures])
        given = np.concatenate([picture.boxes for picture in pictures])
        framed, rolls = given, np.zeros(len(given))
        points = np.zeros((len(framed), len(self.markup.points), 2), np.float32)
        confidence, going = np.zeros(points.shape[:2], np.float32), np.ones(len(given), bool)
        first = np.zeros(len(framed))
        for look in range(max(1, self.refine_steps) if len(framed) else 0):
            mirrored, crops = look % 2 == 1 and self.markup.flips, []
            for i in np.unique(owner):
                some = owner == i
                crops.append(
                    self.crop(
                        pictures[i].canvas, framed[some], rolls=rolls[some], mirrored=mirrored
                    )
                )
            pixels, to_crop = (np.concatenate(parts) for parts in zip(*crops, strict=True))
            seen, sure = self._found(pixels, to_crop, mirrored)
            if look == 0:
                seen, sure, rolls = self._righted(pictures, owner, framed, seen, sure)
                first = sure.mean(1)
            # Weights 1, 2, 3, … of the looks so far; 1 where all before were far off.
            near = np.linalg.norm(points - seen, axis=2).mean(1) < AGREEING * self._sizes(
                seen, framed
            )
            mean = points + np.where(near, 2 / (look + 2), 1.0)[:, None, None].astype(
                np.float32
            ) * (seen - points)
            boxes, turned = reframed(mean, framed, rolls, self.markup)
            astray = strayed(boxes, given)
            # What leads to another place is not taken, unless there is nothing before it; nor is anything after it.
            taken = going & ~astray if look else going
            points = np.where(taken[:, None, None], mean, points)
            confidence = np.where(taken[:, None], sure, confidence)
            going = going & ~astray
            framed, rolls = np.where(going[:, None], boxes, framed), np.where(going, turned, rolls)
        points = self._with_label_offset(points)
        # No face: what no step is sure of, and what only the last one is a little sure of.
        steady = np.where(confidence.mean(1) >= CLEAR, 1, np.minimum(first, confidence.mean(1)))
        for i, picture in enumerate(pictures):
            some = owner == i
            rows = zip(
                points[some], confidence[some], picture.boxes, picture.scores.tolist(), strict=True
            )
            yield [
                Face(*row)
                for row, one in zip(rows, steady[some], strict=True)
                if one >= picture.least
            ]

    def _righted(
        self,
        pictures: Sequence[_Picture],
        owner: np.ndarray,
        boxes: np.ndarray,
        points: np.ndarray,
        confidence: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See faces that may lie on their side or upside down turned, and keep what is clear only then.

        Args:
            pictures: in whose pixels the faces lie.
            owner: (F,) which of them.
            boxes: (F, 4), IMAGE pixels.
            points, confidence: (F, K, 2) and (F, K), of the upright crops.

        Returns:
            points, confidence, and by how much the faces are turned (F,), degrees clockwise.
        """
        points, confidence, rolls = points.copy(), confidence.copy(), np.zeros(len(boxes))
        upright = confidence.mean(1)
        doubtful = np.flatnonzero(upright < CLEAR)
        for i in np.unique(owner[doubtful]):
            some = doubtful[owner[doubtful] == i]
            rows, turns = np.tile(some, len(TURNS)), np.repeat(TURNS, len(some))
            seen, sure = self._found(
                *self.crop(pictures[i].canvas, boxes[rows], rolls=turns), False
            )
            # Ascending, so that the surest is written last.
            for row in np.argsort(sure.mean(1)):
                if sure[row].mean() >= upright[rows[row]] + SURER:
                    points[rows[row]], confidence[rows[row]], rolls[rows[row]] = (
                        seen[row],
                        sure[row],
                        turns[row],
                    )
        return points, confidence, rolls

    def predict(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray | None = None,
        rolls: np.ndarray | None = None,
        mirrored: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the points of the faces in these boxes.

        Args:
            image: uint8 (H, W), or RGB (H, W, 3) if the network wants colours.
            boxes: (F, 4), IMAGE pixels.
            labels: (F, K, 2), to crop as labelled faces are cropped in training, where that is another way.
            rolls: (F,) how far the faces are known to be turned, degrees clockwise; None for upright.
            mirrored: look at the crops in the mirror.

        Returns:
            points (F, K, 2), IMAGE pixels, and confidence (F, K), both float32.
        """
        points, confidence = self._found(
            *self.crop(image, boxes, labels, rolls, mirrored), mirrored
        )
        return self._with_label_offset(points), confidence

    def _found(
        self, pixels: np.ndarray, to_crop: np.ndarray, mirrored: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        points = np.zeros((len(pixels), len(self.markup.points), 2), np.float32)
        confidence = np.zeros(points.shape[:2], np.float32)
        for start in range(0, len(pixels), self.batch_size):
            some = slice(start, start + self.batch_size)
            found, sure = self.engine(pixels[some])
            if mirrored:
                found, sure = found[:, self.markup.flip_indices], sure[:, self.markup.flip_indices]
            points[some], confidence[some] = apply(invert(to_crop[some]), found), sure
        return points, confidence

    def _sizes(self, points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """The unit of `AGREEING` (F,) for points (F, K, 2) found in boxes (F, 4), pixels."""
        if self.markup.frame is None:
            return np.sqrt(np.ptp(points, axis=1).prod(1))
        return centre_and_side(boxes)[2] / BOX_SIDES

    def _with_label_offset(self, points: np.ndarray) -> np.ndarray:
        first, second = self.markup.eyes
        return points + self.label_offset * (points[:, second] - points[:, first])[:, None]

    def crop(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray | None = None,
        rolls: np.ndarray | None = None,
        mirrored: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the network sees of the faces in these boxes; arguments as of `predict`.

        Returns:
            crops (F, h, w) or (F, h, w, 3) uint8, and the affines (F, 2, 3) IMAGE -> CROP.
        """
        extents = np.repeat(np.array(image.shape[1::-1])[None], len(boxes), 0)
        crops = run(self.transforms, Crops(boxes, extents, labels, rolls=rolls))
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
