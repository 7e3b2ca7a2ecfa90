"""Compute `fkp/painter/shape68.json`, the shapes of the synthetic faces, from real labels.

    python benchmarks/accuracy/shape_model.py path/to/youtube_faces

The labels are those that github.com/udacity/P1_Facial_Keypoints publishes under the MIT licence, of
the people in the training split of the identity protocol (only the points are used, not the
photos). Each face counts twice, as labelled and mirrored: the model is exactly mirror symmetric,
without the constant sideways offset of the labels.

The shapes are aligned by a generalised Procrustes analysis; their principal components follow. A
head that rotates moves its points on arcs, not on lines, so the other components depend on the
first two (yaw and pitch): `bends` holds their mean at each pose.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from fkp.data.youtube_faces import YoutubeFaces
from fkp.markup import IBUG68

# Beyond these components, most of what is left is the labels' coarse grid (5.5 % of the eye
# distance).
MODES = 24

MODEL_FILE = Path(__file__).parents[2] / "fkp" / "painter" / "shape68.json"
ABOUT = "68-point face shapes: see benchmarks/accuracy/shape_model.py, which computes this file"


def read_shapes(root: str) -> np.ndarray:
    """Read the labels of the training split as complex numbers x + iy, (F, 68)."""
    points = YoutubeFaces(root).read().split("identity")["train"].points
    return points[..., 0] + 1j * points[..., 1]


def align(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Align shapes (F, 68) by a generalised Procrustes analysis.

    Returns:
        The aligned shapes (F, 68) and their mean (68,), of root mean square radius 1.
    """
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    mean = shapes.mean(axis=0)
    for _ in range(20):
        mean = mean / np.sqrt(np.mean(np.abs(mean) ** 2))
        fit = (shapes.conj() @ mean) / np.sum(np.abs(shapes) ** 2, axis=1)
        shapes = shapes * fit[:, None]
        mean = shapes.mean(axis=0)
    return shapes, mean


def pose_terms(pose: np.ndarray) -> np.ndarray:
    """Compute the terms (F, 6) of the polynomial in the two pose coefficients (F, 2)."""
    yaw, pitch = pose.T
    return np.stack(
        [np.ones_like(yaw), yaw**2, pitch**2, yaw * pitch, yaw**3, yaw**2 * pitch], axis=1
    )


def flat(shapes: np.ndarray) -> np.ndarray:
    """Convert complex (…, 68) to real (…, 136), x and y alternating."""
    return np.stack([shapes.real, shapes.imag], axis=-1).reshape(*shapes.shape[:-1], 136)


def main() -> None:
    """Read the labels, compute and write the model, and print how much variance it keeps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--to", type=Path, default=MODEL_FILE)
    options = parser.parse_args()

    # Shapes and their mirror images, relative to the mean.
    shapes = read_shapes(options.root)  # (F, 68)
    shapes, mean = align(np.concatenate([shapes, -shapes[:, IBUG68.flip_indices].conj()]))
    centred = flat(shapes - mean)  # (2F, 136)

    # Drop the farthest shapes, which are labelling accidents.
    distance = np.linalg.norm(centred, axis=1)
    centred = centred[distance <= np.quantile(distance, 0.995)]

    # Principal components. The signs of an SVD are arbitrary; those of the file must not be.
    _, singular, modes = np.linalg.svd(centred, full_matrices=False)
    modes = modes[:MODES] * np.sign(modes[:MODES, :1])
    coefficients = centred @ modes.T
    deviations = coefficients.std(axis=0)

    # The mean of the other components at each pose.
    terms = pose_terms(coefficients[:, :2] / deviations[:2])
    bends = np.linalg.lstsq(terms, coefficients[:, 2:], rcond=None)[0]
    rest = coefficients[:, 2:] - terms @ bends

    # Half of the central 68 %: a standard deviation that the remaining accidents do not inflate.
    deviations[2:] = (np.quantile(rest, 0.84, axis=0) - np.quantile(rest, 0.16, axis=0)) / 2

    model = {
        "about": ABOUT,
        "mean": flat(mean).round(4).tolist(),
        "modes": modes.round(4).tolist(),
        "deviations": deviations.round(4).tolist(),
        "bends": bends.T.round(4).tolist(),
    }
    options.to.write_text(json.dumps(model) + "\n", encoding="utf-8")

    kept = np.cumsum(singular**2) / np.sum(singular**2)
    metrics = {
        "faces": len(shapes) // 2,
        "modes": MODES,
        "variance_kept_percent": round(100 * float(kept[MODES - 1]), 2),
        "first_mode_percent": round(100 * float(kept[0]), 2),
        "file_bytes": options.to.stat().st_size,
    }
    print(f"{len(shapes) // 2} labelled faces and their mirror images -> {options.to}")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
