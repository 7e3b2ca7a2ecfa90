"""Synthetic faces: they never change, look like faces, and their points lie on what is drawn."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from fkp.painter import paint

SEED = 7
EYES = (list(range(36, 42)), list(range(42, 48)))


@pytest.fixture(scope="module")
def faces() -> list[tuple[np.ndarray, np.ndarray]]:
    return [paint(SEED, index) for index in range(80)]


def digest(image: np.ndarray, points: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes() + points.tobytes()).hexdigest()


def test_a_face_does_not_depend_on_what_was_painted_before(faces):
    for index in (40, 3, 11):
        assert digest(*paint(SEED, index)) == digest(*faces[index])


def test_a_face_is_the_same_in_another_process(faces):
    script = (
        "import hashlib; from fkp.painter import paint; image, points = paint(7, 5);"
        "print(hashlib.sha256(image.tobytes() + points.tobytes()).hexdigest())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == digest(*faces[5])


def test_faces_differ_by_index_and_by_seed(faces):
    assert len({digest(*face) for face in faces}) == len(faces)
    assert digest(*paint(SEED + 1, 0)) != digest(*faces[0])


def test_images_and_points_have_the_documented_types_and_sizes(faces):
    for image, points in faces:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert min(image.shape[:2]) >= 150 and max(image.shape[:2]) <= 320
        assert points.dtype == np.float64 and points.shape == (68, 2)
        assert np.isfinite(points).all()


def test_almost_all_points_lie_inside_the_image(faces):
    inside = [
        ((points >= 0) & (points <= np.array(image.shape[1::-1]) - 1)).all(axis=1)
        for image, points in faces
    ]
    assert np.mean(inside) > 0.97


def test_points_are_arranged_as_in_a_face(faces):
    for _, points in faces:
        across = points[45] - points[36]
        across = across / np.linalg.norm(across)
        x, y = points @ across, points @ np.array([-across[1], across[0]])
        eyes, nose, mouth = y[36:48].mean(), y[31:36].mean(), y[48:68].mean()
        assert y[17:27].mean() < eyes < nose < mouth < y[8]
        assert x[36] < x[39] < x[42] < x[45]
        assert x[0] < x[8] < x[16] and x[48] < x[54] and x[31] < x[35] and x[17] < x[26]
        assert (y[[61, 62, 63]] < y[[67, 66, 65]]).all()


def gray_at(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Sample slightly smoothed gray values (N,) at places (N, 2)."""
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    x, y = places.astype(np.float32).T
    return cv2.remap(gray, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]


def mean_gray(faces, place, shift: tuple[float, float]) -> float:
    """Average gray values at `place(points)`, shifted by fractions of the outer-eye distance."""
    values = []
    for image, points in faces:
        across = points[45] - points[36]
        down = np.array([-across[1], across[0]])
        values.append(gray_at(image, place(points) + shift[0] * across + shift[1] * down).mean())
    return float(np.mean(values))


def test_the_image_is_darkest_at_the_eyes(faces):
    def centres(points):
        return np.stack([points[eye].mean(axis=0) for eye in EYES])

    here = mean_gray(faces, centres, (0, 0))
    for shift in ((0.2, 0), (-0.2, 0), (0, 0.15), (0, -0.1)):
        assert here < mean_gray(faces, centres, shift) - 10


def test_the_image_is_darkest_between_the_lips(faces):
    def line(points):
        return 0.65 * points[[61, 62, 63]] + 0.35 * points[[67, 66, 65]]

    here = mean_gray(faces, line, (0, 0))
    for shift in ((0, 0.12), (0, -0.12)):
        assert here < mean_gray(faces, line, shift) - 10


def test_the_contour_of_the_face_lies_at_the_jaw_points(faces):
    def step_across_contour(outwards: float) -> float:
        steps = []
        for image, points in faces:
            jaw = points[3:14]
            away = jaw - points[27:36].mean(axis=0)
            away *= np.linalg.norm(points[45] - points[36]) / np.linalg.norm(
                away, axis=1, keepdims=True
            )
            inner, outer = (
                gray_at(image, jaw + (outwards + side * 0.06) * away) for side in (-1, 1)
            )
            steps.append(np.abs(inner - outer).mean())
        return float(np.mean(steps))

    here = step_across_contour(-0.02)
    assert here > 1.5 * step_across_contour(-0.2)
    assert here > 1.2 * step_across_contour(0.15)
