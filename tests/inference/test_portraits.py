"""Describe the faces of photos, with the shipped weights on painted faces."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp import Predictor, painter
from fkp.files.images import read_image, write_image
from fkp.inference.portraits import Portrait, describe
from fkp.inference.ranking import DUPLICATE
from fkp.weights import EXPORTED, FILE


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces, each with a copy that is smaller, cropped and compressed; and no face."""
    root = tmp_path_factory.mktemp("photos")
    for i in (2, 3):
        image = painter.paint(5, i)[0]
        write_image(root / f"{i}.png", image)
        small = cv2.resize(image[3:, 2:], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
        write_image(root / f"{i}_copy.jpg", small)
    write_image(root / "blank.png", np.full((64, 64, 3), 99, np.uint8))
    (root / "damaged.png").write_text("not an image")
    return root


def described(predictor: Predictor, photos: Path) -> dict[str, Portrait | None]:
    failed: dict[str, str] = {}
    found = describe(predictor, sorted(photos.iterdir()), failed)
    portraits = {path.name: portrait for path, portrait in found}
    assert list(failed) == [str(photos / "damaged.png")]
    assert list(portraits) == ["2.png", "2_copy.jpg", "3.png", "3_copy.jpg", "blank.png"]
    assert portraits.pop("blank.png") is None
    return portraits


def test_copies_have_the_same_thumbnail_and_other_faces_have_not(photos: Path) -> None:
    found = described(Predictor.load(FILE, device="cpu"), photos)
    thumbnails = np.array([portrait.thumbnail for portrait in found.values() if portrait])
    assert thumbnails.mean(1) == pytest.approx(0, abs=1e-6)
    correlation = thumbnails @ thumbnails.T
    same = np.kron(np.eye(2), np.ones((2, 2))) > 0
    assert ((correlation > DUPLICATE) == same).all()


def test_features_are_the_network_s_or_the_thumbnail(photos: Path) -> None:
    predictor = Predictor.load(FILE, device="cpu")
    for name, portrait in described(predictor, photos).items():
        assert portrait is not None and portrait.features.shape == (64,)
        height, width = read_image(photos / name).shape[:2]
        assert portrait.size == (width, height) and 0 < portrait.confidence <= 1

    for portrait in described(Predictor.load(EXPORTED), photos).values():
        assert portrait is not None
        assert np.array_equal(portrait.features, portrait.thumbnail)
