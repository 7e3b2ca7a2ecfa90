"""An exported file answers as its checkpoint does, and both engines refuse invalid files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import call
from hypothesis import given, settings
from hypothesis import strategies as st

from fkp import Predictor, painter
from fkp.codecs import SoftArgmax
from fkp.errors import FkpError
from fkp.files.images import write_image
from fkp.geometry import face_box
from fkp.inference import engines
from fkp.inference.onnx_engine import SEAL_BYTES, OnnxEngine
from fkp.inference.torch_engine import TorchEngine
from fkp.networks import HeatMaps

Run = tuple[Path, str]
export = pytest.importorskip("fkp.inference.export").export
pytest.importorskip("onnx")
CROPS = np.random.default_rng(0).integers(0, 256, (5, 64, 64), np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, trained: Run) -> Path:
    """A small untrained heat map network with a calibrated codec, and the recipe of a run."""
    torch.manual_seed(0)
    network = HeatMaps(width=4)
    network.train()(torch.rand(8, 1, 64, 64))
    recipe = torch.load(trained[0] / "checkpoints/best.ckpt", weights_only=True)["fkp"]
    recipe["network"] = {"_target_": "fkp.networks.HeatMaps", "width": 4}
    recipe["codec"] = {
        "_target_": "fkp.codecs.SoftArgmax",
        "size": 64,
        "unit": 0.64,
        "calibration": [-3.0, -1.0],
    }
    recipe["transforms"]["rescale"]["size"] = recipe["transforms"]["random_crop"]["size"] = 64
    file = tmp_path_factory.mktemp("checkpoint") / "small.ckpt"
    torch.save(
        {"fkp": recipe, "state_dict": {f"network.{k}": v for k, v in network.state_dict().items()}},
        file,
    )
    return file


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    file = checkpoint.with_suffix(".onnx")
    assert export(checkpoint, file, CROPS) < 0.01
    return file


def test_an_int8_file_is_smaller_and_answers_nearly_alike(checkpoint: Path, exported: Path) -> None:
    file = exported.with_name("int8.onnx")
    assert 0 < export(checkpoint, file, CROPS, int8=True) < 0.5
    assert file.stat().st_size < exported.stat().st_size
    assert OnnxEngine(file).recipe == OnnxEngine(exported).recipe


@pytest.mark.parametrize("count", [1, 2, 5])
def test_both_engines_agree_for_any_number_of_crops(
    checkpoint: Path, exported: Path, count: int
) -> None:
    ours, theirs = engines.load(checkpoint, "cpu"), engines.load(exported)
    assert (
        isinstance(ours, TorchEngine)
        and isinstance(theirs, OnnxEngine)
        and ours.recipe == theirs.recipe
    )
    for a, b in zip(ours(CROPS[:count]), theirs(CROPS[:count]), strict=True):
        assert a.dtype == b.dtype == np.float32 and len(a) == count
        np.testing.assert_allclose(a, b, atol=0.01)


def test_predictors_of_both_engines_agree(checkpoint: Path, exported: Path) -> None:
    image, label = painter.paint(2, 0)
    boxes = np.stack([face_box(label), face_box(label) + 5])
    for ours, theirs in zip(
        *(Predictor.load(f)(image, boxes=boxes) for f in (checkpoint, exported)), strict=True
    ):
        np.testing.assert_allclose(ours.points, theirs.points, atol=0.05)
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=0.01)


def test_a_colour_model_is_exported(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    network = HeatMaps(width=4, channels=3).eval()
    content["fkp"]["network"]["channels"], content["fkp"]["gray"] = 3, False
    content["state_dict"] = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save(content, tmp_path / "colour.ckpt")
    export(tmp_path / "colour.ckpt", tmp_path / "colour.onnx", np.repeat(CROPS[..., None], 3, 3))
    image, label = painter.paint(2, 0)
    assert len(Predictor.load(tmp_path / "colour.onnx")(image, boxes=face_box(label)[None])) == 1


def test_a_file_that_differs_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(self: SoftArgmax, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points = (
            self.points(self.coordinates(output))
            if not torch.jit.is_tracing()
            else output.mean((2, 3))[..., None]
        )
        return points.expand(-1, -1, 2), torch.ones_like(points[..., 0])

    monkeypatch.setattr(SoftArgmax, "decode", moved)
    monkeypatch.setattr(
        SoftArgmax, "coordinates", lambda self, output: self.encode(self._moments(output)[0])
    )
    with pytest.raises(FkpError, match=r"not kept, as it differs .* by \d+"):
        export(checkpoint, tmp_path / "wrong.onnx", CROPS)
    assert not list(tmp_path.iterdir())


def test_prediction_from_an_exported_file_does_not_import_torch(
    exported: Path, tmp_path: Path
) -> None:
    image, label = painter.paint(2, 0)
    photo = write_image(tmp_path / "photo.png", image)
    code = f"""
