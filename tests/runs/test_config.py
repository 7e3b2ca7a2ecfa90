"""All faults of a configuration are reported at once, by key, before anything is imported."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from fkp.errors import FkpError
from fkp.runs import config, hydra_errors, parameter_types

GOOD = {
    "network": {"_target_": "fkp.networks.TwoConv", "width": 8, "dropout": [0.1, 0.2]},
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
    "trainer": {"_target_": "pytorch_lightning.Trainer", "max_epochs": 3, "callbacks": None},
}


def faults(**changes: object) -> list[str]:
    """Return the faults of a valid configuration with these keys changed; `__` is a dot."""
    cfg = OmegaConf.create(GOOD)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True, merge=False)
    try:
        config.check(cfg)
    except FkpError as error:
        return str(error).splitlines()
    return []


def test_a_valid_configuration_has_no_faults() -> None:
    assert faults() == []
    assert (
        faults(
            trainer__max_epochs=None,
            network__width=16,
            optimizer__lr=1,
            trainer__precision="16-mixed",
        )
        == []
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer__lrr", 1, "optimizer.lrr: torch.optim.SGD takes no 'lrr'; did you mean 'lr'?"),
        ("optimizer__momentum", "abc", "optimizer.momentum: 'abc' is not float"),
        ("trainer__max_epochs", "abc", "trainer.max_epochs: 'abc' is not Optional[int]"),
        ("network__width", 1.5, "network.width: 1.5 is not int"),
        ("network__width", True, "network.width: True is not int"),
        ("network__dropout", [0.1], "network.dropout: [0.1] is not tuple[float, float]"),
        ("network___target_", "fkp.networks.TwoConf", "did you mean 'TwoConv'?"),
        (
            "network___target_",
            "fkp.netwrk.TwoConv",
            "network._target_: 'fkp.netwrk.TwoConv' does not exist",
        ),
        ("network", "???", "network: has no value; give network=…"),
        ("network", "${gone}", "gone"),
        (
            "network",
            {"_target_": "fkp.transforms.Rescale"},
            "network: fkp.transforms.Rescale needs 'size'",
        ),
        (
            "network",
            {"_target_": "fkp.data.youtube_faces.YoutubeFaces", "root": "x", "protocol": "identiy"},
            "network.protocol: 'identiy' is not one of official, identity, strict; "
            "did you mean 'identity'?",
        ),
    ],
)
def test_each_kind_of_fault_is_reported(key: str, value: object, message: str) -> None:
    (fault,) = faults(**{key: value})
    assert message in fault


def test_all_faults_are_reported_at_once() -> None:
    found = faults(optimizer__lrr=1, network__width="x", trainer__max_epoch=2)
    assert len(found) == 3


def test_a_missing_value_hides_no_other_fault() -> None:
    found = faults(
        optimizer__lrr=1,
        network__width="???",
        trainer__max_epochs="${network.width}",
        trainer__devices="${no}",
    )
    assert len(found) == 3  # what depends on the missing value is not reported twice
    assert "network.width: has no value; give network.width=…" in found
    assert "trainer.devices: Interpolation key 'no' not found" in found
    assert any("takes no 'lrr'" in fault for fault in found)


def test_a_fault_that_an_interpolation_repeats_is_reported_once() -> None:
    assert len(faults(network__width="x", again="${network}")) == 1


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_args_": [68, 112]}, ""),
        ({"_args_": [112], "width": 8}, ""),
        ({"_args_": [112, "8"]}, "network._args_[1]: '8' is not int"),
        ({"_args_": [112, 8], "size": 8}, "network.size: is given in _args_ already"),
        ({"_args_": list(range(9))}, "network._args_: fkp.networks.TwoConv takes"),
        ({"_args_": 3}, "network._args_: 3 is not a list"),
        (
            {"_target_": "fkp.transforms.Rescale", "_args_": []},
            "network: fkp.transforms.Rescale needs 'size'",
        ),
        ({"_target_": "fkp.transforms.Rescale", "_args_": [100]}, ""),
        ({"_target_": "torch.nn.Sequential", "_args_": [1, 2]}, ""),
    ],
)
def test_positional_arguments_are_checked(node: dict[str, object], message: str) -> None:
    found = "\n".join(faults(network={"_target_": "fkp.networks.TwoConv", **node}))
    assert message in found if message else not found


def test_an_annotation_that_is_not_understood_accepts_everything() -> None:
    for annotation in ("'not python'", "Literal[-1, 'a']", "Literal[Kind.A]"):
        assert parameter_types.fits(5, ast.parse(annotation, mode="eval").body)


def test_checking_imports_nothing_heavy() -> None:
    code = (
        "import sys; from omegaconf import OmegaConf; from fkp.runs import config\n"
        f"config.check(OmegaConf.create({GOOD!r}))\n"
        "heavy = ('torch', 'pytorch_lightning', 'cv2', 'pandas')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_extra_arguments_are_passed_unchanged() -> None:
    extra = {"_target_": "os.system", "command": "false"}
    for partial in (False, True):
        node = OmegaConf.create({"_target_": "builtins.dict", "_partial_": partial, "a": 1})
        built = config.build(node, kept=extra)
        built = built() if partial else built
        assert built == {"a": 1, "kept": extra} and built["kept"] is extra


def test_build_returns_what_hydra_builds() -> None:
    inner = {"_target_": "builtins.dict", "x": "${n}"}
    node = OmegaConf.create(
        {
            "n": 3,
            "made": {
                "_target_": "builtins.dict",
                "list": [inner, 1],
                "dict": {"deep": inner},
                "none": None,
            },
            "left": {"_target_": "builtins.dict", "_recursive_": False, "inner": inner},
            "placed": {"_target_": "datetime.timedelta", "_args_": [1], "hours": 2},
            "later": {"_target_": "builtins.dict", "_partial_": True, "a": 1},
        }
    )
    assert config.build(node.made) == {
        "list": [{"x": 3}, 1],
        "dict": {"deep": {"x": 3}},
        "none": None,
    }
    assert config.build(node.left) == {"inner": {"_target_": "builtins.dict", "x": 3}}
    assert config.build(node.placed).total_seconds() == 26 * 3600
    assert pickle.loads(pickle.dumps(config.build(node.later)))(b=2) == {"a": 1, "b": 2}
    assert config.build(node.made, list=5)["list"] == 5


PARTS = """
from fkp.errors import FkpError

