"""Refine points in steps: each crops the face around the points found so far, and predicts again.

Points scatter less than the boxes of detectors do, so the second crop is a better one than the
first. Every second step sees the face mirrored (flip test-time augmentation), and the answer is a
weighted mean of all steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fkp.geometry import centre_and_side, reframed, strayed
from fkp.markup import Markup

# Two steps agree if their points lie within this distance on average, in units of the face's size:
# sqrt(w * h) of the points' extent. With a measured frame, whose points may lie on one line, the
# size is the side of the box instead, divided by its usual ratio to the extent.
AGREEING, BOX_SIDES = 0.04, 1.18

# Faces with a mean confidence below CLEAR are also predicted rotated by each of ROTATIONS, degrees
# clockwise, and a rotation is taken if it gains GAIN. Of 450 upright validation and synthetic
# faces 98 % were above; upside down, none was.
CLEAR, GAIN, ROTATIONS = 0.5, 0.2, (180.0, 90.0, -90.0)

Prediction = tuple[np.ndarray, np.ndarray]  # points (N, K, 2), IMAGE pixels; confidence (N, K)


class Crop(Protocol):
    """Crop N faces for the network."""

    def __call__(
        self, faces: np.ndarray, boxes: np.ndarray, rolls: np.ndarray, mirrored: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Crop faces with these numbers (N,), boxes (N, 4) and rolls (N,), degrees clockwise.

        Returns:
            crops (N, h, w[, 3]) uint8, and affines (N, 2, 3), IMAGE -> CROP.
        """
        ...


class Predict(Protocol):
    """Predict points and confidence in N crops, with the affines that led to them."""

    def __call__(self, crops: np.ndarray, to_crop: np.ndarray, mirrored: bool) -> Prediction: ...


@dataclass
class Refined:
    """The state of F faces between two steps, and at last the result.

    Attributes:
        points: (F, K, 2), IMAGE pixels.
        confidence: (F, K), of the last accepted step.
        boxes: (F, 4), around which the next step crops.
        rolls: (F,) degrees clockwise, of these boxes.
        active: (F,) whether further steps are accepted.
        first_confidence: (F,) mean confidence of the first step.
    """

    points: np.ndarray
    confidence: np.ndarray
    boxes: np.ndarray
    rolls: np.ndarray
    active: np.ndarray
    first_confidence: np.ndarray

    @classmethod
    def start(cls, boxes: np.ndarray, points: int) -> Refined:
        """Begin with the boxes (F, 4) of upright faces that have so many points."""
        count = len(boxes)
        return cls(
            points=np.zeros((count, points, 2), np.float32),
            confidence=np.zeros((count, points), np.float32),
            boxes=boxes,
            rolls=np.zeros(count),
            active=np.ones(count, bool),
            first_confidence=np.zeros(count),
        )

    @property
    def face_confidence(self) -> np.ndarray:
        """(F,) confidence that this is a face: the lower of the first and the last step's mean.

        It is 1 where the last step is clear: the given box may have been a bad one.
        """
        last = self.confidence.mean(1)
        return np.where(last >= CLEAR, 1, np.minimum(self.first_confidence, last))