import sys
from fkp import Predictor
faces = Predictor.load({str(exported)!r})({str(photo)!r}, boxes=[{face_box(label).tolist()}])
assert len(faces) == 1 and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_other_files_are_refused(exported: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(exported))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    (tmp_path / "text.onnx").write_text("no model")
    for name, message in (
        ("bare", "has no recipe"),
        ("text", "not a file that onnxruntime can run"),
        ("gone", "no such checkpoint"),
    ):
        with pytest.raises(FkpError, match=f"{name}.onnx: {message}"):
            Predictor.load(tmp_path / f"{name}.onnx")


def nested(depth: int = 60) -> list[Any]:
    """Return few lists that hold each other: written out they are 2 ** depth."""
    return [nested_in := nested(depth - 1), nested_in] if depth else []


def changed(recipe: Any, *keys: str, value: Any) -> Any:
    """Copy a recipe with one value set, or removed where the value is `...`."""
    if not keys:
        return value
    copy = {name: old for name, old in recipe.items() if (name, value) != (keys[0], ...)}
    return (
        copy
        if value is ...
        else copy | {keys[0]: changed(recipe.get(keys[0]), *keys[1:], value=value)}
    )


# What is changed in a good recipe: where, to what, and a word of the message.
RECIPES = [
    (["version"], 2, "newer fkp"),
    ([], None, "has no recipe"),
    (["gray"], "yes", "gray"),
    (["more"], float("nan"), "plain values"),
    (["codec", "_target_"], "os.system", "'os.system' is not one of fkp's own"),
    (["transforms", "random_crop", "_target_"], "fkp.networks.torch", "not one of fkp's own"),
    (["transforms", "random_crop", "size"], 10**6, "size outside 1 to 1024"),
    (
        ["transforms"],
        {"frame": {"_target_": "fkp.transforms.FaceCrop", "scale": 1e5}},
        "do not fit each other",
    ),
    (["transforms", "face_crop", "scale"], "wide", "do not fit each other"),
    (["transforms", "face_crop", "width"], 3, "another version of fkp"),
    (["network", "weights"], "/etc/passwd", "network.weights"),
    (["markup", "points"], [1, 2], "markup is invalid"),
]