class Part:
    def __init__(self, value=None):
        if value == "mistake":
            raise FkpError("no such file")
        if value == "refused":
            raise ValueError(
                "value must be good"
            )
        if value == "misconfigured":
            raise type("MisconfigurationException", (Exception,), {})("no such GPU")
        if value == "bug":
            None + 1
        if value == "deep bug":
            int("x")
        if value == "other":
            raise RuntimeError("out of memory")
"""


@pytest.fixture()
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "generated_parts.py").write_text(PARTS)
    (tmp_path / "generated_bug.py").write_text("None + 1")
    (tmp_path / "generated_need.py").write_text("import nosuchpackage\nclass Part: ...")
    monkeypatch.syspath_prepend(tmp_path)


def inside(value: object, **more: object) -> object:
    """Return a node two levels deep, in a list."""
    part = {"_target_": "generated_parts.Part", "value": value, **more}
    return OmegaConf.create(
        {"outer": {"_target_": "builtins.dict", "parts": [{"_target_": "builtins.dict"}, part]}}
    )


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    ("value", "more", "message"),
    [
        ("mistake", {}, "outer.parts[1]: no such file"),
        ("refused", {}, "outer.parts[1]: value must be good"),
        ("misconfigured", {}, "outer.parts[1]: no such GPU"),
        (
            None,
            {"no": 1},
            "outer.parts[1]: Part.__init__() got an unexpected keyword argument 'no'",
        ),
    ],
)
def test_a_refusal_of_a_constructor_names_the_key(
    parts: None, partial: bool, value: str, more: dict[str, object], message: str
) -> None:
    with pytest.raises(config.ConfigError) as error:
        built = config.build(inside(value, _partial_=partial, **more).outer)  # type: ignore[attr-defined]
        built["parts"][1]()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("value", "kind"), [("bug", TypeError), ("deep bug", ValueError), ("other", RuntimeError)]
)
def test_a_bug_in_a_constructor_passes_unchanged(
    parts: None, value: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as error:
        config.build(inside(value))
    assert error.traceback[-1].path.name == "generated_parts.py" and error.value.__cause__ is None


def test_a_target_that_cannot_be_imported_names_the_key(parts: None) -> None:
    for target, message in [
        ("generated_parts.Nothing", "it._target_: (.|\n)*Nothing"),
        ("generated_need.Part", "it._target_: (.|\n)*nosuchpackage"),
        ("nopackage.X", "it._target_: (.|\n)*nopackage"),
        ("fkp.networks", "it._target_: Expected a callable target"),
        ("os.system", "it._target_: "),
    ]:
        with pytest.raises(config.ConfigError, match=message):
            config.build(OmegaConf.create({"it": {"_target_": target}}))
    with pytest.raises(TypeError, match="unsupported operand"):
        config.build(OmegaConf.create({"it": {"_target_": "generated_bug.X"}}))


def test_refusals_of_torch_and_lightning_name_the_key() -> None:
    torch = pytest.importorskip("torch")
    optimizer = OmegaConf.create(
        {"optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": -1}}
    )
    with pytest.raises(config.ConfigError, match=r"^optimizer: Invalid learning rate: -1$"):
        config.build(optimizer.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    trainer = OmegaConf.create(
        {"trainer": {"_target_": "pytorch_lightning.Trainer", "accelerator": "gpuu"}}
    )
    with pytest.raises(config.ConfigError, match=r"^trainer: .*accelerator='gpuu'"):
        config.build(trainer.trainer)


SCRIPT = """
import os

