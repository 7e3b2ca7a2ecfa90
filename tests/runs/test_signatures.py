"""Signatures read from source equal those of the imported objects."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from fkp.runs import signatures


def targets(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["_target_"]} if "_target_" in node else set()
        return own.union(*(targets(value) for value in node.values()))
    return set()


CONFIGURED = set().union(
    *(
        targets(OmegaConf.to_container(OmegaConf.load(file)))
        for file in (ROOT / "conf").rglob("*.yaml")
    )
)
OTHERS = {
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torch.nn.SmoothL1Loss",
    "pytorch_lightning.callbacks.ModelSummary",
    "fkp.inference.predictor.Predictor",
    "fkp.inference.predictor.Predictor.load",
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
def test_static_signature_equals_the_real_one(target: str) -> None:
    static = signatures.of(target)
    real = inspect.signature(imported(target)).parameters.values()  # type: ignore[arg-type]
    named = {
        p.name: p.default is p.empty
        for p in real
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    assert static is not None
    assert {name: p.required for name, p in static.parameters.items()} == named
    assert static.open == any(p.kind == p.VAR_KEYWORD for p in real)


PACKAGE = {
    "__init__.py": "from .deep import Leaf as Renamed\nfrom .stars import *\nimport os",
    "deep.py": "from . import base as b\nclass Leaf(b.Base):\n    x = 1\n",
    "base.py": "class Base:\n    def __init__(self, a: int, *, b: str = 'x', **rest): ...\n",
    "stars.py": "from dataclasses import dataclass\nfrom .more import *\n"
    "@dataclass\nclass Data:\n p: int\n q: int = 3",
    "more.py": "from .most import *",
    "most.py": "def small(*, weights: str | None = None, **rest): ...\n"
    "def none(x: int = None, *rest): ...",
    "classes.py": """
from dataclasses import dataclass, field, KW_ONLY
from typing import ClassVar, NamedTuple
import enum
import abc
from . import base

class Mixin:
    def helper(self): ...
class Mixed(Mixin, base.Base): ...
class Top:
    def __init__(self, top): ...
class Left(Top): ...
class Right(Top):
    def __init__(self, right): ...
class Diamond(Left, Right): ...
class Inner:
    class Deep:
        def __init__(self, deep): ...
    @classmethod
    def load(cls, path): ...
class Outer(Inner): ...
class Abstract(metaclass=abc.ABCMeta):
    def __init__(self, a): ...
class New:
    def __new__(cls, n): ...
@dataclass
class Parent:
    kept: int
    replaced: int
@dataclass(order=True)
class Fields(Parent):
    shared: ClassVar[int] = 1
    replaced: int = 3
    made: list = field(default_factory=list)
    hidden: int = field(init=False, default=3)
    also: int = field(default=1, repr=False)
@dataclass
class Own:
    x: int
    def __init__(self, y): ...
@dataclass(init=False)
class Inherits(Top):
    x: int = 3

# What only running them tells:
class Error(Exception): ...
class Pair(NamedTuple):
    x: int
class Kind(enum.Enum):
    A = 1
class Meta(type): ...
class Metaclassed(metaclass=Meta): ...
@dataclass
class ByName:
    x: int
    _: KW_ONLY
    y: int
def changed(made):
    return made
@changed
class Decorated: ...
class Assigned:
    __init__ = Top.__init__
try:
    from elsewhere import Either
except ImportError:
    class Either:
        def __init__(self, x): ...
class Wrapped:
    def __init__(self, x): ...
Wrapped = changed(Wrapped)
for Looped in (1, 2): ...
First, Second = 1, 2
""",
    "writes.py": "for name in 'ab':\n    globals()[name] = 1",
    "compiled.cpython-311-x86_64-linux-gnu.so": "",
    "stars_of_compiled.py": "from .compiled import *",
    "broken.py": "def f(:",
    "one.py": "from .two import Round",
    "two.py": "from .one import Round",
    "namespace/inside.py": "class Thing:\n    def __init__(self, x): ...",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("packages")
    for name, source in PACKAGE.items():
        (root / "generated_pkg" / name).parent.mkdir(exist_ok=True)
        (root / "generated_pkg" / name).write_text(source)
    sys.path.insert(0, str(root))
    return "generated_pkg"


def test_reexports_inheritance_stars_and_dataclasses_are_followed(package: str) -> None:
    leaf, data = signatures.of(f"{package}.Renamed"), signatures.of(f"{package}.Data")
    assert leaf is not None and list(leaf.parameters) == ["a", "b"] and leaf.open
    assert leaf.parameters["a"].required and not leaf.parameters["b"].required
    assert data is not None and {n: p.required for n, p in data.parameters.items()} == {
        "p": True,
        "q": False,
    }


@pytest.mark.parametrize(
    "name",
    [
        "Mixed",
        "Diamond",
        "Outer.load",
        "Inner.Deep",
        "Abstract",
        "New",
        "Fields",
        "Own",
        "Inherits",
    ],
)
def test_a_class_has_the_signature_that_python_reports(package: str, name: str) -> None:
    test_static_signature_equals_the_real_one(f"{package}.classes.{name}")


def test_star_imports_are_followed_to_their_end(package: str) -> None:
    small, none = signatures.of(f"{package}.small"), signatures.of(f"{package}.none")
    assert (
        small is not None
        and list(small.parameters) == ["weights"]
        and small.open
        and not small.positional
    )
    assert none is not None and none.positional == ["x"] and none.any_positional
    with pytest.raises(signatures.Unknown) as unknown:
        signatures.of(f"{package}.smal")
    assert "small" in unknown.value.args[2]


@pytest.mark.parametrize(
    "name",
    [
        *(
            f"classes.{n}"
            for n in ("Error", "Pair", "Kind", "Metaclassed", "ByName", "Decorated", "Assigned")
        ),
        *(
            f"classes.{n}"
            for n in ("Either", "Wrapped", "Looped", "First", "Error.nothing", "Assigned.__init__")
        ),
        *(
            "writes.a",
            "compiled",
            "compiled.X",
            "stars_of_compiled.X",
            "broken.f",
            "one.Round",
            "namespace",
        ),
    ],
)
def test_a_signature_that_only_execution_shows_is_unknown(package: str, name: str) -> None:
    assert signatures.of(f"{package}.{name}") is None


def test_namespace_packages_are_searched(package: str) -> None:
    thing = signatures.of(f"{package}.namespace.inside.Thing")
    assert thing is not None and list(thing.parameters) == ["x"]


@pytest.mark.parametrize(
    "target", ["cv2.CascadeClassifier", "cv2.data.haarcascades", "enum.Enum", "numpy.array"]
)
def test_compiled_and_generated_names_are_accepted(target: str) -> None:
    assert signatures.of(target) is None


@pytest.mark.parametrize(
    "target",
    [
        *(
            "nopackage.X",
            "fkp.netwrks.TwoConv",
            "fkp.networks.TwoCon",
            "torch.optim.SGDD",
            "fkp.inference.predictor.Face.no",
        ),
        *("pytorch_lightning.Trainr", "torch.nn.Lineaar", "TwoConv", "", ".x"),
    ],
)
def test_a_name_that_does_not_exist_is_reported(target: str) -> None:
    with pytest.raises(signatures.Unknown):
        signatures.of(target)


def test_source_that_cannot_be_parsed_is_skipped() -> None:
    assert signatures.of("builtins.dict") is None
    assert Path(__file__).is_file()
