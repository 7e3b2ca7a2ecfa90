"""Every configuration composes, checks and builds."""

import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fkp.runs import config, trainer

GROUPS = {
    group.name: sorted(path.stem for path in group.glob("*.yaml"))
    for group in (ROOT / "conf").iterdir()
    if group.is_dir()
}
CHOICES = [f"{group}={name}" for group, names in GROUPS.items() for name in names]


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, [*overrides, "run_dir=outputs/test"])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_is_valid_and_builds(choice: str) -> None:
    file = ROOT / "conf" / f"{choice.replace('=', '/')}.yaml"
    root = ["data.root=somewhere"] if "\nroot: ???" in file.read_text() else []
    root += (
        ["model.network.weights=null"] if choice == "experiment=transfer" else []
    )  # no test downloads
    if choice.startswith("detector="):
        own = [f"detector.model={__file__}"] if choice == "detector=mediapipe" else []
        cfg = composed("predict", choice, "image=any.jpg", *own)
        config.check(cfg)
        assert config.build(cfg.detector) is not None
        return
    cfg = composed("train", choice, *root)
    config.check(cfg)
    for part in (cfg.data, cfg.datamodule, *cfg.callbacks.values()):
        assert config.build(part) is not None
    assert config.build(cfg.trainer, precision=trainer.precision(cfg.trainer.precision)) is not None
    assert (
        config.build(cfg.model, recipe={"network": {"_target_": "kept.as.it.Is"}}).recipe
        is not None
    )


def test_experiments_are_short_and_say_how_to_run_them() -> None:
    for file in (ROOT / "conf/experiment").glob("*.yaml"):
        lines = file.read_text().splitlines()
        assert len(lines) <= 20 and lines[1].startswith(f"# python train.py experiment={file.stem}")


@pytest.mark.parametrize("model", GROUPS["model"])
@pytest.mark.parametrize("size", [112, 160])
def test_network_and_codec_take_the_size_of_the_crop(model: str, size: int) -> None:
    cfg = composed(
        "train",
        f"model={model}",
        f"transforms.rescale.size={size}",
        f"transforms.random_crop.size={size}",
    )
    module = config.build(cfg.model)
    points = module(torch.zeros(2, 1, size, size))
    assert points.shape == (2, 68, 2) and cfg.model.codec.size == size


@pytest.mark.parametrize(
    ("able", "wanted", "precision"),
    [
        ({"avx512_bf16": True}, "auto", "bf16-mixed"),
        ({"avx512_bf16": False, "avx2": True}, "auto", "32-true"),
        ({}, "auto", "32-true"),
        ({}, "16-true", "16-true"),
        ({"avx512_bf16": True}, "32-true", "32-true"),
    ],
)
def test_auto_precision_is_half_on_processors_with_bf16(
    able: dict[str, bool], wanted: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert trainer.precision(wanted) == precision
