"""A stream in threads yields what a plain loop yields; so does an error; no thread is left."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp import Face, Predictor, painter
from fkp.errors import FkpError
from fkp.files.images import write_image
from fkp.inference.pipeline import AHEAD, Pipeline
from fkp.inference.stream import BATCHES, Stages

THREADS = 4


def stage_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fkp")]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Many images of several sizes, some without a face."""
    drawn = [painter.paint(3, i)[0] for i in range(2)]
    sizes = (0.6, 1.0, 0.8)
    scaled = [cv2.resize(one, None, fx=size, fy=size) for one in drawn for size in sizes]
    return [*scaled, np.zeros((40, 60), np.uint8), *scaled[::-1]]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load()


def assert_equal(found: list[list[Face]], others: list[list[Face]]) -> None:
    assert [len(faces) for faces in found] == [len(faces) for faces in others]
    for faces, same in zip(found, others, strict=True):
        for face, other in zip(faces, same, strict=True):
            np.testing.assert_array_equal(face.points, other.points)
            np.testing.assert_array_equal(face.confidence, other.confidence)
            np.testing.assert_array_equal(face.box, other.box)
            assert face.score == other.score


@pytest.mark.parametrize("device", [None, "cpu"], ids=["onnxruntime", "torch"])
def test_threads_yield_the_faces_of_the_plain_loop_bit_for_bit(
    device: str | None, images: list[np.ndarray]
) -> None:
    predictor = Predictor.load(device=device)
    predictor.batch_size = 3
    loop = list(predictor.stream(images, threads=1))
    assert sum(map(bool, loop)) >= len(images) // 2
    assert_equal(list(predictor.stream(images, threads=THREADS)), loop)
    boxes = [[face.box for face in faces] for faces in loop]
    given = list(predictor.stream(images, boxes, threads=1))
    assert_equal(list(predictor.stream(images, boxes, threads=THREADS)), given)
    assert not stage_threads()


@pytest.mark.parametrize("threads", [1, THREADS])
def test_an_image_that_cannot_be_read_raises_when_it_is_reached(
    predictor: Predictor, images: list[np.ndarray], tmp_path: Path, threads: int
) -> None:
    good = write_image(tmp_path / "good.png", images[0])
    (tmp_path / "bad.png").write_text("text")
    found = []
    with pytest.raises(FkpError, match=r"bad\.png"):
        for faces in predictor.stream(
            [good, images[1], good, tmp_path / "bad.png", good], threads=threads
        ):
            found.append(faces)
    assert_equal(found, list(predictor.stream([good, images[1], good], threads=1)))
    assert not stage_threads()

    # As a value, it does not end the stream.
    with Pipeline(threads) as pipeline:
        paths = [tmp_path / "bad.png", good, tmp_path / "none.png"]
        bad, fine, missing = Stages(predictor, keep=True).answers(pipeline, paths)
    assert isinstance(bad.error, FkpError) and isinstance(missing.error, FkpError)
    assert bad.image is None and not bad.faces
    assert fine.image is not None and fine.faces


@pytest.mark.parametrize("threads", [1, THREADS])
def test_an_error_of_the_images_comes_after_the_faces_before_it(
    predictor: Predictor, images: list[np.ndarray], threads: int
) -> None:
    def interrupted() -> Iterator[np.ndarray]:
        yield from images[:3]
        raise LookupError("of the caller")

    found = []
    with pytest.raises(LookupError, match="of the caller"):
        for faces in predictor.stream(interrupted(), threads=threads):
            found.append(faces)
    assert len(found) == 3 and not stage_threads()


def test_a_stream_that_is_closed_early_leaves_no_thread(
    predictor: Predictor, images: list[np.ndarray]
) -> None:
    predictor = Predictor(predictor.engine, predictor.transforms, predictor.markup, batch_size=2)
    pulled = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal pulled
        while True:
            pulled += 1
            yield images[pulled % len(images)]

    stream = predictor.stream(endless(), threads=THREADS)
    assert not stage_threads()  # before the first image
    next(stream)
    assert stage_threads()
    # Two stages of single images; batches that wait, that are predicted, and the one handed out.
    assert pulled <= 2 * AHEAD * THREADS + 2 * (1 + BATCHES + 1) + 2
    stream.close()
    assert not stage_threads()

    # An error of the consumer.
    with pytest.raises(ZeroDivisionError):
        for _ in predictor.stream(endless(), threads=THREADS):
            1 / 0  # noqa: B018
    assert not stage_threads()


def test_a_stage_holds_few_pixels(images: list[np.ndarray]) -> None:
    lock, held, most = threading.Lock(), 0, 0

    def items() -> Iterator[int]:
        nonlocal held, most
        for _ in range(20):
            with lock:
                held += 1
                most = max(most, held)
            yield 1

    def work(item: int) -> int:
        time.sleep(0.001)
        return item

    with Pipeline(THREADS) as pipeline:
        pipeline.pixels = 300
        for _ in pipeline.map(work, items(), pixels=lambda _: 100):
            with lock:
                held -= 1
    # Three held by the stage, and one that waits for room.
    assert most <= 4


def test_a_detector_of_the_caller_is_called_by_one_thread_at_a_time(
    predictor: Predictor, images: list[np.ndarray]
) -> None:
    class Counting:
        parallel: bool
        now = most = 0

        def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.now += 1
            self.most = max(self.most, self.now)
            time.sleep(0.002)
            self.now -= 1
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)

    class Sharable(Counting):
        parallel = True

    for detector, most in ((Counting(), [1]), (Sharable(), range(2, THREADS + 1))):
        own = Predictor(predictor.engine, predictor.transforms, predictor.markup, detector=detector)
        assert list(own.stream(images, threads=THREADS)) == [[]] * len(images)
        assert detector.most in most


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "all"])
def test_wrong_threads_are_refused(predictor: Predictor, threads: object) -> None:
    with pytest.raises(FkpError) as caught:
        list(predictor.stream([], threads=threads))  # type: ignore[arg-type]
    assert caught.value.key == "threads"
