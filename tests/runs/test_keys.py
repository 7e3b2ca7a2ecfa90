"""Unused keys and values out of range are refused by name, with a suggestion; valid ones pass."""

import codecs
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fkp.detectors import HaarCascade, YuNet
from fkp.errors import FkpError
from fkp.runs import command_line, config, results


def faults(script: str, *overrides: str) -> list[str]:
    """Return the faults of a script's configuration."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(script, ["run_dir=outputs/test", *overrides])
    root = OmegaConf.load(ROOT / f"conf/{script}.yaml")
    assert isinstance(root, DictConfig)
    try:
        config.check(cfg, root)
    except FkpError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("script", "overrides", "fault", "meant"),
    [
        ("train", ["+batch_size=3"], "batch_size", "datamodule.batch_size"),
        ("train", ["+lr=99"], "lr", "model.optimizer.lr"),
        ("train", ["+detector=haar"], "detector", "no such key"),
        (
            "train",
            ["+callbacks.face_grid.count=3"],
            "callbacks.face_grid",
            "callbacks.face_grids",
        ),
        ("train", ["+augment.blurr.p=0.1"], "augment.blurr", "augment.blur"),
        ("train", ["~model"], "model", "no option"),
        ("predict", ["image=x", "+confidence=0.9"], "confidence", "min_confidence"),
        ("predict", ["image=[a,b]"], "image", "one value"),
        ("predict", ["image=x", "pts=5"], "pts", "bool"),
        ("export", ["+opset=17"], "opset", "no such key"),
        ("doctor", ["+detector=yunet"], "detector", "no such key"),
        ("evaluate", ["split="], "split", "no value"),
        ("predict", ["image=a.jpg", "refine_steps=null"], "refine_steps", "no value"),
    ],
)
def test_an_unused_key_is_reported(
    script: str, overrides: list[str], fault: str, meant: str
) -> None:
    found = faults(script, *overrides)
    assert any(line.startswith(f"{fault}: ") and meant in line for line in found), found


@pytest.mark.parametrize(
    ("script", "override"),
    [
        ("train", "datamodule.num_workers=-1"),
        ("train", "datamodule.batch_size=0"),
        ("train", "trainer.max_epochs=-1"),
        ("train", "model.optimizer.lr=-0.1"),
        ("train", "model.network.dropout=[0.1,2]"),
        ("train", "transforms.random_flip.p=1.5"),
        ("train", "data.count=0"),
        ("train", "seed=-1"),
        ("evaluate", "refine_steps=-3"),
        ("evaluate", "refine_steps=2.5"),
        ("evaluate", "min_confidence=20"),
        ("evaluate", "min_confidence=nan"),
        ("evaluate", "detector.smallest=0"),
        ("export", "faces=0"),
        ("doctor", "worst=-1"),
        ("predict", "frames=0"),
        ("predict", "frames=abc"),
        ("predict", "follow.cutoff=0"),
    ],
)
def test_a_value_out_of_range_is_reported(script: str, override: str) -> None:
    more = ["image=x"] if script == "predict" else []
    assert any(
        line.startswith(override.partition("=")[0] + ": ")
        for line in faults(script, override, *more)
    )


@pytest.mark.parametrize(
    ("script", "overrides"),
    [
        (
            "train",
            ["+trainer.limit_train_batches=20", "trainer.logger=false", "~logger", "~callbacks"],
        ),
        (
            "train",
            [
                "+width=4",
                "model.network.width=${width}",
                "callbacks.face_grids=null",
                "datamodule.margin=null",
            ],
        ),
        (
            "train",
            [
                "start.from=some/folder",
                "transforms.random_flip.p=1",
                "trainer.gradient_clip_val=0.5",
            ],
        ),
        ("evaluate", ["refine_steps=1", "min_confidence=0", "detector=yunet"]),
        ("predict", ["image=x", "frames=3", "device=cuda"]),
    ],
)
def test_valid_keys_and_values_pass(script: str, overrides: list[str]) -> None:
    assert faults(script, *overrides) == []


def test_constructors_refuse_what_is_out_of_range() -> None:
    for made in (
        lambda: HaarCascade(scale_factor=1.0),
        lambda: HaarCascade(longest=0),
        lambda: YuNet(longest=-1),
    ):
        with pytest.raises(FkpError, match="longest|scale_factor"):
            made()


def test_json_is_strict_and_rounded() -> None:
    record = {
        "a": np.float32(381.09),
        "b": math.nan,
        "c": -math.inf,
        "d": np.int64(3),
        "e": True,
        "f": "x",
        "g": None,
    }
    read = json.loads(results.as_json(record), parse_constant=pytest.fail)
    assert read == {"a": 381.09, "b": None, "c": None, "d": 3, "e": True, "f": "x", "g": None}


@pytest.mark.parametrize(
    "encoding", ["ascii", "latin-1", "cp437", "cp850", "cp932", "gbk", "cp1252", "utf-8"]
)
def test_characters_that_the_console_lacks_are_replaced(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding))
    command_line.tune_threads_and_malloc()
    for stream in (sys.stdout, sys.stderr):
        print("0:00 • 3 ± 1 … café ━━ 写真 \udce9", file=stream, flush=True)
        shown = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert shown.startswith("0:00 ") and "\\udce9" in shown and "?" not in shown
        if encoding == "ascii":
            assert "* 3 +- 1 ... caf\\xe9 --" in shown
    codecs.lookup_error("fkp.plainer")


def test_make_folder_makes_or_refuses_a_folder(tmp_path: Path) -> None:
    command_line.make_folder("run_dir", tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir() and not any((tmp_path / "a/b").iterdir())
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/x"):
        with pytest.raises(FkpError, match="run_dir"):
            command_line.make_folder("run_dir", folder)


def test_null_turns_off_keys_whose_default_is_a_word() -> None:
    assert not faults("predict", "image=a.jpg", "drawn=null", "follow=null")
