"""Data flows one way: nothing upstream imports from downstream."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

ROOMS = {
    **{path.stem: path for path in (ROOT / "fkp").glob("*.py")},
    "sources": ROOT / "fkp/sources",
    "doctor": ROOT / "fkp/doctor",
    "engines": ROOT / "fkp/engines",
    "weights": ROOT / "fkp/weights/__init__.py",  # its __main__ is a script, which makes the files
}
# Each room with what it may import of fkp, besides errors.
MAY = {
    "errors": set(),
    "files": set(),
    "markup": {"files"},
    "progress": set(),
    "geometry": {"markup"},
    "pictures": {"files"},
    "cache": set(),
    "columns": {"cache"},
    "download": {"files"},
    "sources": {
        "cache",
        "columns",
        "download",
        "files",
        "markup",
        "media",
        "pictures",
        "progress",
        "shapes",
        "sources",
    },
    "canvases": {"cache", "columns", "geometry", "markup", "pictures", "progress", "sources"},
    "shapes": {"markup"},
    "transforms": {"geometry"},
    "augmentations": set(),
    "dataset": {"augmentations", "canvases", "geometry", "markup", "sources", "transforms"},
    "label_values": {"columns", "markup", "sources"},
    "label_places": {"detectors", "geometry", "label_values", "markup", "pictures", "sources"},
    "datamodule": {
        "augmentations",
        "cache",
        "canvases",
        "dataset",
        "label_places",
        "label_values",
        "framing",
        "markup",
        "shapes",
        "sources",
        "transforms",
    },
    "framing": {
        "canvases",
        "detectors",
        "geometry",
        "markup",
        "pictures",
        "progress",
        "shapes",
        "sources",
    },
    "archive": set(),
    "networks": {"archive"},
    "losses": set(),
    "calibration": set(),
    "codecs": {"calibration"},
    "metrics": {"markup"},
    "module": {"calibration", "codecs", "markup", "metrics"},
    "detectors": {"ranges", "cache", "download", "geometry", "pictures"},
    "engines": {"archive", "codecs", "engines", "markup", "networks", "transforms"},
    "predictor": {
        "ranges",
        "detectors",
        "engines",
        "geometry",
        "markup",
        "pictures",
        "transforms",
        "weights",
    },
    "weights": {"weights"},
    "draw": {"dataset", "geometry", "markup", "predictor"},
    "evaluation": {
        "canvases",
        "framing",
        "geometry",
        "markup",
        "metrics",
        "pictures",
        "predictor",
        "progress",
        "sources",
    },
    "doctor": {
        "canvases",
        "config",
        "doctor",
        "draw",
        "entry",
        "files",
        "framing",
        "geometry",
        "label_places",
        "label_values",
        "markup",
        "pictures",
        "predictor",
        "progress",
        "shapes",
        "sources",
    },
    "media": {"files", "pictures"},
    "tracks": {"geometry", "markup", "predictor"},
    "predictions": {
        "draw",
        "files",
        "markup",
        "media",
        "pictures",
        "predictor",
        "progress",
        "runs",
        "sources",
    },
    "callbacks": {"draw", "files", "geometry", "metrics", "module", "pictures"},
    "provenance": {"overrides"},
    "sweeps": {"provenance"},
    "report": {"entry", "files", "metrics", "provenance", "runs", "sweeps"},
    "resume": {"archive", "module", "provenance"},
    "processes": {"provenance", "resume"},
    "runs": {
        "config",
        "datamodule",
        "draw",
        "engines",
        "evaluation",
        "module",
        "pictures",
        "predictor",
        "provenance",
        "resume",
        "weights",
    },
    "signatures": set(),
    "overrides": set(),
    "ranges": set(),
    "keys": {"overrides", "ranges", "signatures"},
    "config": {"keys", "overrides", "ranges", "signatures"},
    "entry": {"config", "keys", "overrides"},
    "__init__": {"predictor"},
}


def imported(room: str) -> set[str]:
    files = ROOMS[room].rglob("*.py") if ROOMS[room].is_dir() else [ROOMS[room]]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fkp":
                parts = (node.module or "").split(".")[1:]
                found |= {parts[0]} if parts else {alias.name for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {
                    alias.name.split(".")[1]
                    for alias in node.names
                    if alias.name.startswith("fkp.")
                }
    return found - {"errors"}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_lies_upstream(room: str) -> None:
    assert imported(room) <= MAY[room]


def test_every_room_is_named() -> None:
    assert set(ROOMS) == set(MAY)


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
