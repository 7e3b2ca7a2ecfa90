"""Track faces through the frames of a video: number them, and smooth their points."""

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
    """Smooth values with the 1 € filter: a low-pass filter whose cutoff rises with speed.

    Points that stand still do not jitter, and points that move do not lag.

    Source: Casiez, Roussel and Vogel, "1 € Filter" (CHI 2012).

    Args:
        cutoff: of values that stand still, Hz.
        beta: by how many Hz the cutoff rises for a speed of one unit a second.
        speed_cutoff: of the low-pass filter of the speed itself, Hz.

    Raises:
        FkpError: a cutoff is not above 0, or `beta` is negative.
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
        """Smooth the next values.

        Args:
            values: (..., D) points.
            seconds: their time; the state does not change unless it is later than the last one.
            unit: of length, in which speed is measured.

        Returns:
            (..., D).
        """
        values = np.asarray(values, float)
        if self.seconds is None:
            self.values, self.speed = values, np.zeros_like(values)

        elif seconds > self.seconds:
            elapsed = seconds - self.seconds

            # Smooth the speed.
            speed = (values - self.values) / elapsed  # (..., D)
            self.speed = self.speed + _gain(self.speed_cutoff, elapsed) * (speed - self.speed)

            # Smooth the values, with a cutoff that depends on the speed.
            norm = np.linalg.norm(self.speed, axis=-1, keepdims=True) / unit  # (..., 1)
            gain = _gain(self.cutoff + self.beta * norm, elapsed)
            self.values = self.values + gain * (values - self.values)

        self.seconds = seconds
        return self.values


def _gain(cutoff: np.ndarray | float, elapsed: float) -> np.ndarray | float:
    """Return the weight of a new value in a low-pass filter, `elapsed` seconds after the last."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * elapsed))


@dataclass(eq=False)
class _Track:
    """A face that is followed.

    Args:
        number: of the face, from 1.
        box: (4,) where it was last.
        seen: when that was, seconds.
        smooth: filter of its points.
    """

    number: int
    box: np.ndarray
    seen: float
    smooth: OneEuro


class Tracker:
    """Number the faces of a video's frames, and smooth their points.

    A face continues the track whose last box it overlaps most; pairs with the largest overlap are
    matched first.

    Args:
        smooth: smooth the points.
        cutoff, beta, speed_cutoff: of `OneEuro`; the unit of length is the face's size, the square
            root of the area of its points' bounding box. `benchmarks/robustness/video.py` measures
            their effect.
        overlapping: least intersection over union of the boxes of one face in two frames.
        patience: seconds for which a face may be lost and keep its number.
        markup: of the points.

    Raises:
        FkpError: a value is out of its range.
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
        # Checks the three values before the first frame.
        OneEuro(cutoff, beta, speed_cutoff)
        if not 0 <= overlapping <= 1:
            raise FkpError(f"overlapping={overlapping}: must be from 0 to 1")
        if not patience >= 0:
            raise FkpError(f"patience={patience}: must be 0 seconds or more")
        self.smooth, self.filter = smooth, (cutoff, beta, speed_cutoff)
        self.overlapping, self.patience, self.markup = overlapping, patience, markup
        self.tracks: list[_Track] = []
        self.count = 0

    def __call__(self, faces: list[Face], seconds: float) -> list[Face]:
        """Number and smooth the faces of the next frame.

        Args:
            faces: from a Predictor.
            seconds: time of the frame; later than the one before.

        Returns:
            The same faces with their `track` and smoothed points.
        """
        self.tracks = [track for track in self.tracks if seconds - track.seen <= self.patience]
        boxes = [self._box(face) for face in faces]
        matches = self._match(boxes)

        followed = []
        for i, (face, box) in enumerate(zip(faces, boxes, strict=True)):
            track = matches[i] if i in matches else self._start(box, seconds)
            track.box, track.seen = box, seconds
            points = self._smoothed(track, face.points, seconds) if self.smooth else face.points
            followed.append(replace(face, points=points, track=track.number))
        return followed

    def _match(self, boxes: list[np.ndarray]) -> dict[int, _Track]:
        """Match boxes (4,) with tracks, the largest overlap first; returns index -> track."""
        pairs = [
            (overlap(track.box, box), i, track)
            for i, box in enumerate(boxes)
            for track in self.tracks
        ]
        matches: dict[int, _Track] = {}
        for iou, i, track in sorted(pairs, key=lambda pair: -pair[0]):
            is_free = i not in matches and track not in matches.values()
            if iou >= self.overlapping and is_free:
                matches[i] = track
        return matches

    def _start(self, box: np.ndarray, seconds: float) -> _Track:
        """Start the track of a new face."""
        self.count += 1
        track = _Track(self.count, box, seconds, OneEuro(*self.filter))
        self.tracks.append(track)
        return track

    def _smoothed(self, track: _Track, points: np.ndarray, seconds: float) -> np.ndarray:
        """Smooth points (K, 2); returns float32."""
        size = float(np.sqrt(np.ptp(points, axis=0).prod()))
        # The points of a markup with a measured frame may lie on one line.
        if self.markup.frame is not None:
            size = float(centre_and_side(track.box)[2]) / BOX_SIDES
        return track.smooth(points, seconds, size).astype(np.float32)

    def _box(self, face: Face) -> np.ndarray:
        """Return the box around a face's points, or its own where they do not define one."""
        box = face_box(face.points, self.markup)
        return box if np.isfinite(box).all() else face.box
