"""Run `train.py experiment=own_points` on painted faces."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import call

from fkp import Predictor, painter
from fkp.errors import FkpError
from fkp.files.images import write_image
from fkp.geometry import face_box
from fkp.markup import IBUG68
from fkp.metrics import nme
from fkp.module import KeypointModule
from fkp.recipe import Recipe
from fkp.runs import checkpoints

# Eye corners, the tip of the nose, the corners of the mouth; the names tell the mirror pairs.
OWN = {"eye_right": 36, "eye_left": 45, "nose": 30, "mouth_right": 48, "mouth_left": 54}
COUNT = 18


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own points of painted faces, in a CSV whose columns name them, one label missing."""
    root = tmp_path_factory.mktemp("own")
    header = ["image", *(f"{name}_{axis}" for name in OWN for axis in "xy")]
    with (root / "keypoints.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        for i in range(COUNT):
            image, points = painter.paint(5, i)
            write_image(root / "images" / f"face{i:02d}.png", image)
            cells = points[list(OWN.values())].round(2).ravel().tolist()
            table.writerow([f"face{i:02d}.png", *(["", "", *cells[2:]] if i == 3 else cells)])
    markup = {"name": "own5", "points": list(OWN), "pair": ["eye_right", "eye_left"]}
    (root / "own5.yaml").write_text(yaml.safe_dump(markup))
    return root


def arguments(folder: Path, *more: str) -> list[str]:
    of_data = ["data=csv", f"data.root={folder}", f"data.markup={folder / 'own5.yaml'}"]
    return ["train.py", "experiment=own_points", *of_data, *more]


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    done = call(*arguments(folder, f"run_dir={out}"), cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_all_faces_are_used_and_each_is_scored_by_a_map_without_its_person(
    run: Path, folder: Path
) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["cv/faces"] == COUNT and metrics["val/best_nme"] == metrics["cv/nme"]
    assert 0 < metrics["cv/nme"] < 8  # the mean face has more than 10
    with (run / "out_of_fold.csv").open() as file:
        errors = [row["nme"] for row in csv.DictReader(file)]
    # A face without its eye corner has no unit.
    scored = [float(error) for error in errors if error]
    assert (len(errors), len(scored)) == (COUNT, COUNT - 1)
    assert np.mean(scored) == pytest.approx(metrics["cv/nme"], abs=0.01)
    assert (run / "test_faces.png").stat().st_size > 0

    # The map that is kept has seen them all.
    predictor = Predictor.load(run / "checkpoints/best.ckpt", device="cpu")
    assert predictor.markup.points == list(OWN)
    found, labels = [], []
    for i in range(COUNT):
        image, points = painter.paint(5, i)
        (face,) = predictor(image, boxes=face_box(points)[None])
        assert 0 < face.confidence.min() <= face.confidence.max() < 1
        found.append(face.points)
        labels.append(points[list(OWN.values())])
    assert 100 * nme(np.array(found), np.array(labels), predictor.markup).mean() < metrics["cv/nme"]


@pytest.mark.slow
def test_an_evaluation_on_the_same_faces_says_so(run: Path, folder: Path) -> None:
    of_data = arguments(folder)[2:]
    command = ["evaluate.py", *of_data, f"ckpt={run / 'checkpoints/best.ckpt'}", "detector=haar"]
    done = call(*command, f"run_dir={run / 'evaluation'}", cwd=run)
    metrics = json.loads(done.stdout.splitlines()[-1])
    assert metrics["trained_on_label_box"] == metrics["trained_on_detector"] > 0


@pytest.mark.slow
def test_a_fold_is_not_fitted_to_and_steps_finetune(folder: Path, tmp_path: Path) -> None:
    more = ("data.folds=3", "data.fold=0", "steps=2", f"run_dir={tmp_path / 'out'}")
    done = call(*arguments(folder, *more, "trainer.precision=32-true"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert 0 < metrics["test/nme"] < 20
    finetuned = "val/nme_finetuned" in metrics
    assert finetuned != ("cv/nme" in metrics)
    with (tmp_path / "out/test_faces.csv").open() as file:
        assert len(list(csv.DictReader(file))) == COUNT // 3


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (["transforms.random_crop.size=112"], "transforms.rescale.size"),
        (["transforms.face_crop.scale=2"], "transforms.face_crop.scale"),
    ],
)
@pytest.mark.slow
def test_other_crops_than_the_trunks_are_refused(
    folder: Path, tmp_path: Path, more: list[str], key: str
) -> None:
    done = call(*arguments(folder, *more, f"run_dir={tmp_path / 'out'}"), cwd=tmp_path)
    assert done.returncode == 2 and key in done.stderr


@pytest.mark.slow
def test_a_point_without_labels_is_refused_and_one_person_is_enough(
    folder: Path, tmp_path: Path
) -> None:
    markup = yaml.safe_load((folder / "own5.yaml").read_text())
    (tmp_path / "own6.yaml").write_text(yaml.safe_dump(markup | {"points": [*OWN, "chin"]}))
    more = [f"data.markup={tmp_path / 'own6.yaml'}", f"run_dir={tmp_path / 'a'}"]
    done = call(*arguments(folder, *more), cwd=tmp_path)
    assert done.returncode == 2 and "chin" in done.stderr

    one = ["data.identity='(face).*'", f"run_dir={tmp_path / 'b'}"]
    done = call(*arguments(folder, *one), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads((tmp_path / "b/metrics.json").read_text())["cv/nme"] < 8


def module_of(points: int, **recipe: object) -> KeypointModule:
    from functools import partial

    from fkp.codecs import SoftArgmax
    from fkp.networks import HeatMaps

    markup = replace(
        IBUG68, points=IBUG68.points[:points], regions={}, lines={}, pair=IBUG68.points[:2]
    )
    network = partial(HeatMaps, width=16)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    codec = SoftArgmax(128, 1.28)
    return KeypointModule(network, codec, torch.nn.L1Loss(), optimizer, markup=markup)


def test_weights_of_other_points_keep_every_tensor_that_fits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = module_of(9)
    checkpoints.start_from(module, "shipped")
    shipped = module_of(68)
    shipped.markup = IBUG68
    checkpoints.start_from(shipped, "shipped")

    own, theirs = module.network.state_dict(), shipped.network.state_dict()
    new = {name for name in own if own[name].shape != theirs[name].shape}
    assert new == {"maps.weight", "maps.bias"}
    assert all(torch.equal(own[name], theirs[name]) for name in set(own) - new)
    assert "maps.bias, maps.weight" in caplog.text


def test_weights_of_another_network_are_refused() -> None:
    module = module_of(9)
    module.network = torch.nn.Linear(2, 3)
    with pytest.raises(FkpError) as error:
        checkpoints.start_from(module, "shipped")
    assert error.value.key == "start.from"


def test_recipes_describe_nested_networks() -> None:
    trunk = {"_target_": "fkp.networks.HeatMaps", "points": 68, "width": 2}
    codec = {"_target_": "fkp.codecs.SoftArgmax", "size": 64}
    network = {"_target_": "fkp.point_map.PointMap", "trunk": trunk, "codec": codec}
    located = {"_target_": "fkp.codecs.Located", "size": 64, "unit": 0.64}
    recipe = Recipe(network, located, {}, replace(IBUG68, box=None), trained_on=(1, 2))
    again = Recipe.from_file(json.loads(json.dumps(recipe.as_dict())), Path("a.ckpt"))
    assert again == recipe and again.build_network().trunk.maps.out_channels == 68

    for hostile in ({"weights": "a.pt"}, {"_target_": "os.system"}, {"channels": 9}):
        values = recipe.as_dict()
        values["network"] = network | {"trunk": trunk | hostile}
        with pytest.raises(FkpError) as error:
            Recipe.from_file(values, Path("a.ckpt")).build_network()
        assert "a.ckpt" in str(error.value)
