"""Any callable, and any object with a method `detect`, is a detector."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fkp import Predictor, painter
from fkp.detectors import MediaPipe, describe, detect
from fkp.errors import FkpError
from fkp.geometry import face_box

IMAGE = np.zeros((20, 30, 3), np.uint8)
BOX = [1.0, 2.0, 10.0, 11.0]


class Own:
    version = 3

    def detect(self, image: np.ndarray) -> tuple[list[list[float]], list[float]]:
        assert image is IMAGE
        return [BOX], [0.5]


@pytest.mark.parametrize("detector", [Own(), lambda image: (np.array([BOX]), np.array([0.5]))])
def test_it_is_called_and_its_arrays_are_made_float32(detector: object) -> None:
    boxes, scores = detect(detector, IMAGE)
    assert boxes.tolist() == [BOX] and scores.tolist() == [0.5]
    assert boxes.dtype == scores.dtype == np.float32


@pytest.mark.parametrize("empty", [([], []), (np.zeros((0, 4)), np.zeros(0)), ((), np.zeros(0))])
def test_no_face_is_no_box(empty: object) -> None:
    boxes, scores = detect(lambda _: empty, IMAGE)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


@pytest.mark.parametrize(
    "wrong", [None, [BOX], ([BOX], [1, 2]), ([BOX[:3]], [1]), ([[np.nan] * 4], [1]), (1, 2, 3)]
)
def test_what_is_no_boxes_and_scores_is_refused(wrong: object) -> None:
    with pytest.raises(FkpError) as error:
        detect(lambda _: wrong, IMAGE)
    assert error.value.key == "detector"


def test_it_is_described_by_name_and_version() -> None:
    assert describe(Own()) == {"name": "Own", "version": "3"}
    assert describe(detect) == {"name": "detect", "version": None}


def test_mediapipe_needs_a_model(tmp_path: Path) -> None:
    for arguments in ({}, {"model": str(tmp_path / "gone.tflite")}):
        with pytest.raises(FkpError) as error:
            MediaPipe(**arguments)
        assert error.value.key == "detector.model"


def test_mediapipe_refuses_a_file_that_is_no_model_or_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"none")
    with pytest.raises(FkpError) as error:
        MediaPipe(str(tmp_path / "bad.tflite"))(IMAGE)
    assert (error.value.key or "").startswith("detector")


def test_a_predictor_takes_an_object_that_detects() -> None:
    image, label = painter.paint(2, 3)
    own = SimpleNamespace(detect=lambda image: (face_box(label)[None], [0.7]))
    predictor = Predictor.load(detector=own, min_confidence=0)
    (face,) = predictor(image)
    assert face.score == pytest.approx(0.7)
    np.testing.assert_allclose(face.box, face_box(label))