@pytest.mark.parametrize(("keys", "value", "reason"), RECIPES)
def test_an_invalid_recipe_is_refused_by_both_engines(
    checkpoint: Path, exported: Path, tmp_path: Path, keys: list[str], value: Any, reason: str
) -> None:
    import onnx

    content, model = torch.load(checkpoint, weights_only=True), onnx.load(str(exported))
    recipe = changed(content["fkp"], *keys, value=value)
    torch.save(content | {"fkp": recipe}, tmp_path / "hostile.ckpt")
    onnx.helper.set_model_props(model, {"fkp": json.dumps(recipe)})
    onnx.save(model, str(tmp_path / "hostile.onnx"))
    for name in ("hostile.ckpt", "hostile.onnx"):
        if keys[:2] == ["codec", "_target_"] and name.endswith("onnx"):
            continue  # decoding is part of the file, and no codec is built
        with pytest.raises(FkpError, match=rf"{name}: .*{reason}"):
            engines.load(tmp_path / name, "cpu")


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (["more"], nested(), "plain values"),
        (["network", "width"], 10**6, "its weights do not fit its network"),
        (
            ["network"],
            {"_target_": "fkp.networks.TwoConv", "width": 2**40},
            "do not fit its network|another version",
        ),
        (["network"], {"_target_": "fkp.codecs.SoftArgmax"}, "another version"),
        (
            ["network"],
            {"_target_": "fkp.networks.Transfer", "backbone": "fasterrcnn_resnet50_fpn"},
            "network.backbone",
        ),
        (["codec", "calibration"], [1, 2, 3], "do not fit each other"),
        (["codec"], {"_target_": "fkp.codecs.Coordinates"}, "does not answer with 68 points"),
        (["codec"], {"_target_": "fkp.codecs.Codec"}, "another version"),
    ],
)
def test_networks_and_codecs_that_do_not_fit_are_refused(
    checkpoint: Path, tmp_path: Path, keys: list[str], value: Any, reason: str
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    torch.save(
        content | {"fkp": changed(content["fkp"], *keys, value=value)}, tmp_path / "hostile.ckpt"
    )
    with pytest.raises(FkpError, match=rf"hostile.ckpt: .*({reason})"):
        engines.load(tmp_path / "hostile.ckpt", "cpu")


def test_refusing_a_large_network_takes_little_memory(checkpoint: Path, tmp_path: Path) -> None:
    """With a width of 1000, the network would take 10 GB."""
    content = torch.load(checkpoint, weights_only=True)
    torch.save(
        content | {"fkp": changed(content["fkp"], "network", "width", value=1000)},
        tmp_path / "hostile.ckpt",
    )
    code = f"""
import pathlib, resource
from fkp.inference import engines
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = engines.load(pathlib.Path({str(checkpoint)!r}), "cpu") and used()
try:
    engines.load(pathlib.Path({str(tmp_path / "hostile.ckpt")!r}), "cpu")
except Exception as error:
    print(used() - before, type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used, error = done.stdout.split()
    assert int(used) < 100 and error == "FkpError"


def test_weights_that_do_not_fit_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for state, reason in [
        (
            {
                name: weight[:5] if "maps" in name else weight
                for name, weight in content["state_dict"].items()
            },
            "not fit",
        ),
        (dict.fromkeys(content["state_dict"], 3), "not fit"),
        ([1, 2], "not fit"),
        (
            {name: weight * torch.nan for name, weight in content["state_dict"].items()},
            "does not answer with 68 points",
        ),
    ]:
        torch.save(content | {"state_dict": state}, tmp_path / "hostile.ckpt")
        with pytest.raises(FkpError, match=f"hostile.ckpt: .*{reason}"):
            engines.load(tmp_path / "hostile.ckpt", "cpu")


def model(
    exported: Path,
    *nodes: Any,
    outputs: tuple[str, ...] = ("points", "confidence"),
    tensors: Any = (),
) -> bytes:
    """Return an ONNX file with these nodes and the recipe of an exported file."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["faces", 64, 64])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializer=tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, {"fkp": json.dumps(engines.load(exported).recipe.as_dict())})
    return made.SerializeToString()


def test_graphs_that_do_not_return_points_are_refused(exported: Path, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    (tmp_path / "secret").write_bytes(bytes(64))
    outside = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL
    )
    outside.external_data.add(key="location", value="../secret")
    few = [
        helper.make_node("Cast", ["crops"], [name], to=TensorProto.FLOAT)
        for name in ("points", "confidence")
    ]
    huge = helper.make_tensor("huge", TensorProto.INT64, [1], [2**40])
    fill = helper.make_node("ConstantOfShape", ["huge"], ["points"])
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder/hostile.onnx"
    for content, reason in [
        (
            model(exported, *few, tensors=[outside]),
            "weights in another file",
        ),
        (model(exported, *few), "does not answer with 68 points"),
        (model(exported, few[0], outputs=("points",)), "onnxruntime cannot run it"),
        (
            model(exported, fill, few[1], tensors=[huge]),
            "cannot run it|not a file that onnxruntime can run",
        ),
    ]:
        file.write_bytes(content)
        with pytest.raises(FkpError, match=f"hostile.onnx: .*({reason})"):
            engines.load(file)


@settings(max_examples=60, deadline=None)
@given(fraction=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_an_exported_file_is_detected(
    exported: Path, fraction: float, bit: int
) -> None:
    content = bytearray(exported.read_bytes())
    # Not in the seal itself: a flip there at worst unseals a file that is intact.
    place = int(fraction * (len(content) - SEAL_BYTES))
    content[place] ^= 1 << bit
    file = exported.with_name("flipped.onnx")
    file.write_bytes(content)
    with pytest.raises(FkpError, match="damaged, its SHA-256 differs"):
        engines.load(file)
    file.write_bytes(exported.read_bytes()[:place])
    with pytest.raises(FkpError, match="not a file that onnxruntime can run|has no recipe"):
        engines.load(file)


@pytest.mark.slow
def test_the_script_exports_a_file_that_predict_takes(trained: Run, tmp_path: Path) -> None:
    ckpt = trained[0] / "checkpoints/best.ckpt"
    done = call("export.py", f"ckpt={ckpt}", "out=models/model.onnx", "faces=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "differs by" in done.stdout and (tmp_path / "models/model.onnx").is_file()
    image, _ = painter.paint(2, 0)
    photo = write_image(tmp_path / "photo.png", image)
    done = call("predict.py", f"image={photo}", "ckpt=models/model.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("outputs/predictions/*/photo.json")
    assert json.loads(record.read_text())["ckpt"] == "models/model.onnx"
