"""Compute `fkp/painter/shape68.json`, the shapes that the painted faces take, from real labels.

    python benchmarks/accuracy/shape_model.py path/to/youtube_faces

The labels are those that github.com/udacity/P1_Facial_Keypoints publishes under the MIT licence, of the people in the
training part of the identity split (photos are not used, only the points). Each face counts twice, as labelled and
mirrored, so that the model is exactly mirror symmetric, which takes the labels' constant shift to one side out of it.
The shapes are aligned by a generalised Procrustes analysis; their principal components follow. A head that turns moves
its points on arcs, not on lines, so the other components are not independent of the first two (yaw and pitch): `bends`
holds what they are on average at each pose.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from fkp.data.youtube_faces import YoutubeFaces
from fkp.markup import IBUG68

MODES = (
    24  # beyond these the labels' coarse grid (5.5 % of the eye distance) is most of what is left
)
MODEL_FILE = Path(__file__).parents[2] / "fkp" / "painter" / "shape68.json"


def read_shapes(root: str) -> np.ndarray:
    """The labels of people in the training part of the identity split, as complex numbers x + iy, (faces, 68)."""
    points = YoutubeFaces(root).read().split("identity")["train"].points
    return points[..., 0] + 1j * points[..., 1]


def align(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Generalised Procrustes analysis: shapes (faces, 68) and their mean (68,), of root mean square radius 1."""
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    mean = shapes.mean(axis=0)
    for _ in range(20):
        mean = mean / np.sqrt(np.mean(np.abs(mean) ** 2))
        fit = (shapes.conj() @ mean) / np.sum(np.abs(shapes) ** 2, axis=1)
        shapes = shapes * fit[:, None]
        mean = shapes.mean(axis=0)
    return shapes, mean


def pose_terms(pose: np.ndarray) -> np.ndarray:
    """The polynomial in the two pose coefficients (faces, 2) that predicts the others: (faces, 6)."""
    yaw, pitch = pose.T
    return np.stack(
        [np.ones_like(yaw), yaw**2, pitch**2, yaw * pitch, yaw**3, yaw**2 * pitch], axis=1
    )


def flat(shapes: np.ndarray) -> np.ndarray:
    """Complex (…, 68) to real (…, 136), x y alternating."""
    return np.stack([shapes.real, shapes.imag], axis=-1).reshape(*shapes.shape[:-1], 136)


def main() -> None:
    """Read the labels, compute the model, write it and tell how much of the labels it keeps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--to", type=Path, default=MODEL_FILE)
    arguments = parser.parse_args()

    shapes = read_shapes(arguments.root)
    shapes, mean = align(np.concatenate([shapes, -shapes[:, IBUG68.flip_indices].conj()]))
    centred = flat(shapes - mean)
    distance = np.linalg.norm(centred, axis=1)
    centred = centred[distance <= np.quantile(distance, 0.995)]  # the rest are labelling accidents

    _, singular, modes = np.linalg.svd(centred, full_matrices=False)
    modes = modes[:MODES] * np.sign(
        modes[:MODES, :1]
    )  # an SVD's signs are arbitrary; the file must not be
    coefficients = centred @ modes.T
    deviations = coefficients.std(axis=0)
    terms = pose_terms(coefficients[:, :2] / deviations[:2])
    bends = np.linalg.lstsq(terms, coefficients[:, 2:], rcond=None)[0]
    rest = coefficients[:, 2:] - terms @ bends
    # Half of the central 68 %: a standard deviation that the remaining accidents do not inflate.
    deviations[2:] = (np.quantile(rest, 0.84, axis=0) - np.quantile(rest, 0.16, axis=0)) / 2

    model = {
        "about": "68-point face shapes: see benchmarks/accuracy/shape_model.py, which computes this file",
        "mean": flat(mean).round(4).tolist(),
        "modes": modes.round(4).tolist(),
        "deviations": deviations.round(4).tolist(),
        "bends": bends.T.round(4).tolist(),
    }
    arguments.to.write_text(json.dumps(model) + "\n", encoding="utf-8")

    kept = np.cumsum(singular**2) / np.sum(singular**2)
    print(f"{len(shapes) // 2} labelled faces and their mirror images -> {arguments.to}")
    print(
        json.dumps(
            {
                "faces": len(shapes) // 2,
                "modes": MODES,
                "variance_kept_percent": round(100 * float(kept[MODES - 1]), 2),
                "first_mode_percent": round(100 * float(kept[0]), 2),
                "file_bytes": arguments.to.stat().st_size,
            }
        )
    )


if __name__ == "__main__":
    main()
