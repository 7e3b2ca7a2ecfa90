"""What runs a trained network: torch on a checkpoint, or onnxruntime on an exported file, without torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fkp.errors import FkpError
from fkp.markup import Markup
from fkp.transforms import Crops, run

VERSION = 1  # of the recipes that are read
KINDS = {"network": dict, "codec": dict, "transforms": dict, "gray": bool, "markup": dict}
MOST = {"size": 1024, "channels": 3}  # of a crop; memory goes with it
VALUES = 10_000  # in a recipe
# What the parts of a recipe were called until 2026-11: shipped files and users' checkpoints say so.
OLD_KEYS = {"lean": "label_offset"}
OLD_STEPS = {"frame": "face_crop", "crop": "random_crop", "flip": "random_flip"}
OLD_ARGUMENTS = {
    "fkp.transforms.FaceCrop": {
        "lower": "offset_y",
        "turn": "rotation",
        "tail": "tail_p",
        "whole": "full_image",
    },
    "fkp.transforms.RandomFlip": {"share": "p"},
}
# The only modules a file may name: loading one never runs foreign code.
REBUILT = ("fkp.networks", "fkp.codecs", "fkp.transforms")


class Engine(Protocol):
    """What all engines are."""

    # How the network wants its faces cropped, and what its points are, as plain values; see `fkp.runs.results.recipe`.
    recipe: dict[str, Any]

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Crops (B, h, w), or RGB (B, h, w, 3), uint8, to points (B, K, 2), CROP pixels, and confidence (B, K), both
        float32."""
        ...


def load(path: Path, device: str | None = None) -> Engine:
    """The engine for a file, by its ending: `.onnx`, or else a checkpoint.

    Args:
        path: of `train.py` or `export.py`.
        device: such as "cpu" or "cuda", for a checkpoint; None takes a GPU if there is one.

    Raises:
        FkpError: no such file, or it cannot be used.
    """
    if not path.is_file():
        raise FkpError(f"{path}: no such checkpoint; train one with `python train.py`")
    if path.suffix == ".onnx":
        from fkp.inference.onnx_engine import OnnxEngine

        return tried(OnnxEngine(path), path)
    from fkp.inference.torch_engine import TorchEngine  # torch: seconds of imports

    return tried(TorchEngine.load(path, device), path)


def checked(recipe: Any, path: Path) -> dict[str, Any]:
    """A recipe that a file brought, if nothing in it can do harm before it is tried.

    Raises:
        FkpError: it is of a newer fkp, or none.
    """
    if not isinstance(recipe, dict):
        raise FkpError(
            f"{path}: made without a recipe, so it cannot predict; train with `python train.py`"
        )
    recipe = current_names(recipe)
    version = recipe.get("version")
    if isinstance(version, int) and version > VERSION:
        raise FkpError(
            f"{path}: made by a newer fkp (recipe {version}, this one reads {VERSION}); update fkp"
        )
    wrong = [name for name, kind in KINDS.items() if not isinstance(recipe.get(name), kind)]
    if (
        version != VERSION
        or wrong
        or not _plain(recipe)
        or not isinstance(recipe.get("label_offset", 0.0), (int, float))
    ):
        reason = f"of {', '.join(wrong)}" if wrong else "of plain values"
        raise FkpError(
            f"{path}: its recipe makes no sense (nothing usable {reason}); train it again"
        )
    specs = [recipe["network"], recipe["codec"], *recipe["transforms"].values()]
    for name, most in MOST.items():
        odd = [
            spec
            for spec in specs
            if not isinstance(spec, dict) or spec.get(name, 1) not in range(1, most + 1)
        ]
        if odd:
            raise FkpError(
                f"{path}: its recipe asks for a {name} that is not 1 to {most}; not loaded"
            )
    if recipe["network"].get("weights") is not None:
        raise FkpError(f"{path}: its recipe asks for weights from elsewhere; not loaded")
    try:
        Markup(**recipe["markup"])
    except Exception as error:
        raise FkpError(f"{path}: its markup is none ({_line(error)})") from None
    return recipe


def current_names(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe with today's names in the place of those of earlier versions."""
    recipe = {OLD_KEYS.get(key, key): value for key, value in recipe.items()}
    steps = recipe.get("transforms")
    if not isinstance(steps, dict):
        return recipe
    renamed = {}
    for name, step in steps.items():
        old = OLD_ARGUMENTS.get(str(step.get("_target_")), {}) if isinstance(step, dict) else {}
        step = {old.get(key, key): value for key, value in step.items()} if old else step
        renamed[OLD_STEPS.get(name, name)] = step
    return {**recipe, "transforms": renamed}


def _plain(value: Any) -> bool:
    """Whether it is values that JSON has, and few of them, those counted again that are named again."""
    values = [value]
    for one in values:  # which grow
        if isinstance(one, dict):
            values += [*one.values(), *(name if isinstance(name, str) else {0} for name in one)]
        elif isinstance(one, (list, tuple)):
            values += one
        elif isinstance(one, (int, float)):
            if not abs(one) < 2**53:  # NaN neither
                return False
        elif one is not None and not isinstance(one, str):
            return False
        if len(values) > VALUES:
            return False
    return True


def tried(engine: Engine, path: Path) -> Engine:
    """An engine that has answered, for one black crop.

    Raises:
        FkpError: it cannot, or answers something other than the points of its markup.
    """
    recipe, boxes = engine.recipe, np.array([[10, 10, 110, 110], [0, 0, 300, 400]])
    count = len(recipe["markup"]["points"])
    steps = [part(step, path) for step in recipe["transforms"].values()]
    try:
        with np.errstate(all="ignore"):
            width, height = run(steps, Crops(boxes, np.array([[640, 480], [500, 700]]))).size
        if not 1 <= min(width, height) <= max(width, height) <= MOST["size"]:
            raise ValueError(f"crops of {width} x {height} pixels")
        points, confidence = engine(
            np.zeros((1, height, width) if recipe["gray"] else (1, height, width, 3), np.uint8)
        )
        good = (
            points.shape == (1, count, 2)
            and confidence.shape == (1, count)
            and np.isfinite(points).all()
        )
    except FkpError:
        raise
    except Exception as error:  # parts that nobody vouches for can raise anything
        raise FkpError(f"{path}: its parts do not fit each other ({_line(error)})") from None
    if not good:
        raise FkpError(
            f"{path}: does not answer with {count} points, each with its confidence; train it again"
        )
    return engine


def part(spec: dict[str, Any], path: Path, **more: Any) -> Any:
    """Make one of fkp's own objects from plain values in a file."""
    arguments = {name: value for name, value in spec.items() if name != "_partial_"} | more
    target = str(arguments.pop("_target_", ""))
    module, _, name = target.rpartition(".")
    made = getattr(importlib.import_module(module), name, None) if module in REBUILT else None
    if not isinstance(made, type) or made.__module__ != module:
        raise FkpError(
            f"{path}: names {target[:80]!r}, which is none of fkp's own parts; not loaded"
        )
    try:
        return made(**arguments)
    except FkpError as error:
        raise FkpError(f"{path}: {error}") from None
    except Exception as error:  # values that nobody vouches for can raise anything
        raise FkpError(f"{path}: made by another version of fkp ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
