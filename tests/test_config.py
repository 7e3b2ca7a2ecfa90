"""A configuration's faults are all told at once, by key, with a suggestion, before anything is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from fkp import config, entry
from fkp.errors import FkpError

GOOD = {
    "network": {"_target_": "fkp.networks.TwoConv", "width": 8, "dropout": [0.1, 0.2]},
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
    "trainer": {"_target_": "pytorch_lightning.Trainer", "max_epochs": 3, "callbacks": None},
}


def faults(**changes: object) -> list[str]:
    """What `check` says of a good configuration with these dotted keys changed."""
    cfg = OmegaConf.create(GOOD)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True, merge=False)
    try:
        config.check(cfg)
    except FkpError as error:
        return str(error).splitlines()
    return []


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert faults() == []
    assert faults(trainer__max_epochs=None, network__width=16, optimizer__lr=1, trainer__precision="16-mixed") == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer__lrr", 1, "optimizer.lrr: torch.optim.SGD takes no 'lrr'; did you mean 'lr'?"),
        ("optimizer__lr", "abc", "optimizer.lr: 'abc' is not float | Tensor"),
        ("trainer__max_epochs", "abc", "trainer.max_epochs: 'abc' is not Optional[int]"),
        ("network__width", 1.5, "network.width: 1.5 is not int"),
        ("network__width", True, "network.width: True is not int"),
        ("network__dropout", [0.1], "network.dropout: [0.1] is not tuple[float, float]"),
        ("network___target_", "fkp.networks.TwoConf", "did you mean 'TwoConv'?"),
        ("network___target_", "fkp.netwrk.TwoConv", "network._target_: 'fkp.netwrk.TwoConv' does not exist"),
        ("network", "???", "network: has no value; give network=…"),
        ("network", "${gone}", "gone"),
        ("network", {"_target_": "fkp.transforms.Rescale"}, "network: fkp.transforms.Rescale needs 'size'"),
        (
            "network",
            {"_target_": "fkp.sources.youtube_faces.YoutubeFaces", "root": "x", "split": "identiy"},
            "network.split: 'identiy' is not one of official, identity; did you mean 'identity'?",
        ),
    ],
)
def test_each_kind_of_fault(key: str, value: object, message: str) -> None:
    (fault,) = faults(**{key: value})
    assert message in fault


def test_all_faults_are_told_at_once() -> None:
    told = faults(optimizer__lrr=1, network__width="x", trainer__max_epoch=2)
    assert len(told) == 3


def test_checking_imports_nothing_heavy() -> None:
    code = (
        "import sys; from omegaconf import OmegaConf; from fkp import config\n"
        f"config.check(OmegaConf.create({GOOD!r}))\n"
        "print([name for name in ('torch', 'pytorch_lightning', 'cv2', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_extra_arguments_are_handed_over_as_they_are() -> None:
    extra = {"_target_": "os.system", "command": "false"}
    built = config.build(OmegaConf.create({"_target_": "builtins.dict", "a": 1}), kept=extra)
    assert built == {"a": 1, "kept": extra}


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("image=photo.jpg", "image=photo.jpg"),
        ("image=my photo (1).jpg", 'image="my photo (1).jpg"'),
        ("image=a,b.jpg", 'image="a,b.jpg"'),
        ('image="quoted already.jpg"', 'image="quoted already.jpg"'),
        ("seed=1,2", "seed=1,2"),
        ("ckpt=null", "ckpt=null"),
    ],
)
def test_paths_need_no_quotes_for_hydra(given: str, parsed: str) -> None:
    assert entry._quoted(given) == parsed


SCRIPT = """
from fkp import entry
from fkp.errors import FkpError

@entry.main("root")
def run(cfg):
    if cfg.word == "mistake":
        raise FkpError("a mistake; do this instead")
    if cfg.word == "bug":
        raise RuntimeError("a bug")
    print("ran", cfg.word)

run()
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("script")
    (folder / "conf").mkdir()
    (folder / "conf/root.yaml").write_text("word: good\nhydra: {run: {dir: 'outputs/${now:%f}'}}\n")
    (folder / "run.py").write_text(SCRIPT)
    return folder / "run.py"


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        ([], 0, "ran good", ""),
        (["word=mistake"], 2, "", "a mistake; do this instead\n"),
        (["wrd=x"], 2, "", "wrd: no such key; did you mean word?\n"),
        (["+x={_target_: fkp.transforms.Rescale, siz: 3}"], 2, "", "did you mean 'size'?"),
        (["word"], 2, "", "word: not key=value"),
        (["-m", "word=a,b"], 0, "ran b", ""),
    ],
)
def test_mistakes_are_one_message_and_2(
    script: Path, arguments: list[str], code: int, out: str, err: str, tmp_path: Path
) -> None:
    done = subprocess.run([sys.executable, str(script), *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code and out in done.stdout and err in done.stderr
    assert "Traceback" not in done.stderr
    if code == 2 and arguments[0] != "word=mistake":
        assert not list(tmp_path.glob("outputs/*"))


def test_bugs_keep_their_traceback(script: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(script), "word=bug"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr and "a bug" in done.stderr


def test_shell_completion_and_help_do_not_wait_for_torch() -> None:
    environment = {"COMP_LINE": "python train.py model=", "COMP_POINT": "22", "PYTHONPROFILEIMPORTTIME": "1"}
    for flag in (["-sc", "query=bash"], ["--help"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *flag], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0 and "two_conv" in done.stdout
        assert "| torch\n" not in done.stderr.replace("  ", "") and "hydra" in done.stderr
