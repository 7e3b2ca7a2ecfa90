"""The recipe is made from a configuration, kept as plain values, and checked when it is read."""

import copy
import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch

from fkp.codecs import SoftArgmax
from fkp.errors import FkpError
from fkp.inference import engines
from fkp.markup import IBUG68, load_markup
from fkp.networks import HeatMaps
from fkp.recipe import KEY, MAX_VALUES, Recipe, current_names
from fkp.transforms import FaceCrop, RandomCrop, RandomFlip, Rescale
from fkp.weights import EXPORTED, FILE

FILE_NAME = Path("some.ckpt")

OLD_POINTS = """
    jaw_right_1 jaw_right_2 jaw_right_3 jaw_right_4 jaw_right_5 jaw_right_6 jaw_right_7
    jaw_right_8 chin jaw_left_8 jaw_left_7 jaw_left_6 jaw_left_5 jaw_left_4 jaw_left_3
    jaw_left_2 jaw_left_1 brow_right_1 brow_right_2 brow_right_3 brow_right_4 brow_right_5
    brow_left_5 brow_left_4 brow_left_3 brow_left_2 brow_left_1 nose_bridge_1 nose_bridge_2
    nose_bridge_3 nose_bridge_4 nostril_right_1 nostril_right_2 nose_base nostril_left_2
    nostril_left_1 eye_right_outer eye_right_top_1 eye_right_top_2 eye_right_inner
    eye_right_bottom_2 eye_right_bottom_1 eye_left_inner eye_left_top_2 eye_left_top_1
    eye_left_outer eye_left_bottom_1 eye_left_bottom_2 lip_right_corner lip_right_top_1
    lip_right_top_2 lip_top lip_left_top_2 lip_left_top_1 lip_left_corner lip_left_bottom_1
    lip_left_bottom_2 lip_bottom lip_right_bottom_2 lip_right_bottom_1 mouth_right_corner
    mouth_right_top mouth_top mouth_left_top mouth_left_corner mouth_left_bottom
    mouth_bottom mouth_right_bottom
"""

# The recipe of the weights shipped in 2026-11, with the names of that time. Two values differ, so
# that no default can hide a lost name: `whole` was absent, and `share` was 0.5.
OLD: dict[str, Any] = {
    "version": 1,
    "network": {"_target_": "fkp.networks.HeatMaps", "_partial_": True, "width": 16},
    "codec": {
        "_target_": "fkp.codecs.SoftArgmax",
        "size": 128,
        "unit": 1.28,
        "calibration": [-16.03207716728304, -4.703148771334637],
    },
    "transforms": {
        "frame": {
            "_target_": "fkp.transforms.FaceCrop",
            "scale": 1.25,
            "lower": 0.16,
            "shift": 0.04,
            "zoom": 0.08,
            "turn": 8.0,
            "tail": 0.3,
            "stretch": 0.04,
            "whole": True,
        },
        "rescale": {"_target_": "fkp.transforms.Rescale", "size": 128},
        "crop": {"_target_": "fkp.transforms.RandomCrop", "size": 128},
        "flip": {"_target_": "fkp.transforms.RandomFlip", "share": 0.25},
    },
    "gray": True,
    "lean": 0.008,
    "markup": {
        "name": "ibug68",
        "points": OLD_POINTS.split(),
        "pair": ["eye_right_outer", "eye_left_outer"],
        "regions": {
            "jaw": [0, 16],
            "brows": [17, 26],
            "nose": [27, 35],
            "eyes": [36, 47],
            "lips": [48, 67],
        },
        "lines": {
            "open": [[0, 16], [17, 21], [22, 26], [27, 30], [31, 35]],
            "ring": [[36, 41], [42, 47], [48, 59], [60, 67]],
        },
        "box": {"up": 0.148, "side": 1.18},
    },
}


def changed(*keys: str, value: Any) -> dict[str, Any]:
    """A good recipe of today with one value set, or taken out where the value is `...`."""
    values = copy.deepcopy(Recipe.from_file(OLD, FILE_NAME).as_dict())
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if value is ...:
        del inner[keys[-1]]
    return values


def nested(depth: int = 60) -> list[Any]:
    """Return few lists that hold each other: written out they are 2 ** depth."""
    if not depth:
        return []
    inner = nested(depth - 1)
    return [inner, inner]


def test_an_old_recipe_builds_what_it_described() -> None:
    before = copy.deepcopy(OLD)
    recipe = Recipe.from_file(OLD, FILE_NAME)
    assert before == OLD
    assert recipe.label_offset == 0.008 and recipe.gray and recipe.markup == IBUG68
    assert list(recipe.transforms) == ["face_crop", "rescale", "random_crop", "random_flip"]

    face_crop, rescale, random_crop, random_flip = recipe.build_transforms()
    assert isinstance(face_crop, FaceCrop) and isinstance(rescale, Rescale)
    assert isinstance(random_crop, RandomCrop) and isinstance(random_flip, RandomFlip)
    assert (face_crop.scale, face_crop.offset_y, face_crop.rotation) == (1.25, 0.16, 8.0)
    assert face_crop.tail_p == 0.3 and face_crop.full_image is True
    assert rescale.size == random_crop.size == 128 and random_flip.p == 0.25

    codec, network = recipe.build_codec(), recipe.build_network()
    assert isinstance(codec, SoftArgmax) and (codec.size, codec.unit) == (128, 1.28)
    assert isinstance(network, HeatMaps)
    assert network(torch.zeros(1, 1, 128, 128)).shape[:2] == (1, 68)
    assert (
        recipe.calibration
        == tuple(codec.calibration or ())
        == (-16.03207716728304, -4.703148771334637)
    )


