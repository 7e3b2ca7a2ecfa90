"""Detectors find each face of a large image once, whatever its size and place."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp import painter
from fkp.detectors import OVERLAP, HaarCascade, YuNet, _search, _starts, _views
from fkp.errors import FkpError
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
    without_tiles = HaarCascade(tile_scale=0)(image)[0]
    assert len(without_tiles) < 6  # without tiles, faces are missed


def test_a_face_that_fills_a_large_image_is_found_once(crops: list[np.ndarray]) -> None:
    image = cv2.resize(crops[0], (5200, 5200), interpolation=cv2.INTER_LINEAR)
    assert_each_once(HaarCascade(), image, np.array([[0.4, 0.4, 1.4, 1.4]]) * 5200 / 1.8)


@pytest.mark.parametrize("longest", [320, 640, 1280])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4000, 3), (4000, 1), (1200, 1600, 3), (1500, 1300)])
def test_ordinary_images_are_searched_once(shape: tuple[int, ...], longest: int) -> None:
    views = list(_views(np.zeros(shape, np.uint8), longest, 0.25 * longest / 640))
    assert len(views) == 1 and max(views[0].pixels.shape[:2]) <= longest


@pytest.mark.parametrize("length", [1, 100, 101, 170, 176, 999])
def test_a_face_no_larger_than_the_overlap_lies_within_a_tile(length: int) -> None:
    starts, tile = _starts(length, 100), 100
    for left in range(max(1, length - int(OVERLAP * tile) + 2)):
        right = min(left + int(OVERLAP * tile) - 2, length)
        assert any(start <= left and right <= start + tile for start in starts)
    assert len(starts) <= 1 + max(0, length - tile) / (tile * (1 - OVERLAP)) + 1


@pytest.mark.parametrize("shape", [(900, 20000), (20000, 900), (9000, 9000)])
def test_tiles_are_small_and_their_number_grows_with_the_pixels(shape: tuple[int, int]) -> None:
    views = list(_views(np.zeros(shape, np.uint8), 1280, 0.5))
    assert all(max(view.pixels.shape) <= 1280 for view in views)
    assert sum(view.pixels.size for view in views) < 0.5**2 * np.prod(shape) * 3


@pytest.mark.parametrize("scale", [-0.1, 1.5, float("nan")])
def test_a_tile_scale_outside_0_to_1_is_refused(scale: float) -> None:
    with pytest.raises(FkpError) as error:
        HaarCascade(tile_scale=scale)
    assert error.value.key == "detector.tile_scale"


def test_rows_are_converted_to_image_pixels() -> None:
    """A bright spot is found where it is, whichever tile shows it."""
    image = np.zeros((600, 6000), np.uint8)
    image[300:308, 4000:4008] = 255

    def brightest(pixels: np.ndarray) -> np.ndarray:
        y, x = np.unravel_index(pixels.argmax(), pixels.shape)
        row = [x - 8, y - 8, 16, 16, x, y, 1.0]
        return np.array([row] if pixels.max() > 100 else np.zeros((0, 7)), float)

    (row,) = _search(image, 640, 0.25, brightest)
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
