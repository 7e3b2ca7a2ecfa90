"""One predictor in several threads and processes answers as in one."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fkp import Face, Predictor
from fkp.detectors import HaarCascade, YuNet
from fkp.engines import checkpoint
from fkp.errors import FkpError
from fkp.sources import painter

THREADS = 8


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Drawn faces, each in images of several sizes: detectors keep buffers that go with the size."""
    drawn = [painter.paint(3, i)[0] for i in range(2)]
    return [cv2.resize(image, None, fx=scale, fy=scale) for image in drawn for scale in (0.6, 0.7, 0.85, 1.0)]


@pytest.fixture(scope="module", params=["onnxruntime", "torch"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return Predictor.load(device="cpu" if request.param == "torch" else None)


def assert_same(found: list[list[Face]], alone: list[list[Face]]) -> None:
    assert [len(faces) for faces in found] == [len(faces) for faces in alone]
    for faces, others in zip(found, alone, strict=True):
        for face, other in zip(faces, others, strict=True):
            np.testing.assert_allclose(face.points, other.points, atol=0.05)


def test_threads_get_what_one_thread_gets(predictor: Predictor, images: list[np.ndarray]) -> None:
    alone = [predictor(image) for image in images]
    assert all(alone)
    boxes = [[face.box for face in faces] for faces in alone]
    given = [predictor(image, boxes=some) for image, some in zip(images, boxes, strict=True)]
    with ThreadPoolExecutor(THREADS) as pool:
        streams = [pool.submit(lambda: list(predictor.stream(images))) for _ in range(2)]
        detected, boxed = pool.map(predictor, images), pool.map(predictor, images, boxes)
        assert_same(list(detected), alone)
        assert_same(list(boxed), given)
        for stream in streams:
            assert_same(stream.result(), alone)


def test_threads_that_load_at_once_get_a_predictor_each(images: list[np.ndarray]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: Predictor.load()(images[0]), range(4)))
    assert_same(found, 4 * [found[0]])


@pytest.mark.real
def test_threads_share_a_yunet(shared: Path, images: list[np.ndarray]) -> None:
    detector = YuNet(str(shared / "models/face_detection_yunet_2023mar.onnx"))
    alone = [detector(image) for image in images]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(5):
            for (boxes, scores), (others, sure) in zip(pool.map(detector, images), alone, strict=True):
                np.testing.assert_array_equal(boxes, others)
                np.testing.assert_array_equal(scores, sure)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(detector))(images[0])[0], alone[0][0])


def test_a_detector_that_fails_in_one_thread_goes_on(images: list[np.ndarray]) -> None:
    detector = HaarCascade()
    alone = detector(images[0])
    with pytest.raises(cv2.error):
        detector(np.zeros((40, 40), np.float64))
    np.testing.assert_array_equal(detector(images[0])[0], alone[0])


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda predictor: pickle.loads(pickle.dumps(predictor))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_answer_alike(
    predictor: Predictor, images: list[np.ndarray], copied: Callable[[Predictor], Predictor]
) -> None:
    assert_same([copied(predictor)(images[1])], [predictor(images[1])])


# A child that hangs, in the model or when it exits, is killed by an alarm and has an exit status that is not 0.
PROCESSES = """
import multiprocessing, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from fkp import Predictor
from fkp.sources import painter

device = {"onnxruntime": None, "torch": "cpu"}[sys.argv[1]]
if device:
    import torch
    torch.set_num_threads(2)
image = painter.paint(3, 0)[0]
predictor = Predictor.load(device=device)
points = predictor(image)[0].points
for child in range(2):
    number = os.fork()
    if not number:
        signal.alarm(30)
        if child == 0:
            assert np.abs(predictor(image)[0].points - points).max() < 0.05
        sys.exit(0)
    assert os.waitpid(number, 0)[1] == 0, child
if not device:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert np.abs(pool.submit(predictor, image).result()[0].points - points).max() < 0.05
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_other_processes_answer_and_exit(engine: str) -> None:
    ours = ("OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"  # quicker where others compute, too
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES, engine], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_a_model_on_cuda_is_refused_in_a_forked_process() -> None:
    with pytest.raises(FkpError, match="spawn"):
        checkpoint._check_fork(torch.device("cuda", 0))
