"""The shipped weights are intact and small, and find points."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import Predictor, painter
from fkp.errors import FkpError
from fkp.geometry import face_box
from fkp.inference.torch_engine import rebuild
from fkp.markup import IBUG68
from fkp.metrics import nme
from fkp.weights import EXPORTED, FILE, checksum_file, shipped
from fkp.weights.__main__ import ship

Run = tuple[Path, str]


def test_shipped_weights_are_small_and_intact() -> None:
    assert sum(file.stat().st_size for file in FILE.parent.iterdir() if file.is_file()) <= 8e6
    assert max(FILE.stat().st_size, EXPORTED.stat().st_size) <= 4e6
    assert (shipped(), shipped(EXPORTED)) == (FILE, EXPORTED)
    assert sum(weight.numel() for weight in rebuild(FILE)[0].parameters()) <= 1e6


def test_shipped_weights_find_synthetic_faces() -> None:
    predictor = Predictor.load(device="cpu")
    quick, errors, apart = Predictor.load(), [], []
    for i in range(12):
        image, label = painter.paint(5, i)
        (face,), (same,) = (one(image, boxes=face_box(label)[None]) for one in (predictor, quick))
        errors.append(nme(face.points, label, IBUG68))
        off = np.linalg.norm(face.points - same.points, axis=1).mean() / np.sqrt(
            np.prod(face.box[2:] - face.box[:2])
        )
        apart.append((off, np.abs(face.confidence - same.confidence).mean()))
    assert np.median(errors) < 0.08
    assert (
        np.max(apart, axis=0) < (0.002, 0.02)
    ).all()  # the exported file counts in whole numbers of 8 bits


def test_a_shipped_file_predicts_as_its_checkpoint(trained: Run, tmp_path: Path) -> None:
    checkpoint = trained[0] / "checkpoints/best.ckpt"
    file = ship(checkpoint, tmp_path / "small.ckpt")
    assert shipped(file) == file and file.stat().st_size < checkpoint.stat().st_size
    image, label = painter.paint(2, 0)
    ours, theirs = (
        Predictor.load(path)(image, boxes=face_box(label)[None])[0] for path in (file, checkpoint)
    )
    np.testing.assert_array_equal(ours.points, theirs.points)
    assert set(torch.load(file, weights_only=True)) == {"fkp", "state_dict"}


def test_a_changed_or_missing_file_is_refused(trained: Run, tmp_path: Path) -> None:
    file = ship(trained[0] / "checkpoints/best.ckpt", tmp_path / "small.ckpt")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(FkpError, match="SHA-256 differs"):
        shipped(file)
    checksum_file(file).unlink()
    with pytest.raises(FkpError, match="missing"):
        shipped(file)
