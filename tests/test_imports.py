"""Data flows one way: no module imports from a layer below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# From upstream to downstream: a module of one layer imports from its own layer or from those above.
LAYERS = [
    ["errors"],
    ["ranges"],
    ["files", "console"],
    ["markup"],
    ["geometry", "calibration", "augmentations", "losses", "power_law"],
    ["detectors", "transforms", "codecs", "networks", "metrics", "painter", "face"],
    ["point_map"],
    ["recipe"],
    ["data"],
    ["module", "weights"],
    ["draw", "own_points"],
    ["inference", "callbacks"],
    ["runs"],
    ["doctor", "report", "suggest", "learning_curve"],
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
FILES = [*(ROOT / "fkp").rglob("*.py")]


def owner(file: Path) -> str:
    """The module of fkp/, or the folder, that a file belongs to."""
    return file.relative_to(ROOT / "fkp").parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fkp":
            parts = (node.module or "").split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {parts[1] for parts in names if parts[0] == "fkp" and len(parts) > 1}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_what_lies_upstream(file: Path) -> None:
    name = owner(file)
    if name == "__init__" or file.name == "__main__.py":  # the package's names; scripts
        return
    below = {other for other in imported(file) if LAYER[other] > LAYER[name]}
    within = {other for other in LAYERS[LAYER[name]] if other != name} & imported(file)
    assert not below and not within, f"{name} imports {', '.join(sorted(below | within))}"


def test_every_module_has_a_layer() -> None:
    assert {owner(file) for file in FILES} - {"__init__"} == set(LAYER)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("fkp", ["torch", "cv2", "pandas", "hydra"]),
        ("fkp.runs.command_line", ["torch", "cv2", "pandas"]),
        (
            "fkp.inference.predictor",
            ["torch", "pytorch_lightning", "hydra", "pandas", "torchmetrics"],
        ),
    ],
)
def test_heavy_packages_are_not_waited_for(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