@pytest.mark.parametrize("file", [FILE, EXPORTED], ids=lambda file: file.suffix)
def test_the_shipped_files_load(file: Path) -> None:
    recipe = engines.load(file, "cpu").recipe
    assert recipe.label_offset == 0.008 and recipe.calibration is not None
    assert recipe.markup == IBUG68 and recipe.file == file


def test_todays_names_stay_as_they_are() -> None:
    values = Recipe.from_file(OLD, FILE_NAME).as_dict()
    assert current_names(values) == values


def test_a_recipe_is_plain_and_comes_back_equal() -> None:
    recipe = Recipe.from_file(OLD, FILE_NAME)
    again = Recipe.from_file(json.loads(json.dumps(recipe.as_dict())), Path("other.onnx"))
    assert again == recipe and again.as_dict() == recipe.as_dict()


def test_a_recipe_cannot_be_changed_but_calibrated_anew() -> None:
    recipe = Recipe.from_file(OLD, FILE_NAME)
    with pytest.raises(FrozenInstanceError):
        recipe.gray = False  # type: ignore[misc]
    assert recipe.with_calibration(None) is recipe
    assert recipe.with_calibration((1.0, 2.0)).calibration == (1.0, 2.0)
    assert recipe.calibration == (-16.03207716728304, -4.703148771334637)


def test_a_configuration_makes_a_recipe() -> None:
    network = {
        "_target_": "fkp.networks.HeatMaps",
        "_partial_": True,
        "width": 4,
        "weights": "a.pth",
    }
    codec = {"_target_": "fkp.codecs.SoftArgmax"}
    values = {
        "model": {"network": network, "codec": codec, "label_offset": 0.01},
        "datamodule": {"gray": False},
        "transforms": {"rescale": {"_target_": "fkp.transforms.Rescale", "size": 64}},
    }
    markup = load_markup("face5")
    recipe = Recipe.from_config(values, markup)
    assert recipe.network["weights"] is None and network["weights"] == "a.pth"
    assert (recipe.label_offset, recipe.gray, recipe.markup) == (0.01, False, markup)
    assert recipe.calibration is None and recipe.codec == codec
    del values["model"]["label_offset"]
    assert Recipe.from_config(values, markup).label_offset == 0


def test_the_measured_frame_is_part_of_the_recipe() -> None:
    frame = {"points": [[0.1, 0.2]] * 4 + [None], "share": 0.4, "roll": True}
    values = changed("markup", value={**load_markup("face5").as_dict(), "frame": frame})
    recipe = Recipe.from_file(values, FILE_NAME)
    assert recipe.markup.frame == frame and recipe.as_dict()["markup"]["frame"] == frame


@pytest.mark.parametrize("values", [None, [1, 2], "recipe", nested()])
def test_a_file_without_a_recipe_is_refused(values: Any) -> None:
    with pytest.raises(FkpError, match="some.ckpt: has no recipe"):
        Recipe.from_file(values, FILE_NAME)


@pytest.mark.parametrize(
    ("keys", "value", "word"),
    [
        (["version"], 2, "newer"),
        pytest.param(["version"], 10**5000, "newer", id="a version of 5000 digits"),
        (["version"], "new", "version"),
        (["version"], nested(), "version"),
        (["version"], ..., "version"),
        (["network"], ..., "network"),
        (["codec"], ..., "codec"),
        (["transforms"], ..., "transforms"),
        (["gray"], ..., "gray"),
        (["markup"], ..., "markup"),
        (["gray"], "yes", "gray"),
        (["label_offset"], "much", "label_offset"),
        (["more"], float("nan"), "plain"),
        (["more"], 2**60, "plain"),
        (["more"], {1: 2}, "plain"),
        (["more"], b"bytes", "plain"),
        (["more"], list(range(MAX_VALUES)), "plain"),
        (["more"], nested(), "plain"),
        (["transforms", "rescale", "_target_"], nested(), "plain"),
        (["transforms", "rescale"], "large", "transforms.rescale"),
        (["transforms", "rescale", "size"], 10**9, "size outside 1 to 1024"),
        (["network", "size"], 0, "size outside 1 to 1024"),
        (["codec", "size"], [1], "size outside 1 to 1024"),
        (["network", "channels"], 10**5, "channels outside 1 to 3"),
        (["network", "weights"], "/etc/passwd", "network.weights"),
        (["markup", "points"], [1, 2], "markup"),
        (["markup", "pair"], ["nose", "moon"], "markup"),
        (["markup", "colour"], "red", "markup"),
    ],
)
def test_an_invalid_recipe_is_refused(keys: list[str], value: Any, word: str) -> None:
    with pytest.raises(FkpError, match=f"some.ckpt: .*{word}"):
        Recipe.from_file(changed(*keys, value=value), FILE_NAME)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "fkp.networks.torch",
        "fkp.networks.nothing",
        "fkp.networks.read",
        "fkp.files",
        "",
        "HeatMaps",
    ],
)
def test_only_fkps_own_classes_are_built(target: str) -> None:
    recipe = Recipe.from_file(changed("network", "_target_", value=target), FILE_NAME)
    with pytest.raises(FkpError, match="some.ckpt: .*not one of fkp's own classes"):
        recipe.build_network()


def test_arguments_that_a_class_does_not_take_are_refused() -> None:
    recipe = Recipe.from_file(changed("codec", "colour", value=3), FILE_NAME)
    with pytest.raises(FkpError, match="some.ckpt: SoftArgmax .*colour"):
        recipe.build_codec()


def test_a_trained_checkpoint_holds_its_recipe(trained: tuple[Path, str]) -> None:
    file = trained[0] / "checkpoints/best.ckpt"
    values = torch.load(file, weights_only=True)[KEY]
    assert json.loads(json.dumps(values)) == values
    assert Recipe.from_file(values, file).as_dict() == values
