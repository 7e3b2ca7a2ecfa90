"""YuNet by onnxruntime: decoding, free shapes, and OpenCV's own YuNet as the slow twin."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp.detectors import YuNet, onnx_shapes
from fkp.detectors.yunet import STRIDES, _decoded, _input
from fkp.errors import FkpError
from fkp.files.images import read_image

MODEL = "models/face_detection_yunet_2023mar.onnx"


def encoded(rows: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Write rows (N, 15) as the network's outputs, each at a level of its own."""
    outputs = []
    for numbers in (1, 1, 4, 10):
        cells = [size[0] // stride * (size[1] // stride) for stride in STRIDES]
        outputs += [np.zeros((1, count, numbers), np.float32) for count in cells]
    for level, row in enumerate(rows):
        stride, (left, top, width, height) = STRIDES[level], row[:4]
        x, y = (left + width / 2) / stride, (top + height / 2) / stride
        column, line = int(x), int(y)
        cell = line * (size[1] // stride) + column
        outputs[level][0, cell], outputs[3 + level][0, cell] = 1.0, row[-1] ** 2
        outputs[6 + level][0, cell] = [
            x - column,
            y - line,
            np.log(width / stride),
            np.log(height / stride),
        ]
        marks = row[4:-1].reshape(5, 2) / stride - [column, line]
        outputs[9 + level][0, cell] = marks.reshape(-1)
    return outputs


def test_rows_are_decoded_best_first_and_weak_ones_dropped() -> None:
    random = np.random.default_rng(0)
    rows = random.uniform(0, 100, (3, 15))
    rows[:, :2] = [[10, 20], [200, 30], [60, 150]]
    rows[:, 2:4], rows[:, -1] = [[30, 40], [50, 70], [90, 60]], [0.7, 0.9, 0.3]
    size = (256, 320)
    np.testing.assert_allclose(_decoded(encoded(rows, size), size, 0.5), rows[[1, 0]], rtol=1e-4)
    assert _decoded(encoded(rows, size), size, 0.95).shape == (0, 15)


def test_the_input_has_whole_strides_and_bgr_planes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    planes = _input(image)
    assert planes.shape == (1, 3, 64, 96) and not planes[..., 50:, :].any()
    np.testing.assert_array_equal(planes[0, :, :50, :70], image[..., ::-1].transpose(2, 0, 1))
    assert (_input(image[..., 0])[0, :, :50, :70] == image[..., 0]).all()


@pytest.mark.parametrize("content", [b"", b"none", b"\xff" * 20, b"\x3a\x80\x80\x80\x80\x7f"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(FkpError) as error:
        YuNet(str(tmp_path / "bad.onnx"))(np.zeros((50, 50), np.uint8))
    assert error.value.key == "detector.model"


def test_a_missing_model_is_reported_at_once_and_offline_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FkpError) as error:
        YuNet("gone.onnx")
    assert error.value.key == "detector.model"
    monkeypatch.setenv("FKP_CACHE", str(tmp_path))
    monkeypatch.setattr("fkp.files.download.fetch_file", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(FkpError) as error:
        YuNet()(np.zeros((50, 50), np.uint8))
    assert error.value.key == "detector.model" and not list(tmp_path.iterdir())


def test_free_shapes_keep_all_else() -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    tensor = lambda name, shape: helper.make_tensor_value_info(name, 1, shape)  # noqa: E731
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["a"]), helper.make_node("Neg", ["a"], ["out"])],
        "g",
        [tensor("input", [1, 3, 640, 640])],
        [tensor("out", [1, 3, 640, 640])],
        value_info=[tensor("a", [1, 3, 640, 640])],
    )
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    freed = onnx.load_from_string(onnx_shapes.with_free_shapes(before.SerializeToString()))
    shape = freed.graph.input[0].type.tensor_type.shape.dim
    sides = [side.dim_value or side.dim_param for side in shape]
    assert sides == [1, 3, "h", "w"] and not freed.graph.value_info
    assert freed.graph.node == before.graph.node and freed.graph.output[0].name == "out"


@pytest.fixture(scope="module")
def yunet(shared: Path) -> YuNet:
    return YuNet(str(shared / MODEL))


@pytest.mark.real
@pytest.mark.parametrize("photo", ["obamas.jpg", "the_beatles.jpg", "mona_lisa.jpg"])
@pytest.mark.parametrize("side", [160, 320, 640])
def test_rows_equal_those_of_opencv(shared: Path, yunet: YuNet, photo: str, side: int) -> None:
    image = read_image(shared / "photos" / photo)
    scale = side / max(image.shape)
    pixels = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    twin = cv2.FaceDetectorYN.create(str(shared / MODEL), "", pixels.shape[1::-1], yunet.min_score)
    theirs = twin.detect(np.ascontiguousarray(pixels[..., ::-1]))[1]
    theirs = np.zeros((0, 15)) if theirs is None else theirs
    ours = yunet._hits(pixels, 0.0)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours[:, :-1], theirs[:, :-1], atol=1)
    np.testing.assert_allclose(ours[:, -1], theirs[:, -1], atol=0.01)


@pytest.mark.real
def test_threads_copies_and_a_forked_process_find_the_same(shared: Path, yunet: YuNet) -> None:
    images = [read_image(file) for file in sorted((shared / "photos").iterdir())]
    images = [cv2.resize(image, (320, 240)) for image in images] * 4
    alone = [yunet(image)[0] for image in images]
    with ThreadPoolExecutor(4) as pool:
        for (boxes, _), expected in zip(pool.map(yunet, images), alone, strict=True):
            np.testing.assert_array_equal(boxes, expected)
    copied = pickle.loads(pickle.dumps(yunet))
    np.testing.assert_array_equal(copied(images[0])[0], alone[0])

    child = os.fork()
    if child == 0:
        os._exit(int(not np.array_equal(yunet(images[0])[0], alone[0])))
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.real
def test_a_larger_smallest_face_searches_less(shared: Path, yunet: YuNet) -> None:
    image = read_image(shared / "photos/obamas.jpg")
    seen: list[tuple[int, ...]] = []
    quick = YuNet(yunet.model, smallest=0.1)
    found = quick._hits
    quick._hits = lambda pixels, least: (seen.append(pixels.shape), found(pixels, least))[1]  # type: ignore[method-assign]
    assert len(quick(image)[0]) == 2 and max(seen[0]) == 320 and len(seen) == 1
