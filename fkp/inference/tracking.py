"""Faces from frame to frame of a film: who is who, and points that stand still when the face does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fkp.errors import FkpError
from fkp.face import Face
from fkp.geometry import centre_and_side, face_box, overlap
from fkp.inference.predictor import BOX_SIDES
from fkp.markup import IBUG68, Markup


class OneEuro:
    """The 1 € filter (Casiez, Roussel and Vogel, CHI 2012): a low-pass whose cutoff rises with speed, so that what
    stands still does not tremble and what moves does not lag.

    Args:
        cutoff: of what stands still, Hz.
        beta: by how many Hz the cutoff rises for a speed of one unit a second.
        speed_cutoff: of the low-pass of the speed itself, Hz.

    Raises:
        FkpError: a cutoff that is not above 0, or a negative beta.
    """

    def __init__(self, cutoff: float, beta: float, speed_cutoff: float):
        for name, value in {"cutoff": cutoff, "speed_cutoff": speed_cutoff}.items():
            if not 0 < value < math.inf:
                raise FkpError(f"{name}={value}: must be more than 0 (Hz)")
        if not 0 <= beta < math.inf:
            raise FkpError(f"beta={beta}: must be 0 or more")
        self.cutoff, self.beta, self.speed_cutoff = cutoff, beta, speed_cutoff
        self.values = self.speed = np.zeros(0)
        self.seconds: float | None = None

    def __call__(self, values: np.ndarray, seconds: float, unit: float = 1.0) -> np.ndarray:
        """The next values, smoothed.

        Args:
            values: (..., D) places.
            seconds: when; later than before.
            unit: what the speed is measured in.

        Returns:
            (..., D).
        """
        values = np.asarray(values, float)
        if self.seconds is None:
            self.values, self.speed = values, np.zeros_like(values)
        elif seconds > self.seconds:
            passed = seconds - self.seconds
            speed = (values - self.values) / passed
            self.speed = self.speed + _share(self.speed_cutoff, passed) * (speed - self.speed)
            fast = np.linalg.norm(self.speed, axis=-1, keepdims=True) / unit
            self.values = self.values + _share(self.cutoff + self.beta * fast, passed) * (
                values - self.values
            )
        self.seconds = seconds
        return self.values


def _share(cutoff: np.ndarray | float, passed: float) -> np.ndarray | float:
    """What a low-pass takes of a new value, after this time, seconds."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * passed))


@dataclass(eq=False)
class _Track:
    number: int
    box: np.ndarray
    seen: float
    smooth: OneEuro


class Tracker:
    """Numbers faces through the frames of a film, and smooths their points.

    A face is the one of the frames before whose box it overlaps most; of two, the better match goes first.

    Args:
        smooth: smooth the points.
        cutoff, beta, speed_cutoff: of `OneEuro`, a face's size (the square root of width x height of its points) being
            the unit; `benchmarks/robustness/video.py` measures what they do.
        overlapping: least overlap (intersection over union) of the boxes of one face in two frames.
        patience: seconds for which a face may be lost and keep its number.
        markup: the meaning of the points.

    Raises:
        FkpError: a value out of its range.
    """

    def __init__(
        self,
        smooth: bool = True,
        cutoff: float = 1.0,
        beta: float = 20.0,
        speed_cutoff: float = 1.0,
        overlapping: float = 0.3,
        patience: float = 0.5,
        markup: Markup = IBUG68,
    ):
        OneEuro(cutoff, beta, speed_cutoff)  # refuses what it cannot do
        if not 0 <= overlapping <= 1:
            raise FkpError(f"overlapping={overlapping}: must be from 0 to 1")
        if not patience >= 0:
            raise FkpError(f"patience={patience}: must be 0 seconds or more")
        self.smooth, self.filter = smooth, (cutoff, beta, speed_cutoff)
        self.overlapping, self.patience, self.markup = overlapping, patience, markup
        self.tracks: list[_Track] = []
        self.count = 0  # of faces so far

    def __call__(self, faces: list[Face], seconds: float) -> list[Face]:
        """The faces of the next frame, each with its `track`, and with smoothed points.

        Args:
            faces: of a Predictor.
            seconds: when the frame was taken; later than the one before.
        """
        self.tracks = [track for track in self.tracks if seconds - track.seen <= self.patience]
        boxes = [self._box(face) for face in faces]
        pairs = [
            (overlap(track.box, box), i, track)
            for i, box in enumerate(boxes)
            for track in self.tracks
        ]
        known: dict[int, _Track] = {}
        for share, i, track in sorted(pairs, key=lambda pair: -pair[0]):
            if share >= self.overlapping and i not in known and track not in known.values():
                known[i] = track
        followed = []
        for i, (face, box) in enumerate(zip(faces, boxes, strict=True)):
            if i not in known:
                self.count += 1
                known[i] = _Track(self.count, box, seconds, OneEuro(*self.filter))
                self.tracks.append(known[i])
            track, points = known[i], face.points
            track.box, track.seen = box, seconds
            if self.smooth:
                size = float(np.sqrt(np.ptp(points, axis=0).prod()))
                if self.markup.frame is not None:  # the points may lie on one line
                    size = float(centre_and_side(box)[2]) / BOX_SIDES
                points = track.smooth(points, seconds, size).astype(np.float32)
            followed.append(replace(face, points=points, track=track.number))
        return followed

    def _box(self, face: Face) -> np.ndarray:
        """The box round its points; its own, where they do not tell one."""
        box = face_box(face.points, self.markup)
        return box if np.isfinite(box).all() else face.box
