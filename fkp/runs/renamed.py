"""Name the successor of a key of the previous release, for one release."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from omegaconf import DictConfig

# Old key -> new key, the more specific first. `*` stands for one word.
RENAMED = {
    "passes": "refine_steps",
    "part": "split",
    "changed": "allow_changes",
    "data.split": "data.protocol",
    "crop.frame.lower": "transforms.face_crop.offset_y",
    "crop.frame.turn": "transforms.face_crop.rotation",
    "crop.frame.tail": "transforms.face_crop.tail_p",
    "crop.frame.whole": "transforms.face_crop.full_image",
    "crop.frame": "transforms.face_crop",
    "crop.rescale": "transforms.rescale",
    "crop.crop": "transforms.random_crop",
    "crop.flip.share": "transforms.random_flip.p",
    "crop.flip": "transforms.random_flip",
    "crop": "transforms",
    "augment.blur.deviation": "augment.blur.sigma",
    "augment.noise.deviation": "augment.noise.std",
    "augment.*.share": "augment.*.p",
    "model.lean": "model.label_offset",
    "model.likelihood": "model.nll_weight",
    "callbacks.sheets": "callbacks.face_grids",
    "detector.min_size": "detector.smallest",
    "detector.tile_scale": "detector.smallest",
}

# Old key -> the mode of `start` that replaces it.
MODES = {"weights": "finetune", "ckpt_path": "resume", "repeat": "repeat"}

# Old option of a group -> new option.
OPTIONS = {("data", "real"): "youtube_faces_300w"}


def new_key(key: str) -> str | None:
    """Return the present name of a key; None if it was not renamed.

    >>> new_key("crop.frame.lower"), new_key("augment.occlusion.share")
    ('transforms.face_crop.offset_y', 'augment.occlusion.p')
    >>> new_key("crop.rescale.size")
    'transforms.rescale.size'
    >>> new_key("seed")
    """
    for old, new in RENAMED.items():
        pattern = re.escape(old).replace(r"\*", r"(\w+)")
        if found := re.fullmatch(rf"{pattern}(?P<below>\..+)?", key):
            name = new.replace("*", found[1]) if "*" in old else new
            return name + (found["below"] or "")
    return None


def faults_of_arguments(arguments: Sequence[str], known: Collection[str]) -> Iterator[str]:
    """Yield `KEY: renamed to NEW` for each override of a renamed key, or of a renamed option.

    Args:
        arguments: of a command line; options, such as `-m`, are skipped.
        known: keys and groups at the root of the script's configuration.
    """
    for argument in arguments:
        if argument.startswith("-"):
            continue
        key, _, value = argument.lstrip("+~").partition("=")
        yield from _key_faults(key, known, value or "…")
        # In a sweep, the value is several options.
        for option in value.split(","):
            if key in known and (new := OPTIONS.get((key, option.strip()))):
                yield f"{key}={option.strip()}: renamed to {key}={new}"


def faults_of_config(cfg: DictConfig, known: Collection[str]) -> Iterator[str]:
    """Yield `KEY: renamed to NEW` for each renamed key in a composed configuration.

    Args:
        cfg: composed of files, among them the user's own, below `--config-dir`.
        known: keys and groups at the root of the script's configuration.
    """
    for key in _leaves("", cfg):
        yield from _key_faults(key, known)


def _key_faults(key: str, known: Collection[str], value: str = "…") -> Iterator[str]:
    if key in MODES and "start" in known:
        yield f"{key}: renamed to start.from={value} start.mode={MODES[key]}"
    new = new_key(key)
    # A script without the new key never had the old one.
    if new and new.partition(".")[0] in known:
        yield f"{key}: renamed to {new}"


def _leaves(prefix: str, node: object) -> Iterator[str]:
    """Yield the dotted keys of all values that are no dictionaries, interpolations unresolved."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation():
        yield prefix
        return
    if node._is_missing():
        yield prefix
        return
    for key in node:
        name = str(key)  # of any type that YAML has
        yield from _leaves(f"{prefix}.{name}" if prefix else name, node._get_node(key))