def refine(
    boxes: np.ndarray, crop: Crop, predict: Predict, markup: Markup, steps: int, images: np.ndarray
) -> Refined:
    """Predict the points of F faces in several steps.

    Args:
        boxes: (F, 4), IMAGE pixels.
        crop: crops faces for the network.
        predict: runs the network.
        markup: the meaning of the points.
        steps: how many; 1 predicts once.
        images: (F,) number of the image that each face lies in.
    """
    state = Refined.start(boxes, len(markup.points))
    faces = np.arange(len(boxes))

    for step in range(steps if len(boxes) else 0):
        mirrored = step % 2 == 1 and markup.flips

        # Crop: a square around each box, in which the face is upright.
        crops, to_crop = crop(faces, state.boxes, state.rolls, mirrored)

        # Predict: points (F, K, 2) and confidence (F, K), independently of the earlier steps.
        points, confidence = predict(crops, to_crop, mirrored)
        if step == 0:
            points, confidence, state.rolls = _try_rotations(
                points, confidence, boxes, crop, predict, images
            )
            state.first_confidence = confidence.mean(1)

        # Combine: the weighted mean of this step and those before.
        size = _face_size(points, state.boxes, markup)
        points = _combine(state.points, points, step, size)

        # Reframe: the box and the roll of the combined points.
        reframed_boxes, reframed_rolls = reframed(points, state.boxes, state.rolls, markup)

        # Accept: unless the box has strayed from the given one.
        good = ~strayed(reframed_boxes, boxes)
        _accept(state, step, good, points, confidence, reframed_boxes, reframed_rolls)

    return state


def _combine(mean: np.ndarray, points: np.ndarray, step: int, size: np.ndarray) -> np.ndarray:
    """Average the steps with the weights 1, 2, 3, …

    Where the mean so far is far from this step's points, it is dropped: the first crop was bad.

    Args:
        mean: (F, K, 2) of the steps before.
        points: (F, K, 2) of this step.
        step: its number, from 0.
        size: (F,) of the faces, pixels.
    """
    distance = np.linalg.norm(mean - points, axis=2).mean(1)  # (F,)
    weight = np.where(distance < AGREEING * size, 2 / (step + 2), 1.0)
    return mean + weight[:, None, None].astype(np.float32) * (points - mean)


def _accept(
    state: Refined,
    step: int,
    good: np.ndarray,
    points: np.ndarray,
    confidence: np.ndarray,
    boxes: np.ndarray,
    rolls: np.ndarray,
) -> None:
    """Take the results of a step where they are good (F,), and stop a face at its first bad one.

    The first step is always taken: there is nothing before it.
    """
    accepted = state.active & good if step else state.active
    state.points = np.where(accepted[:, None, None], points, state.points)
    state.confidence = np.where(accepted[:, None], confidence, state.confidence)

    state.active = state.active & good
    state.boxes = np.where(state.active[:, None], boxes, state.boxes)
    state.rolls = np.where(state.active, rolls, state.rolls)


def _face_size(points: np.ndarray, boxes: np.ndarray, markup: Markup) -> np.ndarray:
    """Return the unit of `AGREEING`, (F,) pixels, for points (F, K, 2) found in boxes (F, 4)."""
    if markup.frame is None:
        return np.sqrt(np.ptp(points, axis=1).prod(1))
    return centre_and_side(boxes)[2] / BOX_SIDES


def _try_rotations(
    points: np.ndarray,
    confidence: np.ndarray,
    boxes: np.ndarray,
    crop: Crop,
    predict: Predict,
    images: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predict unclear faces in rotated crops too, and keep the rotation that is clearest.

    Args:
        points, confidence: (F, K, 2) and (F, K), of the upright crops.
        boxes: (F, 4), IMAGE pixels.
        crop, predict, images: as of `refine`.

    Returns:
        points, confidence, and the rolls of the faces (F,), degrees clockwise.
    """
    points, confidence, rolls = points.copy(), confidence.copy(), np.zeros(len(boxes))
    upright = confidence.mean(1)
    unclear = np.flatnonzero(upright < CLEAR)

    # Image by image: the crops of one image are one batch.
    for image in dict.fromkeys(images[unclear].tolist()):
        own = unclear[images[unclear] == image]
        faces, angles = np.tile(own, len(ROTATIONS)), np.repeat(ROTATIONS, len(own))
        found, sure = predict(*crop(faces, boxes[faces], angles, False), False)

        # In ascending order, so that the clearest rotation of a face is written last.
        for row in np.argsort(sure.mean(1)):
            face = faces[row]
            if sure[row].mean() >= upright[face] + GAIN:
                points[face], confidence[face], rolls[face] = found[row], sure[row], angles[row]

    return points, confidence, rolls
