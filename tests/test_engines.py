"""An exported file answers as its checkpoint, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call

from fkp import Predictor, engines
from fkp.codecs import SoftArgmax
from fkp.engines.checkpoint import TorchEngine
from fkp.engines.exported import OnnxEngine
from fkp.errors import FkpError
from fkp.geometry import face_box
from fkp.networks import HeatMaps
from fkp.pictures import write_picture
from fkp.sources import painter

Run = tuple[Path, str]
export = pytest.importorskip("fkp.engines.export").export
pytest.importorskip("onnx")
CROPS = np.random.default_rng(0).integers(0, 256, (5, 64, 64), np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, trained: Run) -> Path:
    """A small untrained network of heat maps that says how sure it is, with the frame of a run."""
    torch.manual_seed(0)
    network = HeatMaps(width=4)
    network.train()(torch.rand(8, 1, 64, 64))
    recipe = torch.load(trained[0] / "checkpoints/best.ckpt", weights_only=True)["fkp"]
    recipe["network"] = {"_target_": "fkp.networks.HeatMaps", "width": 4}
    recipe["codec"] = {"_target_": "fkp.codecs.SoftArgmax", "size": 64, "unit": 0.64, "calibration": [-3.0, -1.0]}
    recipe["transforms"]["rescale"]["size"] = recipe["transforms"]["crop"]["size"] = 64
    file = tmp_path_factory.mktemp("checkpoint") / "small.ckpt"
    torch.save({"fkp": recipe, "state_dict": {f"network.{k}": v for k, v in network.state_dict().items()}}, file)
    return file


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    file = checkpoint.with_suffix(".onnx")
    assert export(checkpoint, file, CROPS) < 0.01
    return file


@pytest.mark.parametrize("count", [1, 2, 5])
def test_both_engines_answer_alike_for_any_number_of_crops(checkpoint: Path, exported: Path, count: int) -> None:
    ours, theirs = engines.load(checkpoint, "cpu"), engines.load(exported)
    assert isinstance(ours, TorchEngine) and isinstance(theirs, OnnxEngine) and ours.recipe == theirs.recipe
    for a, b in zip(ours(CROPS[:count]), theirs(CROPS[:count]), strict=True):
        assert a.dtype == b.dtype == np.float32 and len(a) == count
        np.testing.assert_allclose(a, b, atol=0.01)


def test_predictors_of_both_answer_alike(checkpoint: Path, exported: Path) -> None:
    image, label = painter.paint(2, 0)
    boxes = np.stack([face_box(label), face_box(label) + 5])
    for ours, theirs in zip(*(Predictor.load(f)(image, boxes=boxes) for f in (checkpoint, exported)), strict=True):
        np.testing.assert_allclose(ours.points, theirs.points, atol=0.05)
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=0.01)


def test_colours_are_exported_too(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    network = HeatMaps(width=4, channels=3).eval()
    content["fkp"]["network"]["channels"], content["fkp"]["gray"] = 3, False
    content["state_dict"] = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save(content, tmp_path / "colour.ckpt")
    export(tmp_path / "colour.ckpt", tmp_path / "colour.onnx", np.repeat(CROPS[..., None], 3, 3))
    image, label = painter.paint(2, 0)
    assert len(Predictor.load(tmp_path / "colour.onnx")(image, boxes=face_box(label)[None])) == 1


def test_a_file_that_answers_otherwise_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(self: SoftArgmax, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points = self.points(self.coordinates(output)) if not torch.jit.is_tracing() else output.mean((2, 3))[..., None]
        return points.expand(-1, -1, 2), torch.ones_like(points[..., 0])

    monkeypatch.setattr(SoftArgmax, "decode", moved)
    monkeypatch.setattr(SoftArgmax, "coordinates", lambda self, output: self.encode(self._moments(output)[0]))
    with pytest.raises(FkpError, match=r"not kept, as it differs .* by \d+"):
        export(checkpoint, tmp_path / "wrong.onnx", CROPS)
    assert not list(tmp_path.iterdir())


def test_prediction_from_an_exported_file_does_not_import_torch(exported: Path, tmp_path: Path) -> None:
    image, label = painter.paint(2, 0)
    photo = write_picture(tmp_path / "photo.png", image)
    code = f"""
import sys
from fkp import Predictor
faces = Predictor.load({str(exported)!r})({str(photo)!r}, boxes=[{face_box(label).tolist()}])
assert len(faces) == 1 and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_that_are_none_are_refused(exported: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(exported))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    (tmp_path / "text.onnx").write_text("no model")
    for name, message in (
        ("bare", "says nothing of its points and crops"),
        ("text", "not a file that onnxruntime can run"),
        ("gone", "no such checkpoint"),
    ):
        with pytest.raises(FkpError, match=f"{name}.onnx: {message}"):
            Predictor.load(tmp_path / f"{name}.onnx")


@pytest.mark.slow
def test_the_script_exports_what_predict_takes(trained: Run, tmp_path: Path) -> None:
    ckpt = trained[0] / "checkpoints/best.ckpt"
    done = call("export.py", f"ckpt={ckpt}", "out=models/model.onnx", "faces=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "differs by" in done.stdout and (tmp_path / "models/model.onnx").is_file()
    image, _ = painter.paint(2, 0)
    photo = write_picture(tmp_path / "photo.png", image)
    done = call("predict.py", f"image={photo}", "ckpt=models/model.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("outputs/predictions/*/photo.json")
    assert json.loads(record.read_text())["ckpt"] == "models/model.onnx"
