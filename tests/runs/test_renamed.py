"""A key of the previous release is one message that names its successor."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fkp.errors import FkpError
from fkp.runs import config, keys, renamed

RENAMED = [
    ("predict", "passes", "refine_steps"),
    ("evaluate", "passes", "refine_steps"),
    ("evaluate", "part", "split"),
    ("train", "data.split", "data.protocol"),
    ("evaluate", "data.split", "data.protocol"),
    ("train", "changed", "allow_changes"),
    ("train", "crop.frame.lower", "transforms.face_crop.offset_y"),
    ("train", "crop.frame.turn", "transforms.face_crop.rotation"),
    ("train", "crop.frame.tail", "transforms.face_crop.tail_p"),
    ("train", "crop.frame.whole", "transforms.face_crop.full_image"),
    ("train", "crop.frame.scale", "transforms.face_crop.scale"),
    ("train", "crop.rescale.size", "transforms.rescale.size"),
    ("train", "crop.crop.size", "transforms.random_crop.size"),
    ("train", "crop.flip.share", "transforms.random_flip.p"),
    ("train", "augment.blur.share", "augment.blur.p"),
    ("train", "augment.occlusion.share", "augment.occlusion.p"),
    ("train", "augment.compression.share", "augment.compression.p"),
    ("train", "augment.blur.deviation", "augment.blur.sigma"),
    ("train", "augment.noise.deviation", "augment.noise.std"),
    ("train", "model.lean", "model.label_offset"),
    ("train", "model.likelihood", "model.nll_weight"),
    ("train", "callbacks.sheets", "callbacks.face_grids"),
]


def root_of(script: str) -> DictConfig:
    root = OmegaConf.load(ROOT / f"conf/{script}.yaml")
    assert isinstance(root, DictConfig)
    return root


def faults(script: str, *arguments: str) -> list[str]:
    root = root_of(script)
    known = [*map(str, root), *keys.groups_of(root)]
    return list(renamed.faults_of_arguments(arguments, known))


@pytest.mark.parametrize(("script", "old", "new"), RENAMED)
@pytest.mark.parametrize("override", ["{}=1", "+{}=1", "++{}=1", "~{}", "~{}=1", "{}=1,2"])
def test_an_old_key_names_the_new_one(script: str, old: str, new: str, override: str) -> None:
    assert faults(script, "-m", override.format(old)) == [f"{old}: renamed to {new}"]


@pytest.mark.parametrize(("script", "old", "new"), RENAMED)
def test_an_old_key_in_a_file_names_the_new_one(script: str, old: str, new: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(script, ["run_dir=outputs/test"])
    OmegaConf.set_struct(cfg, False)
    OmegaConf.update(cfg, old, 1, force_add=True)
    with pytest.raises(FkpError) as error:
        config.check(cfg, root_of(script))
    assert str(error.value) == f"{old}: renamed to {new}"


@pytest.mark.parametrize("new", sorted({new for script, _, new in RENAMED if script == "train"}))
def test_the_new_keys_exist(new: str) -> None:
    overrides = ["run_dir=outputs/test", "model=heatmap", "data=youtube_faces"]
    overrides += ["+transforms.face_crop.tail_p=0.1", "+transforms.face_crop.full_image=true"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides)
    parent, _, name = new.rpartition(".")
    assert name in (OmegaConf.select(cfg, parent) if parent else cfg)


def test_other_keys_and_scripts_are_left_alone() -> None:
    assert not faults("train", "seed=1", "part=val", "passes=1", "--help", "crops.x=1")
    assert not faults("train", "data.sources=[youtube_faces]", "data=synthetic")
    assert not faults("predict", "image=crop.frame.lower", "+model.lean=1")


@pytest.mark.parametrize(
    ("old", "mode"), [("weights", "finetune"), ("ckpt_path", "resume"), ("repeat", "repeat")]
)
def test_an_old_way_to_start_names_the_new_one(old: str, mode: str) -> None:
    new = f"{old}: renamed to start.from=a/b start.mode={mode}"
    assert faults("train", f"{old}=a/b") == faults("train", f"+{old}=a/b") == [new]
    assert not faults("train", f"model.network.{old}=a/b") and not faults("predict", f"{old}=a")


@pytest.mark.parametrize("override", ["data=real", "+data=real", "data=synthetic,real"])
def test_an_old_option_names_the_new_one(override: str) -> None:
    (fault,) = faults("train", override)
    assert fault == "data=real: renamed to data=youtube_faces_300w"


def test_the_command_line_ends_with_2(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "crop.flip.share=0.5", "+model.lean=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.splitlines() == [
        "crop.flip.share: renamed to transforms.random_flip.p",
        "model.lean: renamed to model.label_offset",
    ]
