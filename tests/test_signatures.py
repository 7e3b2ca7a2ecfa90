"""Signatures read from source are those that the imported thing has."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from fkp import signatures


def targets(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["_target_"]} if "_target_" in node else set()
        return own.union(*(targets(value) for value in node.values()))
    return set()


CONFIGURED = set().union(
    *(targets(OmegaConf.to_container(OmegaConf.load(file))) for file in (ROOT / "conf").rglob("*.yaml"))
)
OTHERS = {
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torch.nn.SmoothL1Loss",
    "pytorch_lightning.callbacks.ModelSummary",
    "fkp.predictor.Predictor",
    "fkp.predictor.Predictor.load",
    "fkp.markup.Markup",
}


def imported(target: str) -> object:
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise AssertionError(target)


@pytest.mark.parametrize("target", sorted(CONFIGURED | OTHERS))
def test_static_signature_is_the_real_one(target: str) -> None:
    static = signatures.of(target)
    real = inspect.signature(imported(target)).parameters.values()  # type: ignore[arg-type]
    named = {p.name: p.default is p.empty for p in real if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    assert static is not None
    assert {name: p.required for name, p in static.parameters.items()} == named
    assert static.open == any(p.kind == p.VAR_KEYWORD for p in real)


PACKAGE = {
    "__init__.py": "from .deep import Leaf as Renamed\nfrom .stars import *\nimport os",
    "deep.py": "from . import base as b\nclass Leaf(b.Base):\n    x = 1\n",
    "base.py": "class Base:\n    def __init__(self, a: int, *, b: str = 'x', **rest): ...\n",
    "stars.py": "from dataclasses import dataclass\n@dataclass\nclass Data:\n    p: int\n    q: str = 'y'\n",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("packages")
    for name, source in PACKAGE.items():
        (root / "generated_pkg").mkdir(exist_ok=True)
        (root / "generated_pkg" / name).write_text(source)
    sys.path.insert(0, str(root))
    return "generated_pkg"


def test_reexports_inheritance_stars_and_dataclasses_are_followed(package: str) -> None:
    leaf, data = signatures.of(f"{package}.Renamed"), signatures.of(f"{package}.Data")
    assert leaf is not None and list(leaf.parameters) == ["a", "b"] and leaf.open
    assert leaf.parameters["a"].required and not leaf.parameters["b"].required
    assert data is not None and {n: p.required for n, p in data.parameters.items()} == {"p": True, "q": False}


@pytest.mark.parametrize(
    "target", ["nopackage.X", "fkp.netwrks.TwoConv", "fkp.networks.TwoCon", "torch.optim.SGDD", "fkp.predictor.Face.no"]
)
def test_what_does_not_exist_is_unknown(target: str) -> None:
    with pytest.raises(signatures.Unknown):
        signatures.of(target)


def test_a_source_that_cannot_be_parsed_statically_is_left_alone() -> None:
    assert signatures.of("builtins.dict") is None
    assert Path(__file__).is_file()
