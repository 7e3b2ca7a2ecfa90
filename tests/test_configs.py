"""Every configuration composes, checks and builds."""

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fkp import config

GROUPS = {
    group.name: sorted(path.stem for path in group.glob("*.yaml"))
    for group in (ROOT / "conf").iterdir()
    if group.is_dir()
}
CHOICES = [f"{group}={name}" for group, names in GROUPS.items() for name in names]


def composed(name: str, *overrides: str) -> object:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(name, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.hydra.runtime.output_dir = "outputs/test"
    cfg.pop("hydra")
    cfg.run_dir = "outputs/test"
    return cfg


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_checks_and_builds(choice: str) -> None:
    root = ["data.root=somewhere"] if choice == "data=csv" else []
    cfg = composed("train", choice, *root)
    config.check(cfg)
    for part in (cfg.data, cfg.datamodule, cfg.detector, cfg.trainer, *cfg.callbacks.values()):
        assert config.build(part) is not None
    assert config.build(cfg.model, recipe={"network": {"_target_": "kept.as.it.Is"}}).recipe is not None


def test_experiments_are_short_and_say_how_to_run_them() -> None:
    for file in (ROOT / "conf/experiment").glob("*.yaml"):
        lines = file.read_text().splitlines()
        assert len(lines) <= 20 and lines[0].startswith(f"# python train.py experiment={file.stem}")