from fkp.runs import config

from fkp.runs import command_line
from fkp.errors import FkpError

@command_line.main("root")
def run(cfg):
    if cfg.word == "mistake":
        raise FkpError("a mistake; do this instead")
    if cfg.word == "bug":
        raise RuntimeError("a bug")
    if cfg.part:
        config.build(cfg.part)
    print("ran", cfg.word, os.environ.get("HYDRA_FULL_ERROR"))

try:
    run()
finally:
    print("after", os.environ.get("HYDRA_FULL_ERROR"))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("script")
    (folder / "conf").mkdir()
    (folder / "conf/root.yaml").write_text(
        "word: good\npart: null\nhydra: {run: {dir: 'outputs/${now:%f}'}}\n"
    )
    (folder / "conf/broken").mkdir()
    (folder / "conf/broken/yaml.yaml").write_text("a: 1\nb: [1\nc: 2\n")
    (folder / "run.py").write_text(SCRIPT)
    (folder / "generated_parts.py").write_text(PARTS)
    return folder / "run.py"


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        ([], 0, "ran good None\nafter None\n", ""),
        (["word=mistake"], 2, "", "a mistake; do this instead\n"),
        (["wrd=x"], 2, "", "wrd: no such key; did you mean word?\n"),
        (["+x={_target_: fkp.transforms.Rescale, siz: 3}"], 2, "", "did you mean 'size'?"),
        (["word"], 2, "", "word: has no value"),
        (["--word", "x"], 2, "", "write word="),
        (["wrd"], 2, "", "wrd: not key=value"),
        (["-m", "word=a,b"], 0, "ran b", ""),
        (
            ["+broken=yaml"],
            2,
            "after None",
            "conf/broken/yaml.yaml:3:2: expected ',' or ']', but got ':'\n",
        ),
        (
            ["hydra.job.num=x"],
            2,
            "",
            "hydra.job.num=x\nValue 'x' of type 'str' could not be converted to Integer\n",
        ),
        (["+word=x"], 2, "", "Or add a second + to add or override 'word': '++word=x'\n"),
        (["hydra.run.dir=${no}"], 2, "", "hydra.run.dir: Interpolation key 'no' not found\n"),
        (["broken@x=3"], 2, "", "must be a string or a list"),
        (["part={_target_: generated_parts.Part, value: mistake}"], 2, "", "part: no such file\n"),
        (
            ["+part.x={_target_: generated_parts.Part, value: refused}"],
            2,
            "",
            "part.x: value must be good\n",
        ),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_2(
    script: Path, arguments: list[str], code: int, out: str, err: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == code and out in done.stdout and err in done.stderr
    assert "Traceback" not in done.stderr
    if code == 2 and arguments[0] != "word=mistake":
        assert not list(tmp_path.glob("outputs/*"))


@pytest.mark.parametrize(("launcher", "extra"), [("submitit_slurm", "slurm"), ("joblib", "sweep")])
def test_a_launcher_that_is_not_installed_names_its_extra(
    tmp_path: Path, launcher: str, extra: str
) -> None:
    error = MissingConfigException("no", f"hydra/launcher/{launcher}")
    assert f'pip install -e ".[{extra}]"' in hydra_errors.reworded(error, tmp_path, "train")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("word=bug", "RuntimeError: a bug"),
        ("part={_target_: generated_parts.Part, value: bug}", "TypeError: unsupported operand"),
        ("part={_target_: generated_parts.Part, value: other}", "RuntimeError: out of memory"),
    ],
)
def test_bugs_keep_their_traceback(
    script: Path, tmp_path: Path, argument: str, message: str
) -> None:
    done = subprocess.run(
        [sys.executable, str(script), argument], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" in done.stderr and message in done.stderr


def test_hydra_full_error_shows_tracebacks(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, argument, traceback in (
        ("1", "wrd=x", True),
        ("1", "word=mistake", True),
        ("0", "wrd=x", False),
    ):
        monkeypatch.setenv("HYDRA_FULL_ERROR", value)
        done = subprocess.run(
            [sys.executable, str(script), argument], cwd=tmp_path, capture_output=True, text=True
        )
        assert f"after {value}" in done.stdout and ("Traceback" in done.stderr) == traceback


def test_shell_completion_and_help_do_not_wait_for_torch() -> None:
    environment = {
        "COMP_LINE": "python train.py model=",
        "COMP_POINT": "22",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    for flag in (["-sc", "query=bash"], ["--help"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *flag],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0 and "two_conv" in done.stdout
        assert "| torch\n" not in done.stderr.replace("  ", "") and "hydra" in done.stderr
