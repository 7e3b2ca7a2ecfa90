"""Detectors find each face of a large image once, whatever its size and place."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp import painter
from fkp.detectors import HaarCascade, YuNet
from fkp.detectors.views import (
    LONG,
    OVERLAP,
    STRETCH,
    _starts,
    distinct,
    search,
    smallest_face,
    views,
)
from fkp.files.images import read_image
from fkp.geometry import centre_and_side, compose, face_box, nesting, overlap, translation

SIDE = 200  # of the faces, pixels


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    """Six synthetic faces with boxes of SIDE pixels, each in the middle of a crop of 1.8 SIDE."""
    made = []
    for i in (0, 4, 5, 6, 1, 0):
        image, label = painter.paint(3, i)
        x, y, side = centre_and_side(face_box(label))
        scaling = np.array([[SIDE / side, 0, 0], [0, SIDE / side, 0]])
        affine = compose(translation(-x, -y), scaling, translation(0.9 * SIDE, 0.9 * SIDE))
        size = (round(1.8 * SIDE), round(1.8 * SIDE))
        made.append(cv2.warpAffine(image, affine, size, borderMode=cv2.BORDER_REPLICATE))
    return made


def scene(
    crops: list[np.ndarray], size: tuple[int, int], corners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Paste the crops into a gray image (width, height); return it and the face boxes."""
    image = np.full((*size[::-1], 3), 128, np.uint8)
    for crop, (x, y) in zip(crops, corners, strict=False):
        image[y : y + len(crop), x : x + len(crop)] = crop
    left, top = (corners + 0.4 * SIDE).T
    return image, np.stack([left, top, left + SIDE, top + SIDE], 1)


def assert_each_once(detector: HaarCascade | YuNet, image: np.ndarray, truth: np.ndarray) -> None:
    boxes, scores = detector(image)
    assert (np.diff(scores) <= 0).all()
    hits = np.array([[overlap(box, face) > 0.35 for box in boxes] for face in truth])
    assert (hits.sum(1) == 1).all(), hits.sum(1)
    assert len(boxes) <= len(truth) + 1


def test_each_face_of_a_panorama_is_found_once_also_across_tile_edges(
    crops: list[np.ndarray],
) -> None:
    x = np.array([0, 2000, 2250 + 380, 5300, 7900, 8640])
    image, truth = scene(
        crops, (9000, 700), np.stack([x, np.array([0, 90, 170, 340, 250, 340])], 1)
    )
    assert_each_once(HaarCascade(), image, truth)
    shrunk = HaarCascade(smallest=500)(image)[0]
    assert len(shrunk) < 6  # at the scale of larger faces, these are missed


def test_a_face_that_fills_a_large_image_is_found_once(crops: list[np.ndarray]) -> None:
    image = cv2.resize(crops[0], (5200, 5200), interpolation=cv2.INTER_LINEAR)
    assert_each_once(HaarCascade(), image, np.array([[0.4, 0.4, 1.4, 1.4]]) * 5200 / 1.8)


@pytest.mark.parametrize("longest", [640, 1280])
@pytest.mark.parametrize("shape", [(1, 1), (300, 320, 3), (640, 480), (4000, 3000), (9000, 6000)])
def test_ordinary_images_are_searched_in_one_or_two_views(
    shape: tuple[int, ...], longest: int
) -> None:
    finest = 20 / smallest_face(None, shape)
    made = list(views(np.zeros(shape, np.uint8), finest, longest))
    assert max(max(view.pixels.shape[:2]) for view in made) <= 1000
    assert len(made) == (2 if longest == 640 and max(shape) > 640 else 1)
    assert made[0].factor == min(1.0, finest) and made[-1].factor >= finest / 4


@pytest.mark.parametrize("smallest", [None, 0.1, 0.5, 30, 400])
@pytest.mark.parametrize("shape", [(480, 640), (1200, 12000), (5000, 700, 3)])
def test_the_smallest_face_is_large_enough_in_some_view_and_no_larger(
    smallest: float | None, shape: tuple[int, ...]
) -> None:
    side = smallest_face(smallest, shape)
    assert smallest is None or smallest < 1 or side == smallest
    assert side <= (smallest or 0.02) * LONG * min(shape[:2]) or side in (20, smallest)
    least: list[float] = []

    def hits(pixels: np.ndarray, smallest: float) -> np.ndarray:
        least.append(smallest)
        return np.zeros((0, 5))

    search(np.zeros(shape, np.uint8), side, 20, 640, hits)
    assert max(least) == pytest.approx(min(20, side))


