"""Find the faces of many images in stages: open, detect, predict points in batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fkp.detectors import HaarCascade, detect
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import OpenedImage, open_image, to_gray
from fkp.inference.pipeline import Pipeline
from fkp.inference.refinement import refine

if TYPE_CHECKING:
    from fkp.inference.predictor import Predictor

# Pixels of the images that wait for a batch.
MAX_PIXELS = 25_000_000

# Batches whose points are predicted at once. The network has threads of its own.
BATCHES = 2

# An image as it was given, or its opened file, or the reason why it cannot be used; and its boxes.
Given: TypeAlias = "tuple[np.ndarray | OpenedImage | Exception, ArrayLike | None]"


class Answer(NamedTuple):
    """The faces of one image, or the reason why there are none.

    Attributes:
        faces: of the image; empty after an error.
        image: its pixels, RGB (H, W, 3) or gray (H, W) uint8, if they were to be kept.
        frames: of its file: more than one if it is an animation, and the image was to be kept.
        error: why the image could not be used.
    """

    faces: list[Face]
    image: np.ndarray | None = None
    frames: int = 1
    error: Exception | None = None


class _Request(NamedTuple):
    """One image whose faces have been detected, and whose points are wanted.

    Attributes:
        image: as the network takes it: gray (H, W) or RGB (H, W, 3) uint8.
        boxes: (F, 4), IMAGE pixels.
        scores: (F,) of the detector.
        min_confidence: that a face must have to be reported.
        answer: without the faces.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    min_confidence: float
    answer: Answer


class Stages:
    """The stages of one stream of images.

    Args:
        predictor: finds the faces.
        keep: whether answers hold the image.
    """

    def __init__(self, predictor: Predictor, keep: bool = False):
        self.predictor, self.keep = predictor, keep
        self.one_by_one = _one_by_one(predictor.detector)

    def answers(
        self,
        pipeline: Pipeline,
        images: Iterable[str | Path | np.ndarray],
        boxes: Iterable[ArrayLike] | None = None,
    ) -> Iterator[Answer]:
        """Find the faces of many images; an image that cannot be used does not end the stream.

        The batches depend on the images alone, not on the number of threads or their timing.

        Args:
            pipeline: whose threads do the work.
            images, boxes: as of `Predictor.stream`.

        Yields:
            for each image, in order, its faces or its error.
        """
        given = itertools.repeat(None) if boxes is None else boxes
        pairs = zip(images, given, strict=boxes is not None)

        opened = pipeline.map(_open, pairs)
        requests = pipeline.map(self.detect, opened, pixels=_pixels)
        batches = _batches(requests, self.predictor.batch_size)
        for answers in pipeline.map(self.predict, batches, _pixels_of_batch, BATCHES):
            yield from answers

    def detect(self, given: Given) -> _Request:
        """Decode an image and find its boxes, unless they are given; an error is kept."""
        image, boxes = given
        try:
            if isinstance(image, Exception):
                raise image
            frames = image.frames if self.keep and isinstance(image, OpenedImage) else 1
            pixels = image.decode() if isinstance(image, OpenedImage) else _checked_image(image)

            channels = _with_channels(pixels, self.predictor.gray)
            if boxes is None:
                detector = self.predictor.detector
                # A cascade would convert the image to gray a second time.
                used = getattr(detector, "chosen", detector)
                is_gray = self.predictor.gray and isinstance(used, HaarCascade)
                with self.one_by_one:
                    found, scores = detect(detector, channels if is_gray else pixels)
                min_confidence = self.predictor.min_confidence
            else:
                found = _checked_boxes(boxes)
                scores, min_confidence = np.ones(len(found), np.float32), 0.0
        except Exception as error:
            found, answer = np.zeros((0, 4), np.float32), Answer([], error=error)
            return _Request(np.zeros((1, 1), np.uint8), found, found[:, 0], 0.0, answer)

        answer = Answer([], pixels if self.keep else None, frames)
        return _Request(channels, found, scores, min_confidence, answer)

    def predict(self, requests: Sequence[_Request]) -> list[Answer]:
        """Find the points of all faces of some images together."""
        predictor = self.predictor
        boxes = np.concatenate([request.boxes for request in requests])  # (F, 4)
        images = np.repeat(np.arange(len(requests)), [len(request.boxes) for request in requests])

        def crop(
            faces: np.ndarray, boxes: np.ndarray, rolls: np.ndarray, mirrored: bool
        ) -> tuple[np.ndarray, np.ndarray]:
            # One image: no copies.
            if len(requests) == 1:
                return predictor.crop(requests[0].image, boxes, rolls=rolls, mirrored=mirrored)

            of_images = []
            for image in dict.fromkeys(images[faces].tolist()):  # ascending, as the faces are
                own = images[faces] == image
                pixels = requests[image].image
                of_images.append(
                    predictor.crop(pixels, boxes[own], rolls=rolls[own], mirrored=mirrored)
                )
            crops, to_crop = zip(*of_images, strict=True)
            return np.concatenate(crops), np.concatenate(to_crop)

        refined = refine(
            boxes, crop, predictor.predict_crops, predictor.markup, predictor.refine_steps, images
        )
        points = predictor.add_label_offset(refined.points)
        confidence = refined.face_confidence

        answers = []
        for image, request in enumerate(requests):
            rows = zip(
                np.flatnonzero(images == image),
                request.boxes,
                request.scores.tolist(),
                strict=True,
            )
            faces = [
                Face(points[face], refined.confidence[face], box, score)
                for face, box, score in rows
                if confidence[face] >= request.min_confidence
            ]
            answers.append(request.answer._replace(faces=faces))
        return answers


def _open(pair: tuple[Any, ArrayLike | None]) -> Given:
    """Read the file of an image that is given by its path; an error takes its place."""
    image, boxes = pair
    if isinstance(image, (str, Path)):
        try:
            return open_image(image), boxes
        except Exception as error:
            return error, boxes
    return image, boxes


def _pixels(given: Given) -> int:
    """Return the number of pixels of an image."""
    image = given[0]
    if isinstance(image, OpenedImage):
        return image.pixels
    if isinstance(image, np.ndarray) and image.ndim >= 2:
        return int(image.shape[0] * image.shape[1])
    return 0


def _pixels_of_batch(requests: Sequence[_Request]) -> int:
    """Return the number of pixels of all images of a batch."""
    return sum(request.image.shape[0] * request.image.shape[1] for request in requests)


def _batches(requests: Iterable[_Request], size: int) -> Iterator[list[_Request]]:
    """Group images so that their faces fill a batch, or as much memory as may wait."""
    waiting: list[_Request] = []
    failure = None
    try:
        for request in requests:
            waiting.append(request)
            faces = sum(len(request.boxes) for request in waiting)
            if max(faces, len(waiting)) >= size or _pixels_of_batch(waiting) >= MAX_PIXELS:
                yield waiting
                waiting = []
    except Exception as error:
        # The images before it come first.
        failure = error
    if waiting:
        yield waiting
    if failure is not None:
        raise failure


def _one_by_one(detector: object) -> AbstractContextManager[Any]:
    """Return a lock for a detector that threads may not share, else an empty context.

    Those of fkp may be shared. Any other says so by an attribute `parallel = True`.
    """
    ours = type(detector).__module__.startswith("fkp.")
    return nullcontext() if getattr(detector, "parallel", ours) else Lock()


def _with_channels(pixels: np.ndarray, gray: bool) -> np.ndarray:
    """Convert an image to gray (H, W) or RGB (H, W, 3), as the network takes it."""
    if gray:
        return to_gray(pixels)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


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
