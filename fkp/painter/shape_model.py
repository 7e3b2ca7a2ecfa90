"""Sample the 68 points of faces from a linear model of real labels.

`shape68.json` is computed by `benchmarks/accuracy/shape_model.py`. Its unit is the root mean square
radius of a face's points (the outer eye corners are about 1.5 apart); x right, y down, the mean of
the points at the origin, without roll.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

INNER_UPPER_LIP, INNER_LOWER_LIP = [61, 62, 63], [67, 66, 65]

# The first point of each eye: corner, two upper, corner, two lower.
EYES = (36, 42)


class ShapeModel(NamedTuple):
    """A linear model of shapes, whose first two modes are the pose.

    Args:
        mean: (136,).
        modes: (K, 136).
        deviations: (K,), standard deviations of the modes.
        bends: (K - 2, 6), the mean of each other mode as a polynomial of the pose.
    """

    mean: np.ndarray
    modes: np.ndarray
    deviations: np.ndarray
    bends: np.ndarray

    @classmethod
    @cache
    def load(cls) -> "ShapeModel":
        content = json.loads(Path(__file__).with_name("shape68.json").read_text(encoding="utf-8"))
        return cls(*(np.array(content[name]) for name in cls._fields))

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Sample the points of a face, (68, 2), in the model's units."""
        yaw, pitch = sample_pose(rng)
        terms = np.array([1.0, yaw**2, pitch**2, yaw * pitch, yaw**3, yaw**2 * pitch])

        # The other modes vary about a mean that depends on the pose.
        rest = np.clip(rng.normal(0, 1.15, len(self.bends)), -2.6, 2.6)
        pose = [yaw, pitch] * self.deviations[:2]
        coefficients = np.concatenate([pose, self.bends @ terms + rest * self.deviations[2:]])

        points = (self.mean + coefficients @ self.modes).reshape(68, 2)
        set_lids(points, rng)
        part_lips(points, rng)
        return points


def sample_pose(rng: np.random.Generator) -> tuple[float, float]:
    """Sample yaw and pitch, in standard deviations.

    Yaw in video is almost uniform over a range.
    """
    yaw = rng.uniform(-2.3, 2.3) if rng.random() < 0.6 else rng.normal(0, 0.7)
    return float(np.clip(yaw, -2.4, 2.4)), float(np.clip(rng.normal(0, 1.1), -2.6, 2.6))


def set_lids(points: np.ndarray, rng: np.random.Generator) -> None:
    """Close or widen the eyes, in place: the real labels are too coarse to show lids move."""
    kind = rng.random()
    opening = rng.uniform(0.1, 0.5) if kind < 0.15 else rng.uniform(0.6, 1.35)
    for first in EYES:
        corners = points[[first, first + 3]]
        axis = (corners[1] - corners[0]) / max(np.linalg.norm(corners[1] - corners[0]), 1e-6)
        down = np.array([-axis[1], axis[0]])
        lids = points[[first + 1, first + 2, first + 4, first + 5]] - corners[0]
        height = lids @ down
        # The upper lid closes an eye; the lower one hardly moves.
        wanted = np.where(height < 0, height * opening, height * (0.6 + 0.4 * opening))
        points[[first + 1, first + 2, first + 4, first + 5]] += (wanted - height)[:, None] * down


def part_lips(points: np.ndarray, rng: np.random.Generator) -> None:
    """Keep the inner lips from crossing, and sometimes close them, in place."""
    gap = points[INNER_LOWER_LIP] - points[INNER_UPPER_LIP]
    closing = rng.uniform(0.4, 1.0) if rng.random() < 0.25 else 0.0
    wanted = np.maximum(gap[:, 1], 0.012) * (1 - closing) + closing * 0.012
    shift = (wanted - gap[:, 1]) / 2
    points[INNER_LOWER_LIP, 1] += shift
    points[INNER_UPPER_LIP, 1] -= shift
