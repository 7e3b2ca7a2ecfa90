"""Model the solid head behind 68 points: its camera, its relief, and the light on it.

The canonical frame of a face is that of the shape model: u right, v down, in units of the model's
mean, and z towards the viewer, with the tip of the nose near 0. The relief is a height field
z(u, v) of a generic head with randomly weighted bumps (nose, eye sockets, lips, …). The light is
computed there, and mapped to the image by a thin-plate spline through the 68 points.

Source: Bookstein, "Principal Warps: Thin-Plate Splines and the Decomposition of Deformations"
(1989).
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from fkp.painter.brushes import noise
from fkp.painter.shape_model import ShapeModel

# Cells per unit of the canonical frame: about the resolution of the painted faces.
GRID = 30.0
LEFT, TOP, RIGHT, BOTTOM = -1.9, -2.9, 1.9, 2.1
COLUMNS, ROWS = round((RIGHT - LEFT) * GRID), round((BOTTOM - TOP) * GRID)

# By v: height of the front along the middle line, half-width of the head, height of its sides.
PROFILE_V = [-2.9, -2.5, -2.1, -1.7, -1.2, -0.7, 0.0, 0.5, 0.9, 1.25, 1.44, 1.6, 2.1]
PROFILE_Z = [-2.6, -1.5, -0.95, -0.66, -0.45, -0.42, -0.40, -0.37, -0.36, -0.34, -0.36, -0.80, -1.3]
SIDE_U = [0.4, 0.85, 1.15, 1.30, 1.38, 1.38, 1.29, 1.19, 0.99, 0.66, 0.58, 0.75, 0.9]
SIDE_Z = [-2.7, -2.2, -2.0, -1.9, -1.8, -1.75, -1.65, -1.45, -1.1, -0.65, -0.85, -1.6, -1.9]

# Bumps: u, v, half-widths in u and v, height. All except those at u = 0 are mirrored pairs.
BUMPS = {
    "nose ridge": (0.0, -0.38, 0.125, 0.26, 0.19),
    "nose slope": (0.0, -0.15, 0.19, 0.17, 0.12),
    "nose tip": (0.0, 0.0, 0.13, 0.085, 0.09),
    "nose wing": (0.20, 0.01, 0.085, 0.085, 0.07),
    "under nose": (0.0, 0.15, 0.20, 0.06, -0.02),
    "socket": (0.50, -0.70, 0.26, 0.15, -0.10),
    "inner socket": (0.25, -0.74, 0.08, 0.13, -0.13),
    "eyeball": (0.56, -0.72, 0.17, 0.11, 0.07),
    "brow ridge": (0.50, -0.95, 0.34, 0.10, 0.05),
    "cheekbone": (0.80, -0.22, 0.24, 0.20, 0.09),
    "cheek": (0.62, 0.20, 0.16, 0.16, 0.05),
    "hollow": (0.92, 0.40, 0.18, 0.22, -0.07),
    "fold": (0.48, 0.17, 0.07, 0.17, -0.05),
    "mouth corner": (0.50, 0.63, 0.08, 0.09, -0.07),
    "philtrum": (0.0, 0.29, 0.04, 0.08, -0.02),
    "upper lip": (0.0, 0.43, 0.26, 0.055, 0.07),
    "mouth line": (0.0, 0.565, 0.34, 0.035, -0.03),
    "lower lip": (0.0, 0.70, 0.24, 0.075, 0.06),
    "under lip": (0.0, 0.93, 0.26, 0.07, -0.045),
    "chin": (0.0, 1.12, 0.24, 0.14, 0.11),
    "temple": (1.05, -1.15, 0.18, 0.30, -0.08),
    "eye bag": (0.53, -0.50, 0.18, 0.035, 0.03),
    "lid crease": (0.54, -0.80, 0.20, 0.03, -0.012),
}

# Distances at which something may block the light, canonical units.
SHADOW_REACH = (0.07, 0.14, 0.22, 0.32, 0.46, 0.62)

# Canonical points of the upper head that fix the spline, with the 68; z is read from the relief.
CROWN = [
    *((0, -2.35), (0, -1.65), (-0.5, -2.2), (0.5, -2.2), (-0.9, -1.8), (0.9, -1.8)),
    *((-0.5, -1.4), (0.5, -1.4), (-1.1, -1.3), (1.1, -1.3)),
]

JAW_Z = [-1.75, -1.68, -1.58, -1.42, -1.16, -0.88, -0.66, -0.50, -0.42]


class Relief(NamedTuple):
    """Canonical maps (ROWS, COLUMNS) float32: the plain head, and one layer per bump."""

    plain: np.ndarray
    bumps: np.ndarray

    @classmethod
    @cache
    def load(cls) -> "Relief":
        u, v = canonical_grid()
        middle, side, edge = (
            np.interp(v[:, :1], PROFILE_V, values) for values in (PROFILE_Z, SIDE_U, SIDE_Z)
        )
        # Each horizontal section is an ellipse; outside of it, the surface falls steeply.
        inside = 1 - (u / side) ** 2
        plain = (
            edge
            + (middle - edge) * np.sqrt(np.maximum(inside, 0.03))
            + 1.5 * np.minimum(inside - 0.03, 0)
        )
        plain = cv2.GaussianBlur(plain.astype(np.float32), (0, 0), 2.0)
        bumps = [bump(u, v, *values) for values in BUMPS.values()]
        return cls(plain, np.array(bumps, dtype=np.float32))


def canonical_grid() -> tuple[np.ndarray, np.ndarray]:
    """Return u and v of the centre of each canonical cell, (ROWS, COLUMNS) each."""
    u = LEFT + (np.arange(COLUMNS) + 0.5) / GRID
    v = TOP + (np.arange(ROWS) + 0.5) / GRID
    return np.broadcast_to(u, (ROWS, COLUMNS)), np.broadcast_to(v[:, None], (ROWS, COLUMNS))


def bump(
    u: np.ndarray, v: np.ndarray, at_u: float, at_v: float, wide: float, high: float, height: float
) -> np.ndarray:
    """Return a Gaussian bump, and its mirror image unless it lies in the middle."""
    hill = np.zeros_like(u)
    for side in {at_u, -at_u}:
        hill += height * np.exp(
            -((u - side) ** 2) / (2 * wide**2) - (v - at_v) ** 2 / (2 * high**2)
        )
    return hill


@cache
def resting_points() -> np.ndarray:
    """Return the 68 points of the mean face and those of the crown, (78, 3)."""
    relief = Relief.load()
    flat = np.concatenate([ShapeModel.load().mean.reshape(68, 2), CROWN])
    cells = np.floor((flat - [LEFT, TOP]) * GRID).astype(int)
    z = (relief.plain + relief.bumps.sum(axis=0))[cells[:, 1], cells[:, 0]]
    z[:17] = [*JAW_Z, *JAW_Z[-2::-1]]
    return np.column_stack([flat, z])


@cache
def camera_solver() -> np.ndarray:
    """Return the matrix (4, 68) from points (68, 2) to the affine camera (4, 2)."""
    return np.linalg.pinv(np.column_stack([resting_points()[:68], np.ones(68)]))


class Head:
    """A head in an image: its points, its affine camera and its rotation.

    Args:
        points: (68, 2), IMAGE pixels.
    """

    def __init__(self, points: np.ndarray) -> None:
        self.points = points
        self.camera = camera_solver() @ points
        left, scales, right = np.linalg.svd(self.camera[:3].T, full_matrices=False)
        self.scale = float(scales.mean())
        across, down = left @ right
        # Rows: the directions of the image's x and y and of the viewer, in the canonical frame.
        self.rotation = np.stack([across, down, np.cross(across, down)])

    def project(self, solid: ArrayLike) -> np.ndarray:
        """Project canonical points (N, 3) to IMAGE pixels (N, 2)."""
        return np.asarray(solid) @ self.camera[:3] + self.camera[3]

    def canonical_map(
        self, left: int, top: int, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the canonical cell of each pixel of a rectangle of the image: two float32 maps."""
        crown = resting_points()[68:]
        centres = np.concatenate([self.points, self.project(crown)]) / self.scale
        targets = resting_points()[:, :2]
        weights = solve_spline(centres, targets)

        # The spline on a coarse grid, interpolated between its nodes.
        step = 7.0
        columns, rows = int(np.ceil(width / step)) + 1, int(np.ceil(height / step)) + 1
        x, y = np.meshgrid(left + step * np.arange(columns), top + step * np.arange(rows))
        places = np.column_stack([x.ravel(), y.ravel()]) / self.scale
        cells = (spline_terms(places, centres) @ weights - [LEFT, TOP]) * GRID - 0.5
        coarse = cells.reshape(rows, columns, 2).astype(np.float32)
        # Pixel i lies at i / step of the coarse grid, which this affine states exactly.
        grow = np.array([[1 / step, 0, 0], [0, 1 / step, 0]])
        fine = cv2.warpAffine(
            coarse,
            grow,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return fine[..., 0], fine[..., 1]


def spline_terms(places: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Compute thin-plate kernels r² log r² and the affine terms, (places, centres + 3)."""
    squares = ((places[:, None] - centres) ** 2).sum(axis=-1)
    kernels = squares * np.log(squares + 1e-9)
    return np.concatenate([kernels, np.ones((len(places), 1)), places], axis=1)


def solve_spline(centres: np.ndarray, targets: np.ndarray, stiffness: float = 0.02) -> np.ndarray:
    """Solve for the weights (N + 3, 2) of a smoothing thin-plate spline.

    It maps centres (N, 2) to targets (N, 2).
    """
    number = len(centres)
    terms = spline_terms(centres, centres)
    system = np.zeros((number + 3, number + 3))
    system[:number] = terms
    system[:number, :number] += stiffness * np.eye(number)
    system[number:, :number] = terms[:, number:].T
    return np.linalg.solve(system, np.concatenate([targets, np.zeros((3, 2))]))


class Light(NamedTuple):
    """Canonical maps (ROWS, COLUMNS) float32 of the light that reaches the skin."""

    ambient: np.ndarray
    key: np.ndarray
    gloss: np.ndarray


def light_head(
    head: Head, towards_light: np.ndarray, softness: float, rng: np.random.Generator
) -> Light:
    """Compute the light on a head with bumps of random heights.

    Args:
        head: is lit.
        towards_light: unit vector (3,): right and down in the image, and towards the viewer.
        softness: 0 for a bare bulb, 1 for an overcast sky.
        rng: is drawn from.
    """
    relief = Relief.load()
    weights = rng.uniform(0.4, 1.6, len(BUMPS)).astype(np.float32)
    height = relief.plain + np.tensordot(weights, relief.bumps, axes=1)

    # Irregularities beyond the list of bumps.
    for cell, depth in ((0.45, 0.02), (0.18, 0.006)):
        height += rng.uniform(0, depth) * noise(rng, (ROWS, COLUMNS), cell * GRID)

    # Normals.
    slope_u = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=GRID / 8)
    slope_v = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=GRID / 8)
    length = np.sqrt(slope_u**2 + slope_v**2 + 1)

    # Main light.
    ray = head.rotation.T @ towards_light
    facing = (ray[2] - ray[0] * slope_u - ray[1] * slope_v) / length
    wrap = 0.35 * softness
    key = np.clip((facing + wrap) / (1 + wrap), 0, None) * (
        1 - (1 - 0.6 * softness) * cast_shadow(height, ray)
    )

    # Ambient light.
    sky = head.rotation.T @ np.array([0.0, -0.8, 0.6])
    openness = np.clip(
        0.75 + 0.25 * (sky[2] - sky[0] * slope_u - sky[1] * slope_v) / length, 0, None
    )
    hollow = np.clip(cv2.GaussianBlur(height, (0, 0), 5) - height, -0.03, 0.12)
    ambient = openness * (1 - 3.0 * hollow)

    # Gloss, by the half vector.
    half = ray + head.rotation.T @ np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half)
    gloss = np.clip((half[2] - half[0] * slope_u - half[1] * slope_v) / length, 0, 1) ** 16
    return Light(ambient, key, gloss)


def cast_shadow(height: np.ndarray, ray: np.ndarray) -> np.ndarray:
    """Compute the fraction of the light along `ray` that the relief blocks, for each cell."""
    sideways = max(float(np.hypot(ray[0], ray[1])), 1e-3)
    rise = max(float(ray[2]), 0.05) / sideways
    above = np.zeros_like(height)
    for reach in SHADOW_REACH:
        x, y = GRID * reach * ray[:2] / sideways
        shift = np.array([[1, 0, x], [0, 1, y]])
        ahead = cv2.warpAffine(
            height,
            shift,
            (COLUMNS, ROWS),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        np.maximum(above, ahead - height - reach * rise, out=above)
    return cv2.GaussianBlur(np.clip(above / 0.08, 0, 1), (0, 0), 1.2)