def test_of_boxes_of_the_same_face_the_best_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [50, 0, 60, 10], [2, 2, 4, 4]], float)
    assert distinct(boxes) == [0, 2, 3] and distinct(boxes, 0.5) == [0, 2]
    assert distinct(np.zeros((0, 4))) == []


@pytest.mark.parametrize("length", [1, 100, 101, 170, 176, 999])
def test_a_face_no_larger_than_the_overlap_lies_within_a_tile(length: int) -> None:
    starts, tile = _starts(length, 100), 100
    for left in range(max(1, length - int(OVERLAP * tile) + 2)):
        right = min(left + int(OVERLAP * tile) - 2, length)
        assert any(start <= left and right <= start + tile for start in starts)
    assert len(starts) <= 1 + max(0, length - tile) / (tile * (1 - OVERLAP)) + 1


@pytest.mark.parametrize("shape", [(900, 20000), (20000, 900), (9000, 9000)])
def test_tiles_are_small_and_their_number_grows_with_the_pixels(shape: tuple[int, int]) -> None:
    made = list(views(np.zeros(shape, np.uint8), 0.5, 1280))
    assert all(max(view.pixels.shape) <= STRETCH * 1280 for view in made)
    assert sum(view.pixels.size for view in made) < 0.5**2 * np.prod(shape) * 3


def test_rows_are_converted_to_image_pixels() -> None:
    """A bright spot is found where it is, whichever tile shows it."""
    image = np.zeros((600, 6000), np.uint8)
    image[300:308, 4000:4008] = 255

    def brightest(pixels: np.ndarray, smallest: float) -> np.ndarray:
        y, x = np.unravel_index(pixels.argmax(), pixels.shape)
        row = [x - 8, y - 8, 16, 16, x, y, 1.0]
        return np.array([row] if pixels.max() > 100 else np.zeros((0, 7)), float)

    (row,) = search(image, 16, 4, 640, brightest)
    left, top, width, height, x, y, score = row
    np.testing.assert_allclose(
        [left + width / 2, top + height / 2, x, y], [4000, 300, 4000, 300], atol=8
    )
    assert score == 1


@pytest.mark.real
def test_yunet_finds_the_faces_of_large_images(shared: Path) -> None:
    yunet = YuNet(str(shared / "models/face_detection_yunet_2023mar.onnx"))
    photo = read_image(shared / "photos/the_beatles.jpg")
    people = yunet(photo)[0]
    image = np.full((4000, 7800, 3), 128, np.uint8)
    image[2500 : 2500 + photo.shape[0], 6100 : 6100 + photo.shape[1]] = photo
    assert_each_once(yunet, image, people + (6100, 2500, 6100, 2500))
    large = cv2.resize(photo, None, fx=5, fy=5, interpolation=cv2.INTER_LINEAR)
    boxes, _ = yunet(large)
    assert len(boxes) == len(people)
    assert not any(nesting(a, b) > 0.5 for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.real
@pytest.mark.parametrize("size", [(12000, 1200), (8000, 6000)])
def test_yunet_finds_twelve_clear_faces_of_200_pixels(shared: Path, size: tuple[int, int]) -> None:
    yunet = YuNet(str(shared / "models/face_detection_yunet_2023mar.onnx"))
    photo = read_image(shared / "photos/obamas.jpg")
    box = yunet(photo)[0][0]
    x, y, side = (float(value) for value in centre_and_side(box))
    affine = compose(
        translation(-x, -y),
        np.array([[SIDE / side, 0, 0], [0, SIDE / side, 0]]),
        translation(0.8 * SIDE, 0.8 * SIDE),
    )
    crop = cv2.warpAffine(photo, affine, (320, 320), borderMode=cv2.BORDER_REPLICATE)
    columns = min(12, size[0] // 900)
    places = np.array([[i % columns * 900 + 70, i // columns * 1500 + 333] for i in range(12)])
    image = np.full((*size[::-1], 3), 128, np.uint8)
    for left, top in places:
        image[top : top + 320, left : left + 320] = crop
    truth = np.concatenate([places + 0.3 * SIDE, places + 1.3 * SIDE], 1)
    assert_each_once(yunet, image, truth)
